"""What Japanese grammar asks of the words: numbers and counters, いる or ある, the verb that goes with a place."""

import re
import unicodedata

from embedded.scenes.chance import Rng
from embedded.scenes.scene import Thing
from embedded.scenes.traits import lives
from embedded.scenes.words.language import GRAMMAR

_KANJI = "〇一二三四"
# The counters that are common enough to be written in kana, and their readings with 1, 2, 3 and 4.
_READINGS = {name[-1]: kana for name, kana in GRAMMAR.items() if name.startswith("reading_")}
_NOWHERE_KINDS = frozenset({"face", "hand", "symbol", "weather"})  # 草原の笑顔, not 草原にある笑顔
_STANDING_KINDS = frozenset({"animal", "bird", "person", "building", "plant"})
_SIGHTS = frozenset(GRAMMAR["sights"])  # seen, not been in: 夕焼けの猫, not 夕焼けにいる猫
_INSIDE = ("中", "上", "下", "内")  # 森の中: been in, no background
PARTICLE = re.compile("[をがの]")  # a word before 手を挙げる人 would go with 手
CLAUSAL = re.compile("(?=.*[一-鿿]).[をが].{2,}|に[乗入寝当抱浮]|の(?:不|ある|ない)")  # so would a place


def counted_ja(number: int, counter: str, rng: Rng | None = None) -> str:
    """A number from 1 to 4 with its counter: 三匹. With `rng` one of 三匹, 3匹, ３匹 and さんびき."""
    if rng is not None:
        chance = rng.random()
        if chance < 0.08 and counter in _READINGS:
            return _READINGS[counter][number - 1]
        if chance > 0.75:
            return f"{number}{counter}"
        if chance > 0.65:
            return chr(0xFF10 + number) + counter
    return _KANJI[number] + counter


def kana_swapped(name: str) -> str:
    """The name in the other kana, if it is all hiragana or all katakana (ねこ <-> ネコ); else unchanged."""
    if all("ぁ" <= c <= "ゖ" or c == "ー" for c in name):
        return "".join(chr(ord(c) + 0x60) if c != "ー" else c for c in name)
    if all("ァ" <= c <= "ヶ" or c == "ー" for c in name):
        return "".join(chr(ord(c) - 0x60) if c != "ー" else c for c in name)
    return name


def full_width(text: str) -> str:
    """ASCII letters, digits, commas and spaces as their full-width forms, which Japanese keyboards type."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text).replace(" ", "\u3000")
    return unicodedata.normalize("NFC", wide)


def fitting(form: str, things: tuple[Thing, ...], below: Thing | None = None) -> str:
    """The Japanese template with the verbs that go with the things, the first of which may be on `below`."""
    if "{v}" in form:
        living = [lives(thing.concept) for thing in things]
        if any(living) != all(living) or things[0].concept.kind in _NOWHERE_KINDS:
            form = form.replace("に{v}{", "の{")
        return form.replace("{v}", "いる" if living[0] else "ある")
    if "乗" in form and not lives(things[0].concept):
        return form.replace("に乗った", "に載った").replace("に乗る", "に置かれた")
    if "載せた" in form and below and lives(below.concept):
        return form.replace("載せた", "乗せた")
    if "に立つ" in form and things[0].concept.kind not in _STANDING_KINDS:
        return form.replace("に立つ", "に咲く" if things[0].concept.kind == "flower" else "の")
    return form


def placed_form(form: str, word: str) -> str:
    """The Japanese template as it goes with the word for a place."""
    if "背景" in form and word.endswith(_INSIDE):
        return form.replace("を背景にした", "の").replace("を背景に、", "、").replace("を背景に", "に")
    return form.replace("に{v}", "の") if word in _SIGHTS else form
