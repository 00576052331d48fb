"""Measure what the 2022 README claims, as a table: how well a model knows Japanese words and how well it composes.

The words are Japanese nouns, Japanglish (Japanese words made of English ones), onomatopoeia, proper nouns and Japanese
things. Each column of the table is one model, prompted in one language. The English base is the model before its
training in Japanese. Its column with Japanese prompts shows what it knew of Japanese. Its column with the prompts'
English translations shows what the Japanese model can hope to reach.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from embedded.captions import ENGLISH, JAPANESE, prompt_for, prompt_for_two
from embedded.drawings import Concept, Drawing
from embedded.judge import Judge, judge_pictures
from embedded.pictures import held_out_pair
from embedded.prompts import sample_pairs
from embedded.scores import cell_text, share
from jsd.images import sheet
from jsd.tokenizer import Tokenizer

# fmt: off
JAPANGLISH = (
    "サラリーマン", "リーマン", "パトカー", "コンビニ", "ソフトクリーム", "ガソリンスタンド", "ガソスタ",
    "ジェットコースター", "ロープウェイ", "ノートパソコン", "パソコン", "スマホ", "ケータイ", "バイク",
    "オートバイ", "マイカー", "マイホーム", "フライドポテト", "ホットケーキ", "ショートケーキ", "ワンピース",
    "ハイヒール", "シルクハット", "スケボー", "パトランプ", "デジカメ", "テレビゲーム", "ファミコン",
    "ゲームコントローラー", "エビフライ", "ヘリ", "トイレ", "ランドセル", "ペロペロキャンディ",
    "プッチンプリン",
)
ONOMATOPOEIA = (
    "ワンワン", "ニャー", "チュウチュウ", "ヒヒーン", "モーモー", "ブーブー", "メーメー", "パオーン",
    "ウッキー", "ケロケロ", "コケコッコー", "ピヨピヨ", "カーカー", "ポッポ", "ガーガー", "ホーホー",
    "キラキラ", "きらきら", "メラメラ", "ピーポーピーポー", "ガタンゴトン", "シュッポッポ", "チリンチリン",
    "ニコニコ", "プンプン", "すやすや", "メロメロ", "ムキムキ", "えーん", "プルルル", "パシャ", "チョキチョキ",
    "ふわふわ",
)
PROPER_NOUNS = (
    "富士山", "ふじさん", "富士", "東京タワー", "姫路城", "大阪城", "シンデレラ城", "自由の女神", "モアイ",
    "モアイ像", "日本列島", "日本地図", "天の川", "土星", "地球", "のぞみ号", "なまはげ", "アルプス",
    "ムンクの叫び", "サンタクロース", "ティラノサウルス", "こどもの日", "七夕", "ひな祭り", "十五夜",
    "クリスマス", "ハロウィン", "初日の出", "端午の節句", "ジャックオーランタン",
)
# Things that look different in Japan, or exist only there.
JAPANESE_STYLE = (
    "城", "天守閣", "鳥居", "神社", "提灯", "赤提灯", "お祭り", "着物", "浴衣", "和服", "扇子", "風鈴", "雛人形",
    "鯉のぼり", "門松", "お正月", "お月見", "七夕飾り", "花札", "お年玉", "ポチ袋", "線香花火", "天狗", "天狗のお面",
    "鬼", "忍者", "温泉", "寿司", "おにぎり", "団子", "おでん", "ラーメン", "煎餅", "弁当", "新幹線", "そろばん",
    "柔道着", "初心者マーク", "郵便局",
)
# fmt: on
CATEGORIES = ("noun", "japanglish", "onomatopoeia", "proper_noun", "japanese_style", "held_out")
SHEET_PROMPTS = 2  # per category on the contact sheet


@dataclass(frozen=True)
class Claim:
    """A test prompt in Japanese and English, its category, and the concept (its id) and style that it names."""

    category: str
    ja: str
    en: str
    concept: str
    style: str = "plain"


@dataclass(frozen=True)
class PairPrompt:
    """A test prompt for two concepts in one picture, in Japanese and English, and the ids of the concepts."""

    ja: str
    en: str
    concepts: tuple[str, str]


def claims(drawings: Sequence[Drawing], count: int, seed: int) -> list[Claim]:
    """Return the test prompts: `count` random nouns, `count` random (concept, style) pairs that were held out of the
    training, and those words of JAPANGLISH and this module's other lists that name a concept of `drawings`.
    """
    concepts = list({drawing.concept.id: drawing.concept for drawing in drawings}.values())
    by_name = {name: concept for concept in concepts for name in concept.ja}
    by_id = {concept.id: concept for concept in concepts}
    rng = np.random.default_rng((seed, 2))

    def plain(category: str, word: str, concept: Concept) -> Claim:
        return Claim(category, word, prompt_for(concept, "plain", ENGLISH), concept.id)

    chosen = [concepts[i] for i in rng.permutation(len(concepts))[:count]]
    asked = [plain("noun", concept.ja[0], concept) for concept in chosen]
    for category, words in (
        ("japanglish", JAPANGLISH),
        ("onomatopoeia", ONOMATOPOEIA),
        ("proper_noun", PROPER_NOUNS),
        ("japanese_style", JAPANESE_STYLE),
    ):
        asked += [plain(category, word, by_name[word]) for word in words if word in by_name]
    for task in sample_pairs(drawings, 3 * count, seed):
        if task.group == "held_out":
            english = prompt_for(by_id[task.concept], task.style, ENGLISH)
            asked.append(Claim("held_out", task.prompt, english, task.concept, task.style))
    return asked


def pair_prompts(drawings: Sequence[Drawing], count: int, seed: int) -> list[PairPrompt]:
    """Return `count` prompts for two random concepts that training never shows in one picture. They are fewer if too
    few such pairs are found.
    """
    concepts = list({drawing.concept.id: drawing.concept for drawing in drawings}.values())
    rng = np.random.default_rng((seed, 3))
    chosen: list[PairPrompt] = []
    for _ in range(100 * count):
        one, other = (concepts[i] for i in rng.choice(len(concepts), 2, replace=False))
        if held_out_pair(one.id, other.id) and len(chosen) < count:
            both = (one, other)
            chosen.append(PairPrompt(prompt_for_two(both, JAPANESE), prompt_for_two(both, ENGLISH), (one.id, other.id)))
    return chosen


def halves(image: Image.Image) -> list[Image.Image]:
    """Cut a picture of two concepts into its left and its right half. Each is a square at mid-height."""
    width, height = image.size
    top = height // 2 - width // 4
    return [image.crop((x, top, x + width // 2, top + width // 2)) for x in (0, width // 2)]


Draw = Callable[[Sequence[str]], list[Image.Image | None]]


@dataclass(frozen=True)
class Answers:
    """The pictures that a model drew for the claims (prompts with one concept) and for the pairs of concepts. They are
    in the order of the prompts. A picture that is missing, because its numbers were not finite, is None.
    """

    claims: list[Image.Image | None]
    pairs: list[Image.Image | None]


def answer(language: str, draw: Draw, asked: Sequence[Claim], pairs: Sequence[PairPrompt]) -> Answers:
    """Generate a picture for every prompt in `language` ("ja" or "en") with the function `draw`."""
    return Answers(*(draw([getattr(item, language) for item in items]) for items in (asked, pairs)))


def table(
    columns: Mapping[str, Answers], asked: Sequence[Claim], pairs: Sequence[PairPrompt], judge: Judge
) -> dict[str, object]:
    """Judge the pictures and return the report: a dict with shares from 0 to 1 by column (a model and its language).

    "claims" holds the share of right concepts per category, and "claims_style" that of right styles among the held-out
    pairs of concept and style. "two" is the share of pictures of two concepts in which the halves show both, in either
    order. "claims_prompts" holds the numbers of prompts.
    """
    top1: dict[str, dict[str, float | None]] = {category: {} for category in CATEGORIES}
    style, both = {}, {}
    for name, answers in columns.items():
        rows = list(zip(asked, judge_pictures(judge, answers.claims), strict=True))
        for category in CATEGORIES:
            top1[category][name] = share(
                [
                    verdict is not None and verdict.concept == claim.concept
                    for claim, verdict in rows
                    if claim.category == category
                ]
            )
        held_out = [(claim, verdict) for claim, verdict in rows if claim.category == "held_out"]
        style[name] = share([verdict is not None and verdict.style == claim.style for claim, verdict in held_out])
        both[name] = share(
            [
                image is not None and {verdict.concept for verdict in judge(halves(image))} == set(pair.concepts)
                for pair, image in zip(pairs, answers.pairs, strict=True)
            ]
        )
    counts = {category: sum(c.category == category for c in asked) for category in CATEGORIES}
    return {"claims": top1, "claims_style": style, "two": both, "claims_prompts": counts | {"two": len(pairs)}}


def contact_sheet(
    columns: Mapping[str, Answers], asked: Sequence[Claim], pairs: Sequence[PairPrompt], cell: int = 128
) -> tuple[Image.Image, list[str]]:
    """Return a grid of pictures, and the list of Japanese prompts, one for each column of the grid. The grid has a row
    for each of `columns` (a model and its language), and shows the first SHEET_PROMPTS prompts of every category and of
    the pairs. A picture has `cell` pixels per side.
    """
    chosen = []
    for category in CATEGORIES:
        chosen += [i for i, claim in enumerate(asked) if claim.category == category][:SHEET_PROMPTS]
    rows = [[answers.claims[i] for i in chosen] + answers.pairs[:SHEET_PROMPTS] for answers in columns.values()]
    empty = Image.new("RGB", (cell, cell), "grey")
    prompts = [asked[i].ja for i in chosen] + [pair.ja for pair in pairs[:SHEET_PROMPTS]]
    return sheet([image or empty for row in rows for image in row], cell, len(prompts)), prompts


def tokens(asked: Sequence[Claim], own: Tokenizer, english: Tokenizer) -> dict[str, float]:
    """Return the mean number of tokens per Japanese prompt in the model's own tokenizer and in the English one."""
    return {
        name: round(float(np.mean([(t := tokenizer(claim.ja)).used + t.dropped for claim in asked])), 2)
        for name, tokenizer in (("japanese", own), ("english", english))
    }


def lines(report: Mapping) -> str:
    """Return the report of `table` as a text table for the terminal."""
    names = list(next(iter(report["claims"].values())))
    rows = [("", "prompts", *names)]
    for category in CATEGORIES:
        rows.append((category, report["claims_prompts"][category], *report["claims"][category].values()))
    rows.append(("held_out, style", report["claims_prompts"]["held_out"], *report["claims_style"].values()))
    rows.append(("two things, both", report["claims_prompts"]["two"], *report["two"].values()))
    return "\n".join(f"{name:20}" + "".join(f"{cell_text(value):>10}" for value in values) for name, *values in rows)
