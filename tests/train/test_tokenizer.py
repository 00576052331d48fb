"""A tokenizer is trained on captions, and opens as `jsd.tokenizer` reads it."""

import pytest

from jsd import cli
from jsd.errors import TrainingError
from jsd.tokenizer import Tokenizer
from jsd.train.tokenizer import EDGE, train_tokenizer
from tests.train.shards import good


def test_widths_are_folded_and_words_stay_apart(tmp_path):
    words = ["猫", "犬", "富士山", "ラーメン", "油絵", "水彩画", "の肖像画", "TV"]
    texts = [f"{EDGE}{a}{EDGE} {EDGE}{b}{EDGE}" for a in words for b in words] * 20
    train_tokenizer(texts, tmp_path, vocab_size=200, max_length=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spiece.model", "tokenizer_config.json"]
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.max_length) == (0, 1, 16)
    assert tokenizer("ﾗｰﾒﾝ　ＴＶ").ids == tokenizer("ラーメン tv").ids
    pieces = [tokenizer.pieces.id_to_piece(i) for i in range(tokenizer.vocabulary_size)]
    assert not [piece for piece in pieces if sum(word in piece for word in words) > 1]
    assert not [piece for piece in pieces if EDGE in piece]


def test_a_bar_in_a_caption_is_an_ordinary_character(tmp_path):
    train_tokenizer(["東京タワー | 観光ガイド", "猫|犬"] * 50, tmp_path, vocab_size=60, max_length=16)
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.pieces.unk_id() not in tokenizer("東京タワー | 観光ガイド").ids


def test_a_vocabulary_smaller_than_the_characters_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="a tokenizer of 5 tokens can't be trained"):
        train_tokenizer(["東京タワーと富士山"] * 50, tmp_path, vocab_size=5, max_length=16)
    assert list(tmp_path.iterdir()) == []


def test_the_command_reads_text_files_and_shards(tmp_path, capsys):
    good(tmp_path / "data", shards=2, each=20)
    (tmp_path / "captions.txt").write_text("猫の絵\n\n犬の絵\n" * 20, "utf-8")
    sources = [str(tmp_path / "captions.txt"), str(tmp_path / "data")]
    options = ["--to", str(tmp_path / "out"), "--vocab-size", "60", "--max-length", "16"]
    assert cli.main(["train", "tokenizer", *sources, *options]) == 0
    assert "held-out captions" in capsys.readouterr().out
    tokenizer = Tokenizer.from_folder(tmp_path / "out")
    assert tokenizer.pieces.unk_id() not in tokenizer("猫 犬 1-1").ids


@pytest.mark.parametrize(
    ("content", "message"),
    [("猫の絵\n".encode(), "1 captions are too few"), ("猫の絵\n".encode("shift_jis"), "not UTF-8")],
)
def test_too_few_or_unreadable_captions_are_an_error(tmp_path, capsys, content, message):
    (tmp_path / "captions.txt").write_bytes(content)
    assert cli.main(["train", "tokenizer", str(tmp_path / "captions.txt"), "--to", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
