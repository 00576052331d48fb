"""English numbers, plurals and articles."""

import re
from functools import lru_cache

from embedded.scenes.concepts import Concept
from embedded.scenes.words.language import GRAMMAR

NUMBERS = {1: ("one", "1"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}  # as they are written
_IRREGULAR = dict(pair.split("/") for pair in GRAMMAR["irregular_plurals"])
_UNCHANGED = frozenset(GRAMMAR["unchanged_plurals"])
_PAIRED = re.compile(  # counted in pairs
    r"(men|women|people) |.*\b(scissors|jeans|trousers|shorts|briefs|underpants|glasses|sunglasses|goggles|chopsticks"
    r"|gloves|headphones)$"
)
_HEAD = re.compile(  # the noun in "person lifting weights", "bowl of rice"
    r".*?\b(?:person|people|m[ae]n|wom[ae]n|couple|face|monkey|cat|head|finger|hand)(?= (?:\w+ing|kissing|in love)\b)"
    r"|.+?(?= (?:of|with|without|in|on|at|over|behind|from)\b)"
)
_ONE_EACH = re.compile(r"( (?:in|with|wearing) )an? (.+)$")  # women in headscarves
_UNITS = {"杯": "bowls of ", "皿": "plates of "}  # of what is not counted, by the Japanese counter; others: pieces
_UNIT_KINDS = frozenset({"food", "fruit", "vegetable", "plant"})
_AN = re.compile(
    r"(?!eu|one\b|once|uni(?!d)|ufo|us[ei]|uk|ut|u-)[aeiou]|hour|honest|heir|x-|x mark|suv\b|sos\b|ng\b|8", re.I
)


@lru_cache(8192)
def plural(name: str) -> str:
    """The plural of an English name."""
    if head := _HEAD.match(name):
        tail = _ONE_EACH.sub(lambda match: match[1] + plural(match[2]), name[head.end() :])
        return plural(head[0]) + tail.replace(" its ", " their ")
    if " and " in name:  # knives and forks, but jacks-in-the-box
        return " and ".join(plural(part) for part in name.split(" and "))
    head, _, last = name.rpartition(" ")
    head = head and head + " "
    if last in _UNCHANGED or _is_plural(last):
        return name
    if last in _IRREGULAR:
        return head + _IRREGULAR[last]
    if last.endswith("man"):
        return head + last[:-2] + "en"
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return head + last + "es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return head + last[:-1] + "ies"
    return head + last + ("es" if last.endswith(("ato", "ero")) else "s")


def _is_plural(word: str) -> bool:
    """Whether the word is a plural already."""
    return word in ("people", "men", "women", "cherries") or (
        word.endswith("s") and not word.endswith(("ss", "us", "ros", "lens", "canvas", "gas"))
    )


@lru_cache(8192)
def article_of(name: str, before: str = "") -> str:
    """The article of an English name with what is `before` it, and a blank; none before plurals."""
    head = _HEAD.match(name)
    words = (head[0] if head else name).split(" ")
    if _is_plural(words[-1]) or words[0] in ("two", "men", "women", "people"):
        return ""
    return "an " if _AN.match(before or name) else "a "


def with_article(name: str, concept: Concept, before: str = "") -> str:
    """The English name, with what is `before` it and the article that it takes."""
    if name in concept.bare or name in concept.alone:
        return before + name
    return ("the " if "the " + name in concept.bare else article_of(name, before)) + before + name


def counted_en(number: str, before: str, name: str, concept: Concept, edge: str = "") -> str:
    """A number of things in English: two red cars, two pairs of gloves, two pieces of sushi."""
    unit, noun = "", name
    if name in concept.bare:
        if concept.kind == "drink":
            unit = "glasses of "
        elif concept.kind in _UNIT_KINDS:
            unit = _UNITS.get(concept.counter, "pieces of ")
    elif _PAIRED.match(name):
        unit = "pairs of "
    else:
        noun = plural(name)
    return f"{number} {unit}{before}{edge}{noun}{edge}"
