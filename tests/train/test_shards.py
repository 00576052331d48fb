"""A sample that falls apart in its shard is left out with the reason: an unsorted shard, a dot in a name."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from jsd import cli
from jsd.errors import TrainingError
from jsd.train.data import Shards, Stream
from jsd.train.shards import Skipped, raw_samples
from tests.train.shards import picture

APART = "(the shard is not sorted: the files of a sample have to follow each other; tar --sort=name does it)"
DOT = "(a dot in its name: webdataset ends a name at the first dot; rename the files)"


def write(file: Path, *names: str) -> str:
    """Write a tar file of empty pictures and captions, in this order, and return its path."""
    with tarfile.open(file, "w") as archive:
        for name in names:
            data = "猫".encode() if name.endswith(".txt") else picture()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(file)


@pytest.mark.parametrize(
    ("names", "reasons"),
    [
        (["a.png", "b.png", "a.txt", "b.txt"], {f"no caption {APART}": 2, f"picture: none {APART}": 2}),
        (["v1.a.png", "v1.a.txt"], {f"no caption {DOT}": 1}),
        (["a.png", "b.txt"], {"no caption": 1, "picture: none": 1}),
    ],
)
def test_the_reason_is_logged(tmp_path, names, reasons):
    url = write(tmp_path / "0.tar", *names, "good.png", "good.txt")
    stream = Stream(Shards([url], size=16, batch=1))
    next(stream), next(stream)
    assert stream.skipped == Counter(reasons)


def test_the_reason_is_told_if_no_sample_is_good(tmp_path):
    url = write(tmp_path / "0.tar", "a.png", "b.png", "a.txt", "b.txt")
    with pytest.raises(TrainingError, match="not one good sample.*the shard is not sorted"):
        next(Stream(Shards([url], size=16, batch=1)))


def test_the_filter_and_the_tokenizer_tell_the_reason(tmp_path, capsys):
    url = write(tmp_path / "0.tar", "v1.a.png", "v1.a.txt")
    assert cli.main(["train", "filter", url, str(tmp_path / "out")]) == 0
    assert f"not readable: 1 x no caption {DOT}" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["shards"]["0.tar"]["unreadable"] == {f"no caption {DOT}": 1}
    assert cli.main(["train", "tokenizer", url, "--to", str(tmp_path / "tokenizer")]) == 2
    assert f"'no caption {DOT}': 1" in capsys.readouterr().out


def test_hidden_files_of_a_mac_do_not_part_a_sample(tmp_path):
    url = write(tmp_path / "0.tar", "x/._a.png", "x/a.png", "x/._a.txt", "x/a.txt", ".DS_Store")
    (sample,) = raw_samples(url, [])
    assert (sample["__key__"], sample["txt"].decode()) == ("x/a", "猫")


@pytest.mark.parametrize(
    ("names", "content", "reason"),
    [
        (["a.txt", "a.txt"], None, "two files of the same name"),
        ([], b"no tar file" * 100, "not a whole tar file"),
        ([], None, "No such file or directory"),
    ],
)
def test_a_shard_that_can_not_be_read_on(tmp_path, names, content, reason):
    file, skipped = tmp_path / "0.tar", []
    if names:
        write(file, *names)
    elif content:
        file.write_bytes(content)
    list(raw_samples(str(file), skipped))
    assert skipped == [Skipped(str(file), "", f"rest of the shard unreadable ({reason})")]
