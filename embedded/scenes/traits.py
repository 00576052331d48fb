"""What is true of a thing by its kind or its name: whether it hovers, has writing on it, may take another colour."""

import re
from pathlib import Path

from embedded.scenes.concepts import Concept
from embedded.scenes.tables import read

FLAT = frozenset({"symbol", "flag", "hand", "face"})  # kinds that belong on a plain ground
AIR = frozenset({"sky", "weather"})  # kinds that hover in the air, and are out of doors
_LIVING_KINDS = frozenset({"animal", "bird", "insect", "sea", "person", "fantasy"})
_TEXT_KINDS = frozenset({"symbol", "flag", "hand"})  # kinds with writing, or with a meaning that a mirror changes
# Exceptions, by id: `hovers` and `living` are of kinds that do not, `lifeless` are of living kinds, `uncoloured` of
# colourable ones; nobody would recognise `vague` ones. Words in ids and names: `written_on`, `named_by_colour`.
_TABLE = {name: frozenset(words) for name, words in read(Path(__file__).with_name("traits.tsv")).items()}
_MISREAD = re.compile("[をがの赤青黄緑白黒紫金銀]")  # no colour goes before 旗の下がった郵便受け, 白衣
_TOLD_BY_COLOUR = re.compile(
    "(red|blue|green|yellow|orange|purple|brown|pink|light_blue)_(heart|circle|square|diamond|book|apple)"
)


def hovers(concept: Concept) -> bool:
    """Whether the concept is drawn in the air, where others stand on the ground."""
    return concept.kind in AIR or concept.id in _TABLE["hovers"]


def may_flip(concept: Concept) -> bool:
    """Whether the concept is the same in a mirror."""
    return concept.kind not in _TEXT_KINDS and not any(word in concept.id for word in _TABLE["written_on"])


def vague(concept: Concept) -> bool:
    """Whether few people would name the concept when they see its drawing: trays, phases of the moon, ㊙."""
    return concept.id in _TABLE["vague"]


def told_by_colour(concept: Concept) -> bool:
    """Whether only the colour tells the concept from another, so that no style without colours shows it."""
    return bool(_TOLD_BY_COLOUR.match(concept.id))


def colourable(concept: Concept) -> bool:
    """Whether it makes sense to give the concept another colour."""
    words = {word for name in concept.en for word in name.lower().split()} | set(concept.id.split("_"))
    if words & _TABLE["named_by_colour"] or all(_MISREAD.search(name) for name in concept.ja):
        return False
    return concept.kind in _TABLE["colourable_kinds"] and concept.id not in _TABLE["uncoloured"]


def lifeless(concept: Concept) -> bool:
    """Whether the concept is a lifeless thing of a living kind, such as a feather."""
    return concept.id in _TABLE["lifeless"]


def lives(concept: Concept) -> bool:
    """Whether the concept is a living being, which Japanese says いる of."""
    return (concept.kind in _LIVING_KINDS and not lifeless(concept)) or concept.id in _TABLE["living"]
