"""The names' table and the spellings of weights/embedded belong together, and prompts are typed in all ways."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from embedded import spellings, typed
from embedded.scenes import Concept, load_concepts
from embedded.scenes.words.language import JAPANESE
from jsd.manifest import ROOT, verify
from jsd.tokenizer import SPELLINGS, Tokenizer

FOLDER = ROOT / "embedded" / "tokenizer"


def test_the_file_is_what_the_table_of_names_gives() -> None:
    wanted = spellings.table()
    assert json.loads((FOLDER / SPELLINGS).read_text("utf-8")) == wanted, "run python -m embedded.spellings FOLDER"


@pytest.mark.slow
def test_every_name_in_every_way_gives_the_ids_of_the_common_one() -> None:
    tokenizer, plain = Tokenizer.from_folder(FOLDER), Tokenizer.from_folder(FOLDER)
    plain.spellings = None
    groups = [concept.ja for concept in load_concepts().values()]
    groups += [*JAPANESE.places.values(), *(style.words for style in JAPANESE.styles.values())]
    right = defaultdict(list)
    for names in groups:
        common = plain.encode(names[0])
        for way, found in typed.spellings_of(names).items():
            right[way] += [tokenizer.encode(name) == common for name in found]
    shares = {way: sum(flags) / len(flags) for way, flags in right.items()}
    assert min(shares.values()) > 0.96, shares  # the rest are names of two things: ビーチ, 雪
    assert sum(map(sum, right.values())) / sum(map(len, right.values())) > 0.99


def test_every_way_changes_a_name() -> None:
    found = typed.spellings_of(["打ち上げ花火", "コーヒー", "三匹", "ＴＶゲーム", "国", "いえ", "ガム", "TV"])
    assert {way for way, names in found.items() if not names} == set()
    assert found["less okurigana"] == ["打上げ花火"]
    assert found["long vowels of old books"] == ["こうひい"]
    assert "ｺｰﾋｰ" in found["half-width kana"]
    assert "３匹" in found["full-width digits"]


def test_the_prompts_depend_on_the_seed_and_name_a_thing_each() -> None:
    concepts = load_concepts().values()
    tasks = typed.sample_typed(concepts, 200, 5)
    assert tasks[:30] == typed.sample_typed(concepts, 30, 5)
    assert len({task.scene.things[0].concept.id for task in tasks}) == 200
    assert not [task.ja for task in tasks if task.ja == task.scene.things[0].concept.ja[0]]


def test_a_spelling_that_sounds_like_another_thing_is_not_asked() -> None:
    names = {"persimmon": ("柿", "かき"), "oyster": ("牡蠣", "カキ")}
    concepts = [Concept(name, (), ja, (name,)) for name, ja in names.items()]
    asked = {task.ja for seed in range(40) for task in typed.sample_typed(concepts, 2, seed)}
    assert "「柿」" in asked
    assert not asked & {"かき", "カキ", "ｶｷ", "「かき」"}


def test_a_new_model_has_the_table_beside_its_tokenizer(tiny_folder, tmp_path) -> None:
    folder = spellings.beside(tiny_folder / "tokenizer", tmp_path / "spelled")
    assert Tokenizer.from_folder(folder).spellings is not None
    assert not (tiny_folder / "tokenizer" / SPELLINGS).exists()


def test_the_command_writes_the_table_into_a_model(tiny_copy, capsys) -> None:
    assert not (tiny_copy / "tokenizer" / SPELLINGS).exists()
    assert spellings.main([str(tiny_copy)]) == 0
    verify(tiny_copy)
    assert json.loads((tiny_copy / "tokenizer" / SPELLINGS).read_text("utf-8")) == spellings.table()


def test_the_command_names_a_folder_that_is_no_model(tmp_path, capsys) -> None:
    assert spellings.main([str(tmp_path)]) == 2
    assert f"{tmp_path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
