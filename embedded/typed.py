"""Prompts as Japanese people type them: the same words in other characters, with long vowels and digits of all sorts.

Each of WAYS takes a name and returns it spelled in another way, or as it is where that way changes nothing. They know
nothing of `jsd.spelling`, which has to read them.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from embedded.judge import Verdict
from embedded.prompts import UNASKED, Task, half_width, plain
from embedded.scenes import Concept
from embedded.scenes.words.japanese import full_width, kana_swapped
from embedded.scores import cell_text, marks, share
from jsd.language import Text

KANJI = "[々一-鿿]"
NEW = "国竜桜鶏猟学気画会楽関広剣県湾絵円鉄黄黒浜駅灯亀麦仏宝"
OLD = "國龍櫻鷄獵學氣畫會樂關廣劍縣灣繪圓鐵黃黑濱驛燈龜麥佛寶"
VOWELS = (
    "アカサタナハマヤラワガザダバパァャヮ",
    "イキシチニヒミリギジヂビピィ",
    "ウクスツヌフムユルグズヅブプゥュヴ",
    "エケセテネヘメレゲゼデベペェ",
    "オコソトノホモヨロヲゴゾドボポォョ",
)
VOWEL = {c: row[0] for row in VOWELS for c in row}


def to_katakana(text: str) -> str:
    """Return a text with katakana for its hiragana."""
    return "".join(chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else c for c in text)


def to_hiragana(text: str) -> str:
    """Return a text with hiragana for its katakana."""
    return "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in text)


def drawn_out(name: str) -> str:
    """Return a name with vowels for ー: ラーメン as ラアメン."""
    return "".join(VOWEL.get(to_katakana(name[i - 1 : i]), c) if c == "ー" else c for i, c in enumerate(name))


def clipped(name: str) -> str:
    """Return a katakana name without the ー at its end: コンピューター as コンピュータ."""
    return re.sub("(?<=[ァ-ヺー]{3})ー$", "", name)


def vowels_of_kana(name: str) -> str:
    """Return a katakana name in hiragana, as the old school books spell long vowels: コーヒー as こうひい."""
    late = {"オ": "う", "エ": "い"}
    vowels = (VOWEL.get(name[i - 1 : i], "") for i in range(len(name)))
    spelled = (late.get(v, to_hiragana(v)) or c if c == "ー" else c for c, v in zip(name, vowels, strict=True))
    return to_hiragana("".join(spelled)) if re.fullmatch("[ァ-ヶー]{4,}", name) else name


def without_okurigana(name: str) -> str:
    """Return a name without the kana between its kanji and behind them that many leave out: 打ち上げ花火, 打上花火."""
    return re.sub(f"(?<={KANJI})[きぎしちびみりけげせねべめれ](?={KANJI}|$)", "", name) if len(name) > 2 else name


def without_first_okurigana(name: str) -> str:
    """Return a name without the first of these kana: 打上げ花火."""
    return re.sub(f"(?<={KANJI})[きぎしちびみりけげせねべめれ](?={KANJI})", "", name, count=1)


def old_kanji(text: str) -> str:
    """Return a text with the old forms of its kanji: 国 as 國."""
    return text.translate(str.maketrans(NEW, OLD))


def old_kana(text: str) -> str:
    """Return a text with ゐ for い and ゑ for え."""
    return text.translate(str.maketrans("いえイエ", "ゐゑヰヱ"))


def digits(text: str) -> str:
    """Return a text with digits for numerals that are no part of a word: 三匹 as 3匹."""
    counted = f"(?<!{KANJI})[一二三四](?=[匹頭羽個本台枚人つ杯皿冊輪])"
    return re.sub(counted, lambda match: str("〇一二三四".index(match[0])), text)


WAYS: dict[str, Callable[[str], str]] = {
    "half-width kana": half_width,
    "full width": full_width,
    "swapped kana": kana_swapped,
    "all katakana": to_katakana,
    "all hiragana": to_hiragana,
    "long vowels": drawn_out,
    "long vowels in hiragana": lambda text: to_hiragana(drawn_out(text)),
    "long vowels of old books": vowels_of_kana,
    "no long vowel at the end": clipped,
    "no okurigana": without_okurigana,
    "less okurigana": without_first_okurigana,
    "old kanji": old_kanji,
    "old kana": old_kana,
    "digits": digits,
    "full-width digits": lambda text: full_width(digits(text)),
    "separate voice marks": lambda text: unicodedata.normalize("NFD", text),
    "quoted": lambda text: f"「{text}」",
    "a sentence's end": lambda text: f"{text}。",
    "spaces around": lambda text: f"\u3000{text}\u00a0\n",
}


def spellings_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Return each way's spellings of the names that it changes. "another name" has all names but the first."""
    found = {"another name": list(names[1:])}
    for way, change in WAYS.items():
        found[way] = [spelled for name in names if (spelled := change(name)) not in (name, names[0])]
    return found


def sample_typed(concepts: Iterable[Concept], count: int, seed: int) -> list[Task]:
    """Return up to `count` prompts, each for one thing, another one than the rest, spelled as people type it.

    All ways come as often, where they change a name of the thing. Spellings that sound like a name of another thing
    are left out, and so are things of UNASKED kinds.
    """
    rng, owners = np.random.default_rng((seed, 3)), dict[str, set[str]]()
    choices = [(concept, spellings_of(concept.ja)) for concept in concepts if concept.kind not in UNASKED]
    for concept, ways in choices:
        for name in (*concept.ja, *(name for names in ways.values() for name in names)):
            owners.setdefault(_sound(name), set()).add(concept.id)
    tasks = []
    for i in rng.permutation(len(choices))[:count]:
        concept, ways = choices[i]
        own = [[name for name in names if len(owners[_sound(name)]) == 1] for names in ways.values()]
        for names in (own[k] for k in rng.permutation(len(own)) if own[k]):
            tasks.append(Task.of("typed", plain(concept), names[int(rng.integers(len(names)))]))
            break
    return tasks


def _sound(name: str) -> str:
    """Return what tells names apart, however they are spelled."""
    return to_hiragana(unicodedata.normalize("NFKC", name)).strip("「」。 \n")


def report(tasks: Sequence[Task], typed: Sequence[Verdict], common: Sequence[Verdict]) -> dict[str, float | int | None]:
    """Return the shares of right pictures, from 0 to 1: of the prompts as they are "typed", and of the same things in
    their "common" spelling.
    """
    right = {"typed": typed, "common": common}
    shares = {
        name: share([marks(task.scene, verdict)["one"] for task, verdict in zip(tasks, verdicts, strict=True)])
        for name, verdicts in right.items()
    }
    return shares | {"prompts": len(tasks)}


def line(result: Mapping[str, float | int | None]) -> str:
    """Return the dict that `report` made as one line of text."""
    typed, common = (cell_text(result[name]) or "-" for name in ("typed", "common"))
    return Text(
        "{} things as people type them: {} right, {} in their common spelling", result["prompts"], typed, common
    )
