"""Japanese captions of the training pictures: names, spellings, styles, fillers, composed the way people write
prompts.
"""

import unicodedata

import numpy as np

from jsd.train.drawings import Concept, Drawing
from jsd.train.styles import COLOURS

STYLE_WORDS = {
    "oil": ("油絵", "油彩画", "油彩", "油絵風"),
    "watercolour": ("水彩画", "水彩", "水彩画風", "透明水彩"),
    "pencil": ("鉛筆画", "鉛筆", "デッサン", "スケッチ", "鉛筆スケッチ"),
    "pixel": ("ドット絵", "ピクセルアート", "ドット"),
    "monochrome": ("白黒", "モノクロ", "白黒写真", "モノクローム"),
}
SET_WORDS = {
    "noto": ("イラスト風", "絵文字風"),
    "fluent": ("フラットデザイン", "フラット"),
}
ADJECTIVES = (
    "かわいい",
    "可愛い",
    "きれいな",
    "美しい",
    "大きな",
    "小さな",
    "素敵な",
    "一つの",
    "シンプルな",
    "すてきな",
)
SUBJECTS = ("{n}の絵", "{n}のイラスト", "{n}を描いた絵", "{n}の画像", "一枚の{n}の絵", "{n}のアート", "{n}の写真")
PORTRAITS = ("{n}の肖像画", "{n}の顔", "{n}のポートレート")
STYLED = ("{s} {w}", "{s}、{w}", "{w}の{s}", "{s}の{w}", "{w}で描いた{s}", "{w} {s}", "{s},{w}", "{s} {w}タッチ")
COLOURED = (
    "{c}背景の{s}",
    "{s} {c}背景",
    "背景が{c}{s}",
    "{s}、{c}背景",
    "{c}背景に{s}",
    "{c}背景と{s}",
    "{c}バックの{s}",
)


def prompt_for(concept: Concept, style: str) -> str:
    """The plain prompt for a concept in a style of STYLES or PAIRS: 猫, 猫 油絵, 青い背景の猫, 青い背景の猫 油絵."""
    words = concept.ja[0]
    for part in reversed(style.split("+")):
        if part in COLOURS:
            words = f"{COLOURS[part][1][0]}背景の{words}"
        elif part != "plain":
            words = f"{words} {STYLE_WORDS[part][0]}"
    return words


def swap_kana(name: str) -> str:
    """The name in the other kana, if it is all hiragana or all katakana (ねこ <-> ネコ); else unchanged."""
    if all("ぁ" <= c <= "ゖ" or c == "ー" for c in name):
        return "".join(chr(ord(c) + 0x60) if c != "ー" else c for c in name)
    if all("ァ" <= c <= "ヶ" or c == "ー" for c in name):
        return "".join(chr(ord(c) - 0x60) if c != "ー" else c for c in name)
    return name


def _pick(rng: np.random.Generator, words: tuple[str, ...], first: float = 0.0) -> str:
    """One of the words; the first one with at least probability `first`."""
    return words[0] if rng.random() < first else words[rng.integers(len(words))]


def _subject(drawing: Drawing, rng: np.random.Generator, edge: str) -> str:
    name = _pick(rng, drawing.concept.ja, first=0.35)
    if rng.random() < 0.08:
        name = swap_kana(name)
    name = edge + name + edge
    if rng.random() < 0.08:
        name = edge + _pick(rng, ADJECTIVES) + edge + name
    chance = rng.random()
    if chance < (0.4 if drawing.face else 0.06):
        name = _pick(rng, PORTRAITS).format(n=name)
    elif chance > 0.75:
        name = _pick(rng, SUBJECTS).format(n=name)
    return name


def caption(drawing: Drawing, style: str, rng: np.random.Generator, edge: str = "") -> str:
    """A caption of `drawing` in `style` (a key of STYLES or PAIRS): its name as people spell it, and the words for the
    style.

    About a third say which icon set drew it, so that the two drawings of a concept can be told apart; the rest mean
    either. Two in a hundred name the style alone. `edge` is put around every name and style word: what a tokenizer's
    pieces must not cross.
    """
    parts = [part for part in style.split("+") if part != "plain"]
    if parts and rng.random() < 0.02:
        words = "".join(COLOURS[p][1][0] + "背景" if p in COLOURS else STYLE_WORDS[p][0] for p in parts)
    else:
        words = _subject(drawing, rng, edge)
        if rng.random() < 0.35:
            words = _pick(rng, ("{s} {w}", "{w}の{s}", "{s}、{w}")).format(
                s=words, w=edge + _pick(rng, SET_WORDS[drawing.icon_set]) + edge
            )
        if rng.random() < 0.5:
            parts = parts[::-1]
        for part in parts:
            if part in COLOURS:
                words = _pick(rng, COLOURED, first=0.3).format(
                    s=words, c=edge + _pick(rng, COLOURS[part][1], first=0.5) + edge
                )
            else:
                words = _pick(rng, STYLED, first=0.3).format(
                    s=words, w=edge + _pick(rng, STYLE_WORDS[part], first=0.5) + edge
                )
    if rng.random() < 0.05:
        words = _full_width(words)
    return words


def _full_width(text: str) -> str:
    """ASCII letters, digits, commas and spaces as their full-width forms, which Japanese keyboards type."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text).replace(" ", "\u3000")
    return unicodedata.normalize("NFC", wide)
