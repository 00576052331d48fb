"""A text becomes the token ids that the model was trained on, and never a control token."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from transformers import T5Tokenizer

from jsd.errors import WeightsError
from jsd.tokenizer import Tokenizer
from tests.fakes import LINES, MAX_TOKENS, train_sentencepiece
from tests.server import ROOT


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return Tokenizer.from_folder(tiny_folder / "tokenizer")


@pytest.fixture(scope="module")
def rinna_like(tmp_path_factory):
    """A file like rinna's: unknown 0, <s> 1, </s> 2, user-defined symbols from "[PAD]" 3 on, and no padding id."""
    model = train_sentencepiece(
        tmp_path_factory.mktemp("rinna") / "spiece",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="nmt_nfkc",  # leaves case as it is
        user_defined_symbols=["[PAD]", "[CLS]", "[SEP]", "[MASK]", "-"],
    )
    return Tokenizer(model, max_length=20, do_lower_case=True, pad_token="[PAD]")


def test_a_lower_case_model_gets_lower_case_text(rinna_like):
    assert rinna_like("A CAT, Oil Painting").ids == rinna_like("a cat, oil painting").ids
    assert rinna_like.pieces.unk_id() not in rinna_like("A CAT").ids


def test_a_row_is_text_then_end_then_padding(tokenizer):
    tokens = tokenizer("猫の肖像画 油絵")
    assert len(tokens.ids) == MAX_TOKENS
    assert tokens.ids[tokens.used :] == [1] + [0] * (MAX_TOKENS - tokens.used - 1)
    assert tokenizer.pieces.decode(tokens.ids[: tokens.used]) == "猫の肖像画 油絵"
    assert tokens.dropped == 0


def test_an_empty_text_is_an_end_token_and_padding(tokenizer):
    assert tokenizer("").ids == [1] + [0] * (MAX_TOKENS - 1)


def test_the_width_and_case_of_characters_do_not_matter(tokenizer):
    assert tokenizer("ＣＡＴ").ids == tokenizer("cat").ids
    assert tokenizer("ｻﾗﾘｰﾏﾝ").ids == tokenizer("サラリーマン").ids


def test_a_long_text_is_cut_off_and_the_rest_counted(tokenizer):
    whole = tokenizer.pieces.encode("猫" * 50)
    tokens = tokenizer("猫" * 50)
    assert tokens.ids == [*whole[: MAX_TOKENS - 1], 1]
    assert tokens.used + tokens.dropped == len(whole)


@pytest.mark.parametrize("text", ["</s>", "<pad>猫<unk>", "<s></s><s>", "[PAD][MASK]猫[pad]", "［ＰＡＤ］", "<0x01>"])
def test_no_text_becomes_a_control_token(tokenizer, rinna_like, text):
    for t in (tokenizer, rinna_like):
        tokens = t(text)
        typed = tokens.ids[: tokens.used]
        reserved = [i for i in range(7) if t.pieces.id_to_piece(i)[0] in "<[" and i != t.pieces.unk_id()]
        assert typed
        assert not set(typed) & set(reserved)


def test_a_file_like_rinnas_uses_its_own_end_and_padding_ids(rinna_like):
    tokens = rinna_like("猫")
    assert tokens.ids[tokens.used :] == [2] + [3] * (20 - tokens.used - 1)


def test_a_user_defined_symbol_in_a_text_is_spelled_out(rinna_like):
    """Sentencepiece alone would read it as the symbol."""
    rinna_like.do_lower_case = False
    tokens = rinna_like("猫[PAD]")
    rinna_like.do_lower_case = True
    assert 3 in rinna_like.pieces.encode("猫[PAD]")
    assert 3 not in tokens.ids[: tokens.used]


@pytest.fixture(scope="module")
def names():
    """Many names of things that weights/embedded was taught, with its tokenizer."""
    lines = (ROOT / "embedded" / "scenes" / "concepts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    names = [name for line in lines for name in line.split("\t")[2].split("|")][::12]
    return names, Tokenizer.from_folder(ROOT / "weights" / "embedded" / "tokenizer")


@pytest.mark.parametrize("dash", [*"−‐‑‒–—―－-﹣─━~～〜〰ㅡᅳￚ➖⎯⏤˗⁓־᠆゠"])
def test_another_dash_after_kana_is_a_long_vowel(names, dash):
    names, tokenizer = names
    long = [name for name in names if "ー" in name]
    assert len(long) > 80
    assert [name for name in long if tokenizer(name.replace("ー", dash)) != tokenizer(name)] == []
    assert tokenizer(f"1{dash}2").ids != tokenizer("1ー2").ids


@pytest.mark.parametrize("line", [*"ˉ¯‾￣"])
def test_an_overline_is_a_long_vowel_only_between_kana(names, line):
    assert names[1](f"ケ{line}キ").ids == names[1]("ケーキ").ids
    assert names[1](f"ケーキ{line}").ids != names[1]("ケーキー").ids


@pytest.mark.parametrize(
    "character",
    [*"\u200b\u200c\u200d\ufe0f\u2060\u00ad\u200e\u202e\u2066\u2069\ufeff\u061c\u034f\u3164\ufffc\U000e0100"],
    ids=ascii,
)
def test_an_invisible_character_vanishes(names, rinna_like, character):
    names, tokenizer = names
    assert [name for name in names if tokenizer(character.join(f" {name} ")) != tokenizer(name)] == []
    assert rinna_like(f"猫{character}の{character}").ids == rinna_like("猫の").ids


def test_what_the_tokenizer_of_2022_knew_stays_as_it_was(rinna_like):
    """This one knows the hyphen, but not the minus sign."""
    assert rinna_like("サラリ-マン").ids != rinna_like("サラリーマン").ids
    assert rinna_like.encode("サラリ-マン") == rinna_like.pieces.encode("サラリ-マン")
    assert rinna_like("サラリ−マン").ids == rinna_like("サラリーマン").ids


def test_the_english_tokenizer_gets_no_japanese_dashes(tmp_path):
    english = Tokenizer(train_sentencepiece(tmp_path / "spiece", lines=["a cat", "mount fuji"]), max_length=20)
    assert english("ネコ−").unknown == "ネコ−"


@pytest.mark.parametrize(
    ("text", "unknown"),
    [("猫", ""), ("龖と龘", "龖龘"), ("龖龖", "龖龖"), ("猫🐈\u200d⬛", "🐈⬛"), ("葛\U000e0100", "葛"), ("ﷺ", "ﷺ")],
)
def test_unknown_characters_are_named_as_they_were_typed(names, text, unknown):
    assert names[1](text).unknown == unknown


@pytest.mark.parametrize("text", [*LINES, "", "猫 " * 40, "  ねこ   CAT "])
def test_the_stock_tokenizer_gives_the_same_ids(tokenizer, tiny_folder, text):
    stock = T5Tokenizer.from_pretrained(tiny_folder / "tokenizer", local_files_only=True)
    ids = stock(text, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
    assert ids == tokenizer(text).ids


def test_protobuf_is_not_needed(tiny_folder):
    """It is no package of the container."""
    code = "import sys; sys.modules['google.protobuf'] = None; from jsd.tokenizer import Tokenizer; "
    code += "print(Tokenizer.from_folder(sys.argv[1])('猫 浮').unknown)"
    command = [sys.executable, "-c", code, str(tiny_folder / "tokenizer")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "浮\n", done.stderr


@pytest.mark.parametrize("spoil", ["spiece.model", "tokenizer_config.json"])
def test_a_missing_or_broken_file_is_named(tiny_copy, spoil):
    (tiny_copy / "tokenizer" / spoil).write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=spoil):
        Tokenizer.from_folder(tiny_copy / "tokenizer")
    (tiny_copy / "tokenizer" / spoil).unlink()
    with pytest.raises(WeightsError, match=spoil):
        Tokenizer.from_folder(tiny_copy / "tokenizer")


def test_a_model_max_length_without_a_limit_is_refused(tiny_copy):
    config = tiny_copy / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps({"model_max_length": 10**30}))
    with pytest.raises(WeightsError, match="length"):
        Tokenizer.from_folder(tiny_copy / "tokenizer")
