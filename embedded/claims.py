"""Measure what the 2022 README claims, as a table: how well a model knows Japanese words and how well it composes.

The words are Japanese nouns, Japanglish (Japanese words made of English ones), onomatopoeia, proper nouns and Japanese
things. Each column of the table is one model, prompted in one language. The English base is the model before its
training in Japanese. Its column with Japanese prompts shows what it knew of Japanese. Its column with the prompts'
English translations shows what the Japanese model can hope to reach.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from embedded.judge import Judge, Verdict
from embedded.prompts import Task, plain, sample_tasks
from embedded.scenes import Concept
from embedded.scores import cell_text, marks, share
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
WORDS = {
    "japanglish": JAPANGLISH,
    "onomatopoeia": ONOMATOPOEIA,
    "proper noun": PROPER_NOUNS,
    "Japanese thing": JAPANESE_STYLE,
}  # fmt: skip
OTHERS = {"one": "noun", "place": "place", "two": "two things"}  # groups of `embedded.prompts.GROUPS`, and categories
CATEGORIES = (*WORDS, *OTHERS.values())
SHEET_PROMPTS = 2  # per category on the contact sheet


def sample_claims(concepts: Mapping[str, Concept], count: int, seed: int) -> list[Task]:
    """Return the test prompts, their category as their group: the words of WORDS that name a concept of `concepts`, and
    `count` random scenes for each of OTHERS.
    """
    by_name = {name: concept for concept in concepts.values() for name in concept.ja}
    asked = [
        Task.of(category, plain(by_name[word]), word)
        for category, words in WORDS.items()
        for word in words
        if word in by_name
    ]
    tasks = sample_tasks(concepts, 20 * count, seed) if count else []
    for group, category in OTHERS.items():
        chosen = [task for task in tasks if task.group == group][:count]
        asked += [Task(category, task.ja, task.en, task.scene) for task in chosen]
    return asked


Answers = Mapping[str, Sequence[Image.Image | None]]  # by column: a model and its language; None is a missing picture


def report(columns: Answers, asked: Sequence[Task], judge: Judge) -> dict[str, object]:
    """Judge the pictures. "claims" holds the share of right pictures, from 0 to 1, by category and column. In a place
    thing and place have to be right, and of two things both. "claims_prompts" holds the numbers of prompts.
    """
    found: dict[str, dict[str, float | None]] = {category: {} for category in CATEGORIES}
    for name, images in columns.items():
        verdicts = judge(images)
        for category in CATEGORIES:
            rows = [(t, v) for t, v in zip(asked, verdicts, strict=True) if t.group == category]
            found[category][name] = share([_right(task, verdict) for task, verdict in rows])
    return {"claims": found, "claims_prompts": {c: sum(task.group == c for task in asked) for c in CATEGORIES}}


def _right(task: Task, verdict: Verdict) -> bool:
    flags = marks(task.scene, verdict)
    return next(flags[name] for name in OTHERS if name in flags)


def contact_sheet(columns: Answers, asked: Sequence[Task], cell: int = 128) -> tuple[Image.Image, list[str]]:
    """Return a grid of pictures, and the list of Japanese prompts, one for each column of the grid. The grid has a row
    for each of `columns`, and shows the first SHEET_PROMPTS prompts of every category. A picture has `cell` pixels per
    side.
    """
    chosen: list[int] = []
    for category in CATEGORIES:
        chosen += [i for i, task in enumerate(asked) if task.group == category][:SHEET_PROMPTS]
    empty = Image.new("RGB", (cell, cell), "grey")
    pictures = [images[i] or empty for images in columns.values() for i in chosen]
    return sheet(pictures, cell, len(chosen)), [asked[i].ja for i in chosen]


def tokens(asked: Sequence[Task], own: Tokenizer, english: Tokenizer) -> dict[str, float]:
    """Return the mean number of tokens per Japanese prompt in the model's own tokenizer and in the English one."""
    return {
        name: round(float(np.mean([(t := tokenizer(task.ja)).used + t.dropped for task in asked])), 2)
        for name, tokenizer in (("japanese", own), ("english", english))
    }


def lines(result: Mapping) -> str:
    """Return the dict of `report` as a text table for the terminal."""
    names = list(next(iter(result["claims"].values())))
    rows = [("", "prompts", *names)]
    for category in CATEGORIES:
        rows.append((category, result["claims_prompts"][category], *result["claims"][category].values()))
    return "\n".join(f"{name:20}" + "".join(f"{cell_text(value):>10}" for value in values) for name, *values in rows)
