"""The spellings that the embedded model's prompts are unified by: `tokenizer/spellings.json` of a model folder.

    python -m embedded.spellings weights/embedded

writes it anew into a folder, with its manifest. It is made from the words of the captions alone: of each thing, place,
style and colour its names, which all become the first one, since captions have that most often.
"""

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from embedded.replacing import changed
from embedded.scenes import Concept, load_concepts
from embedded.scenes.words.japanese import PARTICLE
from embedded.scenes.words.language import GRAMMAR, JAPANESE
from jsd.cli import CommandParser, exit_code
from jsd.genuine.folder import write_json
from jsd.language import Text, speak
from jsd.letters import key
from jsd.manifest import find_weights
from jsd.tokenizer import SPELLINGS

Table = dict[str, list[str]]
NUMBERS = {"一": "いち いっ ひと", "二": "に ふた", "三": "さん みっ", "四": "よん よっ"}  # as the captions count
PHRASE = re.compile("(?<=[^ぁ-ん])[をがの]|[をがの](?=[^ぁ-ん])")  # but not じゃがいも
PLACES = {"うみ": "海"}  # a beach's name for the captions, but the sea for everybody else
WEATHERS, BLUE = "雨雪霧", re.compile("青|あお")
SIZES = ("大きい", "大きな", "小さい", "小さな", "おおきい", "おおきな", "ちいさい", "ちいさな")


def table() -> dict[str, Any]:
    """Return the content of `spellings.json` for the words of the captions (see `jsd.spelling`)."""
    concepts = load_concepts().values()
    words: Table = {}
    for concept in concepts:
        for name in concept.ja:
            words.setdefault(PLACES.get(name) or _common(name, concept), []).append(name)
    for names in (*JAPANESE.places.values(), *WEATHERS):
        for name in names:  # 空 is not 青空 in a style without colours
            common = next(other for other in names if bool(BLUE.search(other)) <= bool(BLUE.search(name)))
            words.setdefault(common, []).append(name)
    joints: Table = {}
    for style in JAPANESE.styles.values():
        joints |= {style.words[0]: list(style.words[1:])}
    _add(joints, (way for style in JAPANESE.styles.values() for way in (*style.by, *style.drawn)))
    for common, *others in JAPANESE.colours.values():
        joints[f"{common}背景"] = [f"{other}背景" for other in others]
    for common, *others in JAPANESE.thing_colours.values():
        joints[common] = sorted({other for other in others if other != common})
    _add(joints, (word for words in JAPANESE.adjectives.values() for word in words))
    _add(joints, (*SIZES, *sorted(_pieces())))
    for counter in sorted({concept.counter for concept in concepts} - {"-", ""} | {"つ"}):
        readings = GRAMMAR.get(f"reading_{counter}", ())
        for i, (kanji, sounds) in enumerate(NUMBERS.items()):
            kana = list(readings[i : i + 1])
            joints[kanji + counter] = kana + [
                kanji + word.removeprefix(sound) for word in kana for sound in sounds.split() if word.startswith(sound)
            ]
    words = {common: sorted({*names} - {common}) for common, names in words.items()}
    firsts = {_common(name, concept): concept.ja[0] for concept in concepts for name in concept.ja}
    alone = {inner: first for inner, first in firsts.items() if inner != first and inner not in WEATHERS}
    return {"words": words, "alone": alone, "joints": joints}


def _common(name: str, concept: Concept) -> str:
    """Return the first name of a concept that can stand wherever `name` can (see `embedded.scenes.words.names`): not
    the name of an event for that of a thing, and no phrase for a noun, since the colour before it would go elsewhere.
    """
    return next(other for other in concept.ja if _marks(other, concept) <= _marks(name, concept))


def _marks(name: str, concept: Concept) -> set[str]:
    reading = PHRASE.search(concept.ja[0]) and PARTICLE.search(key(name))
    marks = {"event": name in concept.alone, "phrase": reading or PHRASE.search(name)}
    return {mark for mark, there in marks.items() if there}


def _add(joints: Table, words: Iterable[str]) -> None:
    """Add words that are left as they are, unless they are there."""
    known = {name for common, others in joints.items() for name in (common, *others)}
    joints |= {word: [] for word in words if word not in known}


def _pieces() -> set[str]:
    """Return what stands between the names in the templates: の上の, に乗った, 並んだ."""
    forms = [JAPANESE.subjects, JAPANESE.portraits, JAPANESE.two, JAPANESE.three]
    for group in (JAPANESE.styled, JAPANESE.coloured, JAPANESE.placed, JAPANESE.placed_own, JAPANESE.with_place):
        forms += group.values()
    for group in (JAPANESE.relations, JAPANESE.relations_clause, *JAPANESE.weathers.values()):
        forms += group.values()
    forms += JAPANESE.sets.values()
    pieces = {piece for group in forms for form in group for piece in re.split(r"\{\w+\}|[、, ]", form)}
    return {piece for piece in pieces if len(piece) > 1} | {"いる", "ある"}


def beside(tokenizer: Path, folder: Path) -> Path:
    """Copy the folder of a tokenizer to `folder`, add the spellings there, and return it."""
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    write_json(folder / SPELLINGS, table())
    return folder


def main(argv: Sequence[str]) -> int:
    """Write the spellings into the model folder that the command line `argv` names. Returns the exit code: 0, or 2
    after an error.
    """
    speak()
    description = Text("Write the table of spellings into a model folder.")
    parser = CommandParser(prog="python -m embedded.spellings", description=description)
    parser.add_argument("folder", type=Path, help="the model, whose table is replaced")
    return exit_code(_write, parser.parse_args(argv).folder)


def _write(folder: Path) -> None:
    with changed(find_weights(folder).resolve()) as work:
        write_json(work / "tokenizer" / SPELLINGS, table())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
