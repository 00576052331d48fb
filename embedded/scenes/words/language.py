"""The words and templates of a language, read from japanese.json and english.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from embedded.scenes.tables import read

Words = tuple[str, ...]
Forms = dict[str, Words]  # templates by the sort of what they are put around


@dataclass(frozen=True)
class Style:
    """The words of a style: a keyword (猫 油絵), a picture (猫の油絵), a manner (油絵風の猫, 油絵で描いた猫)."""

    words: Words
    of: Words
    by: Words
    drawn: Words


@dataclass(frozen=True, eq=False)  # a language equals only itself
class Language:
    """The words and templates of a language. The first of each list is the usual one."""

    code: str
    breaks: Words  # in templates: what stands after them is no longer one noun phrase
    styles: dict[str, Style]
    styled: Forms
    colours: dict[str, Words]  # of grounds, as they stand in `coloured`
    coloured: Forms
    thing_colours: dict[str, Words]  # before a noun
    places: dict[str, Words]
    placed: Forms
    placed_own: dict[str, Words]  # more ways for one place, around one noun
    with_place: dict[str, Words]  # weather and place at once; {p} is the place
    weathers: dict[str, Forms]
    adjectives: dict[str, Words]  # by the kind of the thing
    subjects: Words
    portraits: Words
    sets: dict[str, Words]  # by icon set
    two: Words
    three: Words
    relations: dict[str, Words]  # noun phrases
    relations_clause: dict[str, Words]


def _tuples(value):
    """The value with tuples in place of lists, at all depths."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(value)


def _read(code: str, name: str) -> Language:
    table = _tuples(json.loads(Path(__file__).with_name(name).read_text("utf-8")))
    styles = {style: Style(**words) for style, words in table.pop("styles").items()}
    return Language(code, styles=styles, **table)


JAPANESE, ENGLISH = _read("ja", "japanese.json"), _read("en", "english.json")
LANGUAGES = {"ja": JAPANESE, "en": ENGLISH}
GRAMMAR = read(Path(__file__).with_name("grammar.tsv"))  # words that follow no rule
