"""Take the syntax of other tools out of a prompt: weights, adapters, commands. This model would draw them as words.

`plain("(猫:1.3) 油絵 --ar 16:9")` returns "猫 油絵" and what was taken out, without the words that stay.
The forms are those of AUTOMATIC1111's web UI and its extensions, NovelAI, Midjourney, compel and InvokeAI. They are
looked for in a copy of the text that spells alike what looks alike (`_fold`), and cut out of the text as it was typed.
Single round brackets are ordinary text in Japanese, so they stay, and so do 【】, 「」 and [1].
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from jsd.errors import InputError, shown
from jsd.tokenizer import Tokenizer, invisible

NUMBER = r"[+-]?(?:\d*\.)?\d+"
END = r"(?=[\s,、。)\]}|」』】]|--|$)"
ADAPTERS = "lora|lyco|lycoris|locon|loha|lokr|dora|hypernet|hypernetwork|embedding|ti|wildcard"
# Parameters without a value, and those whose value may be a word. Any name may have a number.
FLAGS = "tile|raw|draft|fast|relax|turbo|video|hd|testp?|creative|upbeta|uplight|upanime|stealth|public|loop|niji|p"
WORDED = "version|v|style|profile|p|sref|cref|oref|seed|sampler|motion|end"
URLS = r"(?:[\s=]+https?://[^\s,、]+)"


def _forms(*forms: str) -> list[re.Pattern]:
    """Compile forms. The group `words` of a match stays, everything else goes. They are looked for in this order."""
    return [re.compile(form, re.MULTILINE) for form in forms]


COMMANDS = _forms(
    # The settings of a picture, pasted with its prompt.
    r"(?<![A-Za-z])(?i:negative prompt|ネガティブプロンプト) ?:(?:(?s:.*?)(?=\bSteps: ?\d+,)|.*)",
    r"(?<![A-Za-z])Steps: ?\d+, .*",
    r"(?<!\S)/imagine(?![A-Za-z])(?:\s+prompt(?![A-Za-z]))?\s*:?",
    rf"(?i:<\s*(?:{ADAPTERS})\s*[:_-](?:[^<>(,、\n]*>|[^\s<>,、]*>?))",  # <lora:name:0.8>, and without its >
    r"(?<![A-Za-z])embedding:[A-Za-z0-9_.-]+",
    r"(?<![A-Za-z0-9])__[A-Za-z0-9_/*-]+?__(?![A-Za-z0-9])",  # a wildcard
    r"\.swap\((?P<words>[^()]*?)(?:,\s*\w+\s*=[^()]*)?\)",
    r"(?<![A-Za-z–—―-])(?:--|[–—―]{1,2})(?i:no\s.*?(?=\s(?:--|[–—―])|$)"
    rf"|[a-z][a-z_-]{{0,20}}[\s=]*[+-]?\.?\d[\d.:/x]*{END}"
    rf"|(?:{WORDED})(?:{URLS}+|[\s=]+[a-z0-9][a-z0-9_.:/-]*{END})|(?:{FLAGS})(?![a-z0-9_]))",
    rf"(?<!\S)-(?:[sSWHCn] ?\d+(?:\.\d+)?|A ?(?:k_|ddim|plms)\w*){END}",
    # Among Latin words in capitals these are words: COFFEE BREAK, ROCK AND ROLL. So is AND between any: Rock AND Roll.
    r"(?<![A-Za-z0-9_])(?:ADD(?:COMM|BASE|COL|ROW)|AND_[A-Z]+"
    r"|(?<![A-Z]\s)(?:BREAK|AND(?:(?<![A-Za-z]\sAND)|(?!\s[A-Za-z])))(?!\s[A-Z]{2}))(?![A-Za-z0-9_])",
)
WEIGHTS = _forms(
    rf"(?<![\w.]){NUMBER}::(?P<words>[^:]+)::",  # NovelAI: 1.5::猫::
    rf"(?<![\w.]){NUMBER}::(?=\s*[^\W\d])",
    rf"(?<=[^\s:])\s*::(?!:)(?:{NUMBER})?",  # Midjourney: 猫::2 犬::1
    rf"(?<=[^\W\dA-Z])(?<!\b[a-z])\+{{2,}}{END}",  # 猫++, but not c++
)
# 猫:1.3. One alone is more likely a part of the text: F値:2.8.
BARE = re.compile(rf"(?<!\w)(?P<words>\d*[^\W\d]\w*)\s*:\s*[+-]?\d?\.\d+{END}", re.MULTILINE)

CLOSING = {")": "(", "]": "[", "}": "{"}
# The number at the end of a bracket. A whole one after a digit is a part of the text: 16:9.
TAIL = re.compile(
    r"(?<!\s)(?:\s*:\s*(?P<point>[+-]?(?:\d?\.\d+|\d\.|\d,\d\d?))|(?<!\d)\s*:\s*(?P<whole>\d+))\s*(?=[)\]}])"
)
SUFFIX = re.compile(rf"(?:[+-]+|\d\.\d+){END}|\.(?:blend|and)\([^()]*\)")  # (猫)++, (猫)1.3, (猫, 犬).blend(1, 1)
WORD = re.compile(r"[々〆\u3400-\u9fff\uf900-\ufaff]|[^\W_дДωσ]{2}")  # in faces letters stand alone: (( ;ﾟдﾟ))
NUMERIC = re.compile(r"[\d\s.,:/-]+")
# Between the words of [猫:犬:0.5], {猫|犬}, {2$$猫|犬} and {0.5::猫|0.3::犬}.
CHOICE = re.compile(
    r"(?:(?<![\w.])[\d.]+\s*)?::|\||(?<![\d-])\d*(?:-\d+)?\$\$(?:[^$|]*\$\$)?|(?<!\d):(?!//)|:(?![\d/])"
)
ESCAPED = re.compile(r"\\([(\[{])([^\\]*)\\([)\]}])")  # in pairs, because \(^o^)/ is a face
# What is left where something has gone: empty brackets, spaces at their edges, gaps in a list.
REST = [
    (re.compile(r"[(（\[{]\s*[)）\]}]"), " "),
    (re.compile(r"(?<=[(（「『【])\s+|\s+(?=[)）」』】])"), ""),
    (re.compile(r"\s*([,、])(?:\s*[,、])*"), r"\1"),
]


def plain(text: str) -> tuple[str, list[str]]:
    """Return a prompt without the syntax of other tools, and what was taken out, each form once.

    A text without such syntax is returned as it is. Where words stayed, what was taken out has "…" for them.
    """
    removed: list[str] = []
    rest = "".join(c for c in text if not invisible(c))
    for form in COMMANDS:
        rest = _cut(rest, form, removed)
    several = len(BARE.findall(_fold(rest))) > 1
    rest = _unwrap(rest, removed)
    for form in [*WEIGHTS, BARE] if several else WEIGHTS:
        rest = _cut(rest, form, removed)
    rest = ESCAPED.sub(r"\1\2\3", rest if removed else text)
    if removed:
        for form, new in REST:
            rest = form.sub(new, rest)
        rest = " ".join(rest.split()).strip(" ,、")
    return rest, list(dict.fromkeys(removed))


def read(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], dict[str, Any]]:
    """Return the token ids of each text, the prompt last, and how the texts were read, as arguments of `Result`.

    Raises `InputError` if the prompt is nothing but the syntax of other tools.
    """
    cleaned = [plain(text) for text in texts]
    prompt, removed = cleaned[-1]
    if removed and not prompt:
        taken = shown(", ".join(removed))
        raise InputError("prompt", "it was all syntax of other tools: {}; say in words what the picture shows", taken)
    tokens = [tokenizer(text) for text, _ in cleaned]
    return [t.ids for t in tokens], {
        "tokens": tokens[-1].used,
        "truncated": sum(t.dropped for t in tokens),
        "unknown": "".join(t.unknown for t in tokens),
        "removed": [form for _, removed in cleaned for form in removed],
    }


def _fold(text: str) -> str:
    """Return a copy of the same length: characters as NFKC writes them, one minus sign, no escaped brackets."""
    forms = (unicodedata.normalize("NFKC", c) for c in text)
    alike = "".join(form if len(form) == 1 else c for c, form in zip(text, forms, strict=True))
    return ESCAPED.sub(r"\0\0\2\0\0", re.sub("[‐−]", "-", alike))


def _cut(text: str, form: re.Pattern, removed: list[str]) -> str:
    """Return `text` with a space for what a form matches, but for its words. Adds what has gone to `removed`."""
    parts, at = [], 0
    for match in form.finditer(_fold(text)):
        start, stop = match.span("words") if form.groups else (match.end(), match.end())
        before, words, after = text[match.start() : start], text[start:stop], text[stop : match.end()]
        removed.append((before + ("…" if words else "") + after).strip(" \n…"))
        parts += [text[at : match.start()], " " if before else "", words, " " if after else ""]
        at = match.end()
    return "".join(parts) + text[at:]


def _unwrap(text: str, removed: list[str]) -> str:
    """Return `text` without the brackets that are syntax, and without the numbers and choices in them.

    Round ones are syntax if they are doubled or have a weight, square and curly ones if they hold words.
    """
    folded = _fold(text)
    pairs: dict[int, int] = {}  # where brackets open: where they close, the inner ones first
    opened: dict[str, list[int]] = {"(": [], "[": [], "{": []}
    for i, c in enumerate(folded):
        if c in opened:
            opened[c].append(i)
        elif c in CLOSING and opened[CLOSING[c]]:
            pairs[opened[CLOSING[c]].pop()] = i
    words = [match.start() for match in WORD.finditer(folded)]
    stops = _stops(folded, pairs)
    kept, choices, done = list(text), [], set()
    for left, right in pairs.items():
        if left in done:
            continue
        start, end = left, right  # of the brackets directly around these, all unwrapped together: ((猫):1.2)
        while folded[start - 1] == folded[left] and stops.get(start - 1) == end + 1:
            start, end = start - 1, pairs[start - 1]
            done.add(start)
        numbered = any(stops[i] < pairs[i] for i in range(start, left + 1))
        worded = bisect_left(words, left) < bisect_left(words, stops[left])
        if folded[left] == "(":
            suffix = SUFFIX.match(folded, end + 1) if worded else None
            syntax = numbered or suffix or (worded and start < left)
            end = suffix.end() - 1 if suffix else end
        else:
            syntax = numbered or (worded and not NUMERIC.fullmatch(folded, left + 1, right))
            choices += [(left + 1, stops[left])] if syntax else []
        if syntax:
            removed.append(text[start : left + 1] + "…" + text[stops[left] : end + 1])
            for i in (*range(start, left + 1), *range(stops[left], end + 1)):
                kept[i] = ""
    reach = 0
    for start, stop in sorted(choices):
        for match in CHOICE.finditer(folded, max(start, reach), max(stop, reach)):
            if kept[match.start()]:  # else it went with a weight
                kept[match.start() : match.end()] = [" ", *[""] * (len(match[0]) - 1)]
        reach = max(stop, reach)
    return "".join(kept)


def _stops(folded: str, pairs: dict[int, int]) -> dict[int, int]:
    """Return where the words of each pair of brackets end: before its number if it has one, else where it closes.

    In round brackets a number with a point is a weight. A whole one may be a part of the text, (エピソード:4), so 0 to
    2 are weights only if a number with a point stands in other brackets.
    """
    tails = {match.end(): match for match in TAIL.finditer(folded)}
    sure = any(tail["point"] and folded[end] == ")" for end, tail in tails.items())
    stops = pairs.copy()
    for left, right in pairs.items():
        tail = tails.get(right)
        if not tail or folded[left + 1 : tail.start()].strip().isdigit():
            continue
        if tail["point"] or folded[left] != "(" or (sure and tail["whole"] in "012"):
            stops[left] = tail.start()
    return stops
