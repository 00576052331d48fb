"""The claims of the 2022 README as a table: does the model understand Japanese nouns, Japanglish, onomatopoeia and
proper nouns, does it compose, and what did each stage of the training bring?

Columns are model folders with the language they are asked in. The English base given Japanese prompts shows what there
was before; given their English translation, what could be hoped for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from embedded.captions import ENGLISH, JAPANESE, prompt_for, prompt_for_two
from embedded.drawings import Concept, Drawing
from embedded.judge import Judge, Verdict
from embedded.pictures import held_out_pair
from embedded.prompts import sample_pairs
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
# What looks otherwise in Japan, or is found nowhere else.
JAPANESE_STYLE = (
    "城", "天守閣", "鳥居", "神社", "提灯", "赤提灯", "お祭り", "着物", "浴衣", "和服", "扇子", "風鈴", "雛人形",
    "鯉のぼり", "門松", "お正月", "お月見", "七夕飾り", "花札", "お年玉", "ポチ袋", "線香花火", "天狗", "天狗のお面",
    "鬼", "忍者", "温泉", "寿司", "おにぎり", "団子", "おでん", "ラーメン", "煎餅", "弁当", "新幹線", "そろばん",
    "柔道着", "初心者マーク", "郵便局",
)
# fmt: on
CATEGORIES = ("noun", "japanglish", "onomatopoeia", "proper_noun", "japanese_style", "held_out")
SHOWN = 2  # prompts of each category on the contact sheet


@dataclass(frozen=True)
class Claim:
    """A prompt in both languages and the right answer. `category` is one of CATEGORIES."""

    category: str
    ja: str
    en: str
    concept: str
    style: str = "plain"


@dataclass(frozen=True)
class Two:
    """A prompt for two things, in both languages, and the concepts."""

    ja: str
    en: str
    concepts: tuple[str, str]


def claims(drawings: Sequence[Drawing], count: int, seed: int) -> list[Claim]:
    """What is asked: `count` plain nouns and as many held-out style pairs, and all words of the lists that name one of
    the concepts.
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


def twos(drawings: Sequence[Drawing], count: int, seed: int) -> list[Two]:
    """`count` pairs of concepts that were never shown together."""
    concepts = list({drawing.concept.id: drawing.concept for drawing in drawings}.values())
    rng = np.random.default_rng((seed, 3))
    chosen: list[Two] = []
    # Of few concepts there may be fewer such pairs than asked for.
    for _ in range(100 * count):
        one, other = (concepts[i] for i in rng.choice(len(concepts), 2, replace=False))
        if held_out_pair(one.id, other.id) and len(chosen) < count:
            both = (one, other)
            chosen.append(Two(prompt_for_two(both, JAPANESE), prompt_for_two(both, ENGLISH), (one.id, other.id)))
    return chosen


def halves(image: Image.Image) -> list[Image.Image]:
    """The left and the right thing of a picture of two: squares of half its size from the middle of its height."""
    width, height = image.size
    top = height // 2 - width // 4
    return [image.crop((x, top, x + width // 2, top + width // 2)) for x in (0, width // 2)]


Draw = Callable[[Sequence[str]], list[Image.Image | None]]


@dataclass(frozen=True)
class Answers:
    """What one column drew for the claims and for the pairs, in their order; None where there is no picture."""

    claims: list[Image.Image | None]
    pairs: list[Image.Image | None]


def answer(language: str, draw: Draw, asked: Sequence[Claim], pairs: Sequence[Two]) -> Answers:
    """Draw all prompts in `language` ("ja" or "en")."""
    return Answers(*(draw([getattr(item, language) for item in items]) for items in (asked, pairs)))


def table(
    columns: Mapping[str, Answers], asked: Sequence[Claim], pairs: Sequence[Two], judge: Judge
) -> dict[str, object]:
    """The report: top-1 for each category and column, the share of right styles, and of pairs that show both things."""
    top1: dict[str, dict[str, float | None]] = {category: {} for category in CATEGORIES}
    style, both = {}, {}
    for name, answers in columns.items():
        rows = list(zip(asked, _look(judge, answers.claims), strict=True))
        for category in CATEGORIES:
            chosen = [(claim, seen) for claim, seen in rows if claim.category == category]
            top1[category][name] = _share([seen is not None and seen.concept == c.concept for c, seen in chosen])
        held = [(claim, seen) for claim, seen in rows if claim.category == "held_out"]
        style[name] = _share([seen is not None and seen.style == claim.style for claim, seen in held])
        both[name] = _share(
            [
                image is not None and {seen.concept for seen in judge(halves(image))} == set(pair.concepts)
                for pair, image in zip(pairs, answers.pairs, strict=True)
            ]
        )
    counts = {category: sum(c.category == category for c in asked) for category in CATEGORIES}
    return {"claims": top1, "claims_style": style, "two": both, "claims_prompts": counts | {"two": len(pairs)}}


def contact_sheet(
    columns: Mapping[str, Answers], asked: Sequence[Claim], pairs: Sequence[Two], cell: int = 128
) -> tuple[Image.Image, list[str]]:
    """The first SHOWN prompts of every category and of the pairs, a row for each column; and the prompts."""
    chosen = [i for category in CATEGORIES for i in [k for k, c in enumerate(asked) if c.category == category][:SHOWN]]
    rows = [[answers.claims[i] for i in chosen] + answers.pairs[:SHOWN] for answers in columns.values()]
    empty = Image.new("RGB", (cell, cell), "grey")
    prompts = [asked[i].ja for i in chosen] + [pair.ja for pair in pairs[:SHOWN]]
    return sheet([image or empty for row in rows for image in row], cell, len(prompts)), prompts


def tokens(asked: Sequence[Claim], own: Tokenizer, english: Tokenizer) -> dict[str, float]:
    """Tokens a Japanese prompt takes in its own tokenizer and in an English one."""
    return {
        name: round(float(np.mean([(t := tokenizer(claim.ja)).used + t.dropped for claim in asked])), 2)
        for name, tokenizer in (("japanese", own), ("english", english))
    }


def lines(report: Mapping) -> str:
    """The report for a reader."""
    names = list(next(iter(report["claims"].values())))
    rows = [("", "prompts", *names)]
    for category in CATEGORIES:
        rows.append((category, report["claims_prompts"][category], *report["claims"][category].values()))
    rows.append(("held_out, style", report["claims_prompts"]["held_out"], *report["claims_style"].values()))
    rows.append(("two things, both", report["claims_prompts"]["two"], *report["two"].values()))
    text = [[f"{x:.1%}" if isinstance(x, float) else "" if x is None else str(x) for x in row] for row in rows]
    return "\n".join(f"{row[0]:20}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in text)


def _look(judge: Judge, images: Sequence[Image.Image | None]) -> list[Verdict | None]:
    seen = iter(judge([image for image in images if image is not None]))
    return [None if image is None else next(seen) for image in images]


def _share(right: Sequence[bool]) -> float | None:
    return round(float(np.mean(right)), 4) if right else None
