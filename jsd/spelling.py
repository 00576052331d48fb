"""Spell the words of a prompt as a model's captions do: ねこ, ネコ and ﾈｺ as 猫, らあめん as ラーメン, 3匹 as 三匹.

A model folder may have a file `tokenizer/spellings.json` with three tables. `words` has nouns, {common: [others]}, and
`alone` what some of these become where nothing is beside them, {common: other}. `joints` has what may touch a noun:
赤い, 三匹, 水彩画, の上の. A word is found by its `key`, in which spellings are alike, and only where it is whole:
between gaps, particles and joints. Nothing in かきごおり is かき. A key that belongs to several words stays as typed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jsd.errors import WeightsError
from jsd.language import Text
from jsd.letters import OLD, flat, fold, key, more_keys, short

PARTICLE = re.compile("[にでとへ][はもの]|[のとやがをにはでもへ]")
OF_NOUNS = "のとやも"  # what a lone kanji has to stand before: in 水を飲む it is a word of a sentence
STOPS = "。．.!?…‥♪:;・/|&+〜~"
# These are seldom the noun in a sentence (昔のまま, 家にかえる, 川がある): it is read at the beginning alone.
SAID = re.compile(
    "あり|がある|ここ|かえる|かき|かも|きい|くし|さい|しか|しそ|たぐ|ちょう|なし|なん|にこ|のこ|はえ|ばん|まま|まる|やし|やり|らま"
)

Table = Mapping[str, Sequence[str]]


class Word(NamedTuple):
    """How a word is spelled (None: as it was typed), how where nothing is beside it, and whether it is a joint."""

    common: str | None
    alone: str | None
    joint: bool


class Spellings:
    """The words of a model, and their spellings (`table`). `knows` tells whether its vocabulary has a character."""

    def __init__(self, words: Table, alone: Mapping[str, str], joints: Table, knows: Callable[[str], bool]):
        self.table = {"words": words, "alone": alone, "joints": joints}
        self.knows = knows
        owners: dict[str, dict[str, set[str]]] = {}  # key: common spelling: names with that key
        more: dict[str, set[str]] = {}  # further keys: the keys that they stand for
        for table in (words, joints):
            for common, others in table.items():
                for name in (common, *others):
                    owners.setdefault(key(name), {}).setdefault(common, set()).add(name)
                    for other in more_keys(name):
                        more.setdefault(other, set()).add(key(name))
        self._words: dict[str, Word] = {}
        for own, found in owners.items():
            spelled = list(found) if len(found) == 1 else [*set().union(*found.values())]
            common = spelled[0] if len(spelled) == 1 else None
            apart = alone.get(common, common) if common and len(found) == 1 else common
            self._words[own] = Word(common, apart, not joints.keys().isdisjoint(found))
        self._words |= {
            other: self._words[own] for other, (own, *rest) in more.items() if not rest and other not in owners
        }
        alike: dict[str, set[Word]] = {}
        for own, word in self._words.items():
            alike.setdefault(flat(own), set()).add(word)
        self._flat = {own: found.pop() for own, found in alike.items() if len(found) == 1}
        self.first = frozenset(own[0] for own in self._words) | {"ゔ"}
        self.longest = 6 + max(map(len, self._words), default=0)

    @classmethod
    def from_file(cls, file: Path, knows: Callable[[str], bool]) -> Spellings:
        """Read a `spellings.json`. Raises `WeightsError`, which names the file, if it is no such table."""
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
            parts = table["words"], table["alone"], table["joints"]
            names = [name for part in parts for common, others in part.items() for name in (common, *others)]
            if not all(name and isinstance(name, str) for name in (*names, *parts[1].values())):
                raise ValueError(Text("a name is no text"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError("{}: no readable table of spellings ({}); restore the file", file, error) from error
        return cls(*parts, knows)

    def find(self, folded: str) -> Word | None:
        """Return the word that a part of a folded text is, None if it is none."""
        own = short(folded)
        if found := self._words.get(own):
            return found
        # けいき is not ケーキ: of short words only the reverse is sure (せんせー, ぞー).
        return self._flat.get(flat(own)) if flat(own) == own or len(own) > 3 else None

    def unify(self, text: str) -> str:
        """Return a text with the model's words in their common spelling, and with what it does not know mended: old
        forms of characters, brackets, stops.
        """
        text = re.sub(".[\u3099-\u309c\uff9e\uff9f]?", self._composed, text, flags=re.DOTALL)
        # The vocabulary may know the hyphen, from Wi-Fi, so that the tokenizer does not mend ケ-キ.
        text = re.sub("(?<=[ぁ-ヺー])-+", lambda match: "ー" * len(match[0]), text)
        read = "".join(_Reading(self, text).parts())
        read = re.sub(r"(?<=[^\x00-\x7f])\s*,\s*|\s*,\s*(?=[^\x00-\x7f])", "、", read)
        return re.sub(r"\s*、[\s、]*", "、", read).strip("、 ")

    def _composed(self, match: re.Match) -> str:
        """Return a character as NFKC writes it, with its voice mark, unless the vocabulary does not know that."""
        form = unicodedata.normalize("NFKC", match[0].replace("\u309b", "\u3099").replace("\u309c", "\u309a"))
        return form if len(form) == 1 or all(map(self.knows, form)) else match[0]


class _Reading:
    """A text in NFKC, and the words in it."""

    def __init__(self, spellings: Spellings, text: str):
        self.text, self.knows = text, spellings.knows
        kinds = re.sub("(?<=h)-+", lambda match: "h" * len(match[0]), "".join(map(_kind, text))).replace("-", "k")
        self.kinds = kinds + " "
        # The longest word that begins at each place, and its end; the same of joints alone.
        self.words: list[tuple[int, Word] | None] = [None] * (len(text) + 1)
        self.joints = self.words.copy()
        folded = fold(text)
        for start in reversed(range(len(text))):
            if folded[start] not in spellings.first or self.kinds[max(0, start - 1) : start + 1] in ("kk", "aa"):
                continue
            for end in range(min(len(text), start + spellings.longest), start, -1):
                word = spellings.find(folded[start:end])
                if word and self._ends(start, end, word) and not self._said(start, end):
                    self.words[start] = self.words[start] or (end, word)
                    if word.joint:
                        self.joints[start] = (end, word)
                        break

    def parts(self) -> Iterator[str]:
        """Yield the unified text, part by part."""
        at, after = 0, ""  # "joint", if the part before is one or a particle, "noun", or "" for anything else
        while at < len(self.text):
            found = self.words[at] if after == "joint" or (after == "" and self._begins(at)) else self.joints[at]
            if not found:
                yield self._mended(at)
                at, after = at + 1, ""
                continue
            end, word = found
            alone = not (self.kinds[max(0, at - 1) : at] + self.kinds[end]).strip()
            yield (word.alone if alone else word.common) or "".join(map(self._mended, range(at, end)))
            particle = self._particle(at, end, word) if not self.joints[end] else None
            if particle:
                yield self.text[end:particle]
            at, after = particle or end, "joint" if particle or word.joint else "noun"

    def _ends(self, start: int, end: int, word: Word) -> bool:
        """Whether a word can end there: before a gap, a joint or a particle, and a joint before any word."""
        before, after = self.kinds[end - 1 : end + 1]
        if before == after and after in "ka":  # nobody splits ケーキ
            return False
        if after == " " or self.joints[end] or self._particle(start, end, word):
            return True
        return word.joint and bool(self.words[end] if after == "h" else before != after)

    def _said(self, start: int, end: int) -> bool:
        """Whether a word of SAID is no noun there."""
        before, after = self.kinds[start - 1] if start else " ", self.kinds[end]
        return bool(SAID.fullmatch(self.text[start:end])) and (
            before != " " or (after != " " and self.text[end] not in OF_NOUNS)
        )

    def _particle(self, start: int, end: int, word: Word) -> int | None:
        """Return the end of the particle behind a word, None if there is none. Much in hiragana only looks like one:
        はなや, いかが. So other hiragana must not follow it.
        """
        hiragana = not self.kinds[start:end].strip("h")
        lone = end == start + 1 and self.kinds[start] == "c" and word.common not in (None, self.text[start])
        found = None
        for stop in (end + 1, end + 2):
            particle, after = self.text[end:stop], self.kinds[stop : stop + 3]
            if not after or not PARTICLE.fullmatch(particle) or (lone and particle[0] not in OF_NOUNS):
                continue
            if self.words[stop]:
                return stop
            sure = after == "hhh" or after[0] == " "
            if hiragana:
                sure = particle == "を" or (particle in "のと" and after[0] == " ")
            found = stop if sure or after[0] not in " h" else found
        return found

    def _begins(self, start: int) -> bool:
        """Whether a word can begin there, behind what is no word of the model: at a gap, a particle (電柱のねこ) or the
        end of an adjective or verb (走るネコ). 打ち水 is not 水.
        """
        before = self.kinds[:start]
        if not before.endswith("h"):
            return start == 0 or before.endswith(" ")
        last, rest = self.text[start - 1], before.rstrip("h")
        run = len(before) - len(rest)
        if PARTICLE.fullmatch(last) and run == 1 and rest.strip():
            return True
        if self.kinds[start] == "h":
            return False
        if last == "い":
            return run > 1 or self.kinds[start] == "k"
        return run > 2 if PARTICLE.fullmatch(last) else last in "なるた" and (run > 2 or rest[-1:] not in ("", " "))

    def _mended(self, at: int) -> str:
        """Return the character at a place, or what the vocabulary has for it."""
        c, before, after = self.text[at], self.kinds[at - 1 : at] or " ", self.kinds[at + 1]
        if self.knows(c) and c != "・":
            return c
        if c in OLD and self.knows(OLD[c]):
            return OLD[c]
        if unicodedata.category(c) in ("Ps", "Pe", "Pi", "Pf") or c in "\"'":
            return "" if " " not in before + after and "h" in before + after else " "
        number = c.isascii() and self.text[at - 1 : at].isdigit() and self.text[at + 1 : at + 2].isdigit()  # 1.5, 3:2
        return "、" if c in STOPS and not number else c


def _kind(c: str) -> str:
    """Return "h" for hiragana, "k" for katakana, "-" for ー, "c" for kanji, "a" for other letters, else " "."""
    if "ぁ" <= c <= "ゖ":
        return "h"
    if "ァ" <= c <= "ヺ":
        return "k"
    if c == "ー":
        return "-"
    if c == "々" or "㐀" <= c <= "鿿" or c >= "\U00020000":
        return "c"
    return "a" if c.isalnum() or c == "_" else " "
