"""Compose captions of the training pictures from names, words for styles and fillers, as people write prompts.

A `Language` holds the words and the templates. All languages are composed in the same way, so a new one needs only its
tables.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np

from embedded.drawings import Concept, Drawing


@dataclass(frozen=True, eq=False)  # compared by identity, so that a language can be a key of a dict
class Language:
    """The words and templates that captions in one language are composed of. In `styles`, `colours`, `styled`,
    `coloured` and `two` the usual one comes first: `prompt_for` and `prompt_for_two` take it.

    `code` is also the name of the language's field in `Concept`. `styles`, `sets` (icon sets) and `colours` hold words
    for each key; colours have the form that stands before a noun. `kana` allows hiragana names in katakana,
    katakana names in hiragana, and full-width ASCII.

    In the templates {s} is the caption so far, {n} a name, {w} an adjective or a word for a style or an icon set, {c} a
    colour, and {a} and {b} are two names.
    """

    code: str
    styles: dict[str, tuple[str, ...]]
    sets: dict[str, tuple[str, ...]]
    colours: dict[str, tuple[str, ...]]
    adjectives: tuple[str, ...]
    adjective: str
    subjects: tuple[str, ...]
    portraits: tuple[str, ...]
    styled: tuple[str, ...]
    coloured: tuple[str, ...]
    drawn: tuple[str, ...]
    two: tuple[str, ...]
    background: str
    kana: bool = False

    def names(self, concept: Concept) -> tuple[str, ...]:
        """Return the concept's names in this language, the canonical one first."""
        return getattr(concept, self.code)


JAPANESE = Language(
    code="ja",
    styles={
        "oil": ("油絵", "油彩画", "油彩", "油絵風"),
        "watercolour": ("水彩画", "水彩", "水彩画風", "透明水彩"),
        "pencil": ("鉛筆画", "鉛筆", "デッサン", "スケッチ", "鉛筆スケッチ"),
        "pixel": ("ドット絵", "ピクセルアート", "ドット"),
        "monochrome": ("白黒", "モノクロ", "白黒写真", "モノクローム"),
    },
    sets={"noto": ("イラスト風", "絵文字風"), "fluent": ("フラットデザイン", "フラット")},
    colours={
        "blue": ("青い", "青", "ブルー", "あおい"),
        "red": ("赤い", "赤", "レッド", "あかい"),
        "green": ("緑の", "緑", "グリーン", "みどりの"),
        "yellow": ("黄色い", "黄色", "イエロー", "きいろい"),
        "pink": ("ピンクの", "ピンク", "桃色の"),
        "purple": ("紫の", "紫", "パープル", "むらさきの"),
    },
    adjectives=(
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
    ),
    adjective="{w}{n}",
    subjects=("{n}の絵", "{n}のイラスト", "{n}を描いた絵", "{n}の画像", "一枚の{n}の絵", "{n}のアート", "{n}の写真"),
    portraits=("{n}の肖像画", "{n}の顔", "{n}のポートレート"),
    styled=("{s} {w}", "{s}、{w}", "{w}の{s}", "{s}の{w}", "{w}で描いた{s}", "{w} {s}", "{s},{w}", "{s} {w}タッチ"),
    coloured=(
        "{c}背景の{s}",
        "{s} {c}背景",
        "背景が{c}{s}",
        "{s}、{c}背景",
        "{c}背景に{s}",
        "{c}背景と{s}",
        "{c}バックの{s}",
    ),
    drawn=("{s} {w}", "{w}の{s}", "{s}、{w}"),
    two=("{a}と{b}", "{a}と{b}の絵", "{a}、{b}", "{a}と、{b}", "{a}と{b}のイラスト", "{a} {b}"),
    background="{c}背景",
    kana=True,
)

ENGLISH = Language(
    code="en",
    styles={
        "oil": ("oil painting", "oil on canvas", "oil paint"),
        "watercolour": ("watercolour", "watercolor", "watercolour painting"),
        "pencil": ("pencil drawing", "pencil sketch", "sketch"),
        "pixel": ("pixel art", "pixels"),
        "monochrome": ("black and white", "monochrome"),
    },
    sets={"noto": ("illustration", "emoji style"), "fluent": ("flat design", "flat")},
    colours={name: (name,) for name in ("blue", "red", "green", "yellow", "pink", "purple")},
    adjectives=(
        "cute",
        "pretty",
        "beautiful",
        "big",
        "small",
        "nice",
        "simple",
        "lovely",
    ),
    adjective="{w} {n}",
    subjects=("a {n}", "a picture of a {n}", "a drawing of a {n}", "the {n}", "an illustration of a {n}", "one {n}"),
    portraits=("portrait of a {n}", "the face of a {n}", "{n} portrait"),
    styled=("{s}, {w}", "{w} of {s}", "{s} {w}", "{s} as {w}", "{w}, {s}"),
    coloured=("{s} on a {c} background", "{s}, {c} background", "{s} with a {c} background", "{c} background, {s}"),
    drawn=("{s}, {w}", "{w} of {s}"),
    two=("{a} and {b}", "a {a} and a {b}", "a picture of a {a} and a {b}", "{a}, {b}"),
    background="{c} background",
)


def prompt_for(concept: Concept, style: str, language: Language = JAPANESE) -> str:
    """Return the usual prompt for a concept in a style of STYLES or PAIRS: 猫, 猫 油絵, 青い背景の猫 油絵."""
    words = language.names(concept)[0]
    for part in reversed(style.split("+")):
        if part in language.colours:
            words = language.coloured[0].format(s=words, c=language.colours[part][0])
        elif part != "plain":
            words = language.styled[0].format(s=words, w=language.styles[part][0])
    return words


def prompt_for_two(concepts: tuple[Concept, Concept], language: Language = JAPANESE) -> str:
    """Return the usual prompt for a picture of two concepts side by side: 犬と猫."""
    a, b = (language.names(concept)[0] for concept in concepts)
    return language.two[0].format(a=a, b=b)


def swap_kana(name: str) -> str:
    """Return a hiragana name in katakana and a katakana name in hiragana (ねこ, ネコ). Other names stay as they are."""
    if all("ぁ" <= c <= "ゖ" or c == "ー" for c in name):
        return "".join(chr(ord(c) + 0x60) if c != "ー" else c for c in name)
    if all("ァ" <= c <= "ヶ" or c == "ー" for c in name):
        return "".join(chr(ord(c) - 0x60) if c != "ー" else c for c in name)
    return name


def _pick(rng: np.random.Generator, words: tuple[str, ...], first: float = 0.0) -> str:
    """Return one of the words at random. The first one has at least the probability `first`."""
    return words[0] if rng.random() < first else words[rng.integers(len(words))]


def _name(drawing: Drawing, rng: np.random.Generator, language: Language, edge: str) -> str:
    """Return a random name of the drawing's concept, with `edge` (see `caption`) before and after the name."""
    name = _pick(rng, language.names(drawing.concept), first=0.35)
    if language.kana and rng.random() < 0.08:
        name = swap_kana(name)
    return edge + name + edge


def _subject(drawing: Drawing, rng: np.random.Generator, language: Language, edge: str) -> str:
    """Return a random name of the drawing's concept, in some cases with an adjective or as a phrase (猫の絵)."""
    name = _name(drawing, rng, language, edge)
    if rng.random() < 0.08:
        name = language.adjective.format(w=edge + _pick(rng, language.adjectives) + edge, n=name)
    chance = rng.random()
    if chance < (0.4 if drawing.face else 0.06):
        name = _pick(rng, language.portraits).format(n=name)
    elif chance > 0.75:
        name = _pick(rng, language.subjects).format(n=name)
    return name


def caption(
    drawings: tuple[Drawing, ...], style: str, rng: np.random.Generator, language: Language = JAPANESE, edge: str = ""
) -> str:
    """Compose a random caption of a picture that shows one or two `drawings` in `style`, a key of STYLES or PAIRS.

    The caption has a name of each concept, left before right, and words for the style. About a third of the captions
    of one drawing name its icon set, so that the model learns to distinguish the two sets. For a style other than
    "plain", 2% name only the style. 5% of the Japanese captions have full-width ASCII. `edge` marks word boundaries for
    a tokenizer's training: it is put around names, adjectives, and words for styles, colours and icon sets, except in
    captions of a style alone.
    """
    parts = [part for part in style.split("+") if part != "plain"]
    if parts and rng.random() < 0.02:
        words = "".join(
            language.background.format(c=language.colours[p][0]) if p in language.colours else language.styles[p][0]
            for p in parts
        )
    else:
        if len(drawings) == 2:
            a, b = (_name(drawing, rng, language, edge) for drawing in drawings)
            words = _pick(rng, language.two, first=0.4).format(a=a, b=b)
        else:
            words = _subject(drawings[0], rng, language, edge)
            if rng.random() < 0.35:
                word = edge + _pick(rng, language.sets[drawings[0].icon_set]) + edge
                words = _pick(rng, language.drawn).format(s=words, w=word)
        if rng.random() < 0.5:
            parts = parts[::-1]
        for part in parts:
            if part in language.colours:
                colour = edge + _pick(rng, language.colours[part], first=0.5) + edge
                words = _pick(rng, language.coloured, first=0.3).format(s=words, c=colour)
            else:
                word = edge + _pick(rng, language.styles[part], first=0.5) + edge
                words = _pick(rng, language.styled, first=0.3).format(s=words, w=word)
    if language.kana and rng.random() < 0.05:
        words = _full_width(words)
    return words


def _full_width(text: str) -> str:
    """Return the text with its ASCII characters and spaces in the full-width forms that Japanese keyboards type."""
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text).replace(" ", "\u3000")
    return unicodedata.normalize("NFC", wide)
