"""Prompts as Japanese people type them give the token ids of the words that the embedded model was trained on."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jsd.errors import WeightsError
from jsd.genuine.convert import convert
from jsd.genuine.folder import write_json, write_manifest
from jsd.genuine.tokenizer import PipelineTokenizer
from jsd.manifest import MANIFEST, ROOT, read_json
from jsd.prompt import read
from jsd.tokenizer import SPELLINGS, Tokenizer

FOLDER = ROOT / "embedded" / "tokenizer"
ALIKE = {
    "猫": "ねこ ネコ ﾈｺ 「猫」 『ねこ』 猫。 ネコ！ 猫… \u3000ねこ\u00a0 (猫) 貓 ネコちゃん ねこ\n",
    "ラーメン": "ﾗｰﾒﾝ らーめん らあめん ラアメン ラ−メン らぁめん 「ラーメン」",
    "コーヒー": "ｺｰﾋｰ こーひー こおひい こうひい コーヒ",
    "ギター": "ｷﾞﾀｰ き゛たー キ\u3099ター",
    "テレビ": "ＴＶ tv ﾃﾚﾋﾞ てれび",
    "先生": "せんせい せんせー センセー",
    "犬": "ゐぬ ヰヌ",
    "エビ": "ゑび 海老 ヱビ",
    "桜": "櫻",
    "龍": "竜 りゅう",
    "バイオリン": "ヴァイオリン ｳﾞｧｲｵﾘﾝ",
    "花火": "打ち上げ花火 打上げ花火 打上花火 はなび",
    "三匹の猫": "3匹の猫 ３匹のネコ さんびきのねこ 三びきの猫",
    "猫が三匹": "ねこが三匹 猫が3匹",
    "猫三匹": "ネコ３匹 ねこさんびき",
    "猫と犬": "ねこといぬ ネコとイヌ 「ねこ」と「いぬ」 ﾈｺとｲﾇ",
    "猫、犬": "ねこ、いぬ。 猫,犬 猫，犬 猫・犬 ネコ、\u3000イヌ ネコ/イヌ",
    "猫 油絵": "ねこ\u3000油絵 ネコ\u2003油彩画",
    "赤い車": "あかい車 真っ赤なクルマ 赤色のくるま",
    "青い背景の猫": "青背景のネコ 青い背景のねこ あおい背景の猫",
    "草原の猫": "原っぱのネコ そうげんのねこ",
    "走る猫": "走るネコ",
    "かき氷": "かきごおり カキゴオリ かきごおり、",
}
UNHARMED = """
ねこじゃらし いかが はなや さと芋 打ち水 水がめ 水を飲む猫 手をつなぐ人 ハチ公 けいき こうら とりにく ねこがら
草の上の猫 雪の中の猫 ネコ科 トラック運転手 ATMs 13匹 一匹狼 ケーキ屋
"""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_folder(FOLDER)


@pytest.fixture(scope="module")
def plain():
    """The same without its spellings: what stock diffusers reads."""
    tokenizer = Tokenizer.from_folder(FOLDER)
    tokenizer.spellings = None
    return tokenizer


@pytest.mark.parametrize("common", ALIKE)
def test_other_spellings_give_the_ids_of_the_common_one(tokenizer, plain, common):
    wanted = plain(common).ids
    assert tokenizer(common).ids == wanted
    typed = ALIKE[common].split(" ")
    assert {text: read(tokenizer, ["", text])[0][1] == wanted for text in typed} == dict.fromkeys(typed, True)


@pytest.mark.parametrize("text", UNHARMED.split())
def test_no_word_is_damaged(tokenizer, text):
    assert tokenizer.spellings.unify(text) == text


def test_what_the_model_does_not_know_is_still_named(tokenizer):
    assert read(tokenizer, ["", "「ねこ」と龘、🐈。(犬:1.3)"])[1] == {
        "tokens": tokenizer("猫と龘、🐈 犬").used,
        "truncated": 0,
        "unknown": "龘🐈",
        "removed": ["(…:1.3)"],
    }


@example("猫、3。")
@example("3。犬")
@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ねこネコｺﾞー三3匹のとが「」。、 　油赤いゐ龍龜B々ヴう゛\u3099ﷺ\n🐈-</s>"), max_size=40))
def test_any_text_can_be_read_and_none_becomes_a_control_token(tokenizer, text):
    tokens = tokenizer(text)
    assert len(tokens.ids) == tokenizer.max_length
    assert not {tokenizer.eos_id, tokenizer.pad_id} & set(tokens.ids[: tokens.used])
    assert not set(tokens.unknown) & set("「」。ゐ龜")


def test_common_spellings_stay_as_they_are(tokenizer):
    assert [text for text in ALIKE if tokenizer.spellings.unify(text) != text] == []


def test_a_folder_without_spellings_reads_what_was_typed(tiny_folder):
    tokenizer = Tokenizer.from_folder(tiny_folder / "tokenizer")
    assert tokenizer("「サラリーマン」").unknown == "「」"
    assert tokenizer("さらりーまん").ids != tokenizer("サラリーマン").ids


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"words": {"猫": [1]}, "alone": {}, "joints": {}}', "[" * 9999])
def test_a_broken_table_is_an_error_that_names_the_file(tiny_copy, content):
    (tiny_copy / "tokenizer" / SPELLINGS).write_text(content, "utf-8")
    with pytest.raises(WeightsError, match=r"spellings\.json: no readable table .* restore the file"):
        Tokenizer.from_folder(tiny_copy / "tokenizer")


def test_the_table_goes_with_the_model(tiny_copy, tmp_path):
    table = {"words": {"サラリーマン": ["会社員"]}, "alone": {}, "joints": {}}
    write_json(tiny_copy / "tokenizer" / SPELLINGS, table)
    write_manifest(tiny_copy, name="tiny", defaults=read_json(tiny_copy / MANIFEST)["defaults"])
    convert(tiny_copy, tmp_path / "converted")
    PipelineTokenizer(Tokenizer.from_folder(tmp_path / "converted" / "tokenizer")).save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / SPELLINGS).read_text("utf-8")) == table
    tokenizer = PipelineTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer("会社員").input_ids == tokenizer("さらりーまん").input_ids == tokenizer("サラリーマン").input_ids
