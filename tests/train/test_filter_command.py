"""The command `train filter`: it writes the samples that are kept, and a report of the others."""

import json
import os

import pytest

from jsd import cli
from jsd.train.filter_shards import read_shard
from tests.train.shards import good, picture, write


@pytest.fixture
def cats(tmp_path):
    """A shard of four samples: a cat, the same picture with another caption, a duplicate, an English caption."""
    cat = {"png": picture(size=(64, 64)), "txt": "猫の絵", "json": {"pwatermark": 0.1}}
    samples = {"a": cat, "b": cat | {"txt": "犬の絵"}, "c": cat, "d": cat | {"txt": "a cat"}}
    write(tmp_path / "00000.tar", samples)
    return samples


def run(*words):
    return cli.main(["train", "filter", *map(str, words)])


def report_of(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))["shards"]["00000.tar"]


def test_kept_samples_are_written_byte_for_byte(cats, tmp_path):
    assert run(tmp_path / "00000.tar", tmp_path / "out", "--language", "ja", "--min-side", 32) == 0
    kept, broken = read_shard(str(tmp_path / "out" / "00000.tar"))
    assert not broken
    assert [(s.key, s.raw["png"], s.caption) for s in kept] == [
        ("a", cats["a"]["png"], "猫の絵"),
        ("b", cats["b"]["png"], "犬の絵"),
    ]
    assert kept[0].about == {"pwatermark": 0.1}


def test_the_report_lists_the_samples_that_each_filter_dropped(cats, tmp_path, capsys):
    assert run(tmp_path / "00000.tar", tmp_path / "out", "--language", "ja", "--min-side", 32) == 0
    report = report_of(tmp_path / "out")
    assert (report["samples"], report["kept"]) == (4, 2)
    assert report["dropped"] == {"readable": [], "language": ["d"], "min_side": [], "no_duplicates": ["c"]}
    assert "kept 2 of 4 samples" in capsys.readouterr().out


def test_a_second_run_leaves_finished_shards_alone(cats, tmp_path):
    arguments = (tmp_path / "00000.tar", tmp_path / "out", "--language", "ja")
    assert run(*arguments) == 0
    written = (tmp_path / "out" / "00000.tar").stat().st_mtime_ns
    assert run(*arguments) == 0
    assert (tmp_path / "out" / "00000.tar").stat().st_mtime_ns == written
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00000.tar", "report.json"]


def test_nothing_is_overwritten_or_mixed_up(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "00000.tar", {"x": {"png": picture(), "txt": name}})
    before = (tmp_path / "a" / "00000.tar").read_bytes()
    assert run(tmp_path / "a", tmp_path / "a", "--language", "ja") == 2
    assert "holds the shards that are to be filtered" in capsys.readouterr().err
    assert (tmp_path / "a" / "00000.tar").read_bytes() == before
    assert run(f"{tmp_path}/a/00000.tar::{tmp_path}/b/00000.tar", tmp_path / "out") == 2
    assert "several shards are called 00000.tar" in capsys.readouterr().err
    assert run(tmp_path / "a", tmp_path / "out") == 0
    assert run(tmp_path / "a", tmp_path / "out", "--language", "ja") == 2
    assert "made with other filters" in capsys.readouterr().err


def test_a_truncated_shard_is_filtered_up_to_its_end(tmp_path, capsys):
    url = good(tmp_path / "data", shards=1, each=6)[0]
    os.truncate(url, 9 * 1024 + 700)  # within the tenth of its twelve members
    assert run(tmp_path / "data", tmp_path / "out") == 0
    report = report_of(tmp_path / "out")
    assert report["samples"] == 5
    assert "unreadable" in report["broken"]
    assert "1 shards could not be read to their end, 00000.tar first" in capsys.readouterr().out
