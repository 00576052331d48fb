"""Every wrong option, file or folder of a training command ends with exit code 2 and a message that names it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs import flags
from tests.train.shards import picture, write


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A text file of Japanese captions with 13 different characters."""
    file = tmp_path / "captions.txt"
    file.write_text("猫の肖像画\n富士山と東京タワー\n" * 50, "utf-8")
    return file


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of one good sample, whose .json is empty."""
    return write(tmp_path / "0.tar", {"a": {"png": picture(), "txt": "猫", "json": {}}})


WHOLE, SHARE = "a whole number from", "a number from 0 to 1 is wanted"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--vocab-size", "2", f"argument --vocab-size: '2' was given; {WHOLE} 4 to 1000000"),
        ("--vocab-size", "9999999999", f"argument --vocab-size: '9999999999' was given; {WHOLE} 4"),
        ("--vocab-size", "1e4", f"argument --vocab-size: '1e4' was given; {WHOLE} 4"),
        ("--vocab-size", "12", "need 18; use more (--vocab-size), or fewer characters (--character-coverage)"),
        ("--character-coverage", "2", "argument --character-coverage: '2' was given; a number from 0.98 to 1"),
        ("--character-coverage", "nan", "argument --character-coverage: 'nan' was given; a number from 0.98 to 1"),
        ("--max-length", "1", f"argument --max-length: '1' was given; {WHOLE} 2 to 10000"),
        ("--count", "-1", f"argument --count: '-1' was given; {WHOLE} 1"),
        ("--to", "captions.txt", "--to: 'captions.txt' was given, but"),
        ("--to", "captions.txt/below", "captions.txt' is a file; name a folder"),
    ],
)
def test_train_tokenizer(fails, captions, tmp_path, monkeypatch, option, value, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails("train", "tokenizer", captions, "--to", "out", option, value)
    assert not (tmp_path / "out" / "spiece.model").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.txt", "nowhere.txt: no such file; name a folder of *.tar, or a pattern"),
        ("{0..9}.tar", "{0..9}.tar: no such file"),
        ("{0..9.tar", "{0..9.tar: not a pattern of files"),
        ("a ${HERE}", "missing environment variable"),
        (".", ".: no *.tar in this folder"),
        ("empty", "empty: 0 captions are too few"),
    ],
)
def test_a_source_of_captions_or_shards_that_is_not_there(fails, tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    assert message in fails("train", "tokenizer", source, "--to", "out")
    if source != "empty":
        assert message in fails("train", "filter", source, "out")


def test_a_byte_order_mark_is_no_part_of_the_first_caption(captions, tmp_path):
    from jsd.train.tokenizer import captions as read

    captions.write_bytes(b"\xef\xbb\xbf" + captions.read_bytes())
    assert next(read(str(captions), [])) == "猫の肖像画"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min-side", "-1"], f"argument --min-side: '-1' was given; {WHOLE} 0"),
        (["--max-aspect", "0.5"], "argument --max-aspect: '0.5' was given; a number from 1 is wanted"),
        (["--max-aspect", "nan"], "argument --max-aspect: 'nan' was given"),
        (["--max-watermark", "2"], f"argument --max-watermark: '2' was given; {SHARE}"),
        (["--min-similarity", "nan"], "argument --min-similarity: 'nan' was given; a number is wanted"),
        (["--min-similarity", "0"], "similarity: a has none in its .json"),
        (["--language", "fr"], "language 'fr': a has no LANGUAGE"),
        (["--clip", "-1"], "--clip: given without --min-similarity"),
        (["--clip", "-1", "--min-similarity", "0"], "--clip: '-1' can't score pictures ("),
        (["--clip", "nan", "--min-similarity", "0"], "--clip: 'nan' can't score pictures ("),
        (["--clip", "0.tar", "--min-similarity", "0"], "a folder with a CLIP-like transformers model"),
        (["--clip", "x", "--device", "gpu", "--min-similarity", "0"], "--device: 'gpu' can't be used ("),
    ],
)
def test_train_filter(fails, shard, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails("train", "filter", shard, "out", *words)


def test_train_filter_into_a_file_or_a_foreign_folder(fails, shard, tmp_path):
    assert "folder: " in fails("train", "filter", shard, shard)
    for content in ("{", "[]", "{}"):
        (tmp_path / "report.json").write_text(content)
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(shard, tmp_path / "data")
        assert "report.json: " in fails("train", "filter", tmp_path / "data", tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, f"argument --steps: '0' was given; {WHOLE} 1"),
        ({"batch": 0}, f"argument --batch: '0' was given; {WHOLE} 1 to 100000"),
        ({"batch": 10**12}, f"argument --batch: '1000000000000' was given; {WHOLE} 1 to 100000"),
        ({"accumulate": "²"}, "argument --accumulate: '²' was given"),
        ({"size": 0}, f"argument --size: '0' was given; {WHOLE} 1 to 4096"),
        ({"size": 7}, "--size: 7 was given; this model is trained on multiples of 16, so give 16"),
        ({"size": 2048, "prompts": None}, "can't be drawn (width: 2048 was given; 64 to 1024 are allowed)"),
        ({"lr": -1}, "argument --lr: '-1' was given; a number over 0 is wanted"),
        ({"lr": 0}, "argument --lr: '0' was given; a number over 0 is wanted"),
        ({"lr": "nan"}, "argument --lr: 'nan' was given"),
        ({"lr": "inf"}, "argument --lr: 'inf' was given"),
        ({"warmup": -1}, f"argument --warmup: '-1' was given; {WHOLE} 0"),
        ({"dropout": 1.5}, f"argument --dropout: '1.5' was given; {SHARE}"),
        ({"min-snr": 0}, "argument --min-snr: '0' was given; a number over 0 is wanted"),
        ({"ema": "nan"}, f"argument --ema: 'nan' was given; {SHARE}"),
        ({"seed": -1}, f"argument --seed: '-1' was given; {WHOLE} 0 to 9007199254740991"),
        ({"workers": -1}, f"argument --workers: '-1' was given; {WHOLE} 0"),
        ({"save-every": 0}, f"argument --save-every: '0' was given; {WHOLE} 1"),
        ({"stage": "stage3"}, "argument --stage: invalid choice: 'stage3'"),
        ({"log-with": "wandb"}, "argument --log-with: invalid choice"),
        ({"model": "nowhere"}, "--model: 'nowhere' is no folder"),
        ({"model": "sjis"}, "--model: 'sjis' is no folder"),
        ({"tokenizer": "nowhere"}, "nowhere/tokenizer_config.json: "),
        ({"shards": "nowhere"}, "nowhere: no such file"),
        ({"out": "sjis"}, "--out: 'sjis' was given, but "),
        ({"prompts": "nowhere"}, "--prompts: 'nowhere' can't be read (No such file or directory)"),
        ({"prompts": "."}, "--prompts: '.' can't be read (Is a directory)"),
        ({"prompts": "sjis"}, "--prompts: 'sjis' is not UTF-8"),
    ],
)
def test_train_loop(fails, settings, tmp_path, monkeypatch, changed: dict[str, Any], message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sjis").write_bytes("猫の絵".encode("shift_jis"))
    assert message in fails("train", *flags(settings | changed))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", "0", f"argument --steps: '0' was given; {WHOLE} 1"),
        ("--batch", "-3", f"argument --batch: '-3' was given; {WHOLE} 1"),
        ("--rank", "0", f"argument --rank: '0' was given; {WHOLE} 1 to 4096"),
        ("--lr", "nan", "argument --lr: 'nan' was given; a number over 0 is wanted"),
        ("--seed", "-1", f"argument --seed: '-1' was given; {WHOLE} 0"),
        ("--size", "7", "--size: 7 was given; this model is trained on multiples of 16, so give 16"),
        ("--model", "nowhere", "--model: 'nowhere' is no folder"),
        ("--model", "pictures", "pictures/tokenizer/tokenizer_config.json: "),
        ("--images", "nowhere", "nowhere: no such folder; name a folder of pictures"),
        ("--images", "pictures/a.png", "pictures/a.png: not a folder; name a folder of pictures"),
        ("--to", "a.bin", "--to: 'a.bin' was given; a name ending in .safetensors is wanted"),
        ("--to", "folder.safetensors", "--to: 'folder.safetensors' is a folder; name a file"),
        ("--to", "pictures/a.png/b.safetensors", "a.png' is a file; name a folder"),
    ],
)
def test_train_lora(fails, tiny_folder, tmp_path, monkeypatch, option, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture())
    (tmp_path / "pictures" / "a.txt").write_text("猫", "utf-8")
    words = {"--model": tiny_folder, "--images": "pictures", "--to": "a.safetensors"} | {option: value}
    assert message in fails("train", "lora", "--cpu", *(word for pair in words.items() for word in pair))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.safetensors", "pictures"]


def test_train_embedded(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert "--workdir: 'file' was given, but" in fails("train", "embedded", "--workdir", "file")
    assert "--to: 'file' was given, but" in fails("train", "embedded", "--to", "file")
    assert "--columns (base): 'file/base' was given" in fails("train", "embedded", "--to", "to", "--columns", "file")
    (tmp_path / "columns" / "stage1" / "mine").mkdir(parents=True)
    error = fails("train", "embedded", "--to", "to", "--columns", "columns")
    assert "stage1: exists and is not a model folder" in error


def test_eval(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--json: '.' is a folder" in fails("eval", "--json", ".")
