"""Take the syntax of other tools out of a prompt: weights, adapters, commands. This model would draw them as words.

`plain("(猫:1.3) 油絵 --ar 16:9")` returns "猫 油絵" and what was taken out, without the words that stay.
The forms are those of AUTOMATIC1111's web UI, NovelAI, Midjourney, compel and InvokeAI. Single round brackets are
ordinary text in Japanese, so they stay, and so do 【】, 「」 and [1].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jsd.tokenizer import Tokenizer

# A weight: 1.3, .5, -0.5, 2. Larger whole numbers are more likely a part of the text: 16:9, (エピソード:4).
NUMBER = r"[+-]?(?:\d?[.．]\d+|[0-2２１０])"
END = r"(?=[\s,、。)）]|$)"
COLON = r"\s*(?<!\d)[:：]\s*"
# Midjourney's parameters. Others could be ordinary text.
FLAGS = "tile|raw|draft|fast|relax|turbo|video|hd|test|testp|creative|upbeta|uplight|stealth|public"
VALUED = (
    "aspect|ar|version|v|niji|quality|q|stylize|stylise|style|s|chaos|c|weird|w|seed|sameseed|stop|iw|repeat|r|profile|p"
    "|sref|sw|sv|cref|cw|oref|ow|exp|width|height|h"
)
# In the order in which they are looked for. The group `words` stays, everything else of a match goes.
FORMS = [
    re.compile(form, re.MULTILINE)
    for form in (
        r"[<＜][A-Za-z]+[:：][^<>＜＞]*[>＞]",  # <lora:name:0.8>, <hypernet:name:1>
        r"\bembedding:[\w.-]+",
        r"^(?:Negative prompt:|Steps: ?\d+, ).*",  # the settings of a picture, pasted with its prompt
        r"^\s*/imagine(?:\s+prompt:)?\s",
        rf"(?<![A-Za-z0-9-])(?:--|—|――)(?:no\s.*?(?=\s(?:--|—|――)|$)|(?:{FLAGS})\b|(?:{VALUED})[\s=]+[^\s,、]+{END})",
        rf"(?<!\\)[(（](?P<words>[^()（）]*?){COLON}{NUMBER}\s*[)）]",  # (猫:1.3)
        r"(?<![\\(（])[(（]{2,}(?P<words>[^()（）]*)[)）]{2,}",  # ((猫))
        rf"(?<!\\)[(（](?P<words>[^()（）]*)[)）](?:[+-]+|\d[.]\d+){END}",  # (猫)++, (猫)1.3
        rf"(?<!\\)[\[［](?!\d+[\]］])(?P<words>[^\[\]［］]*?)(?:[:：]\s*{NUMBER}\s*)?[\]］]",  # [猫], [猫:犬:0.5]
        rf"(?<!\\)[{{｛](?P<words>[^{{}}｛｝]*?)(?:[:：]\s*{NUMBER}\s*)?[}}｝]",  # {猫}, {猫|犬}
        rf"(?<!\S)-?\d?[.]?\d+::(?P<words>[^:]+)::{END}",  # NovelAI: 1.5::猫::
        rf"(?<=\S)::(?:{NUMBER}{END})?",  # Midjourney: 猫::2 犬::1
        rf"(?<=[^\W\d])\s*[:：]\s*[+-]?\d?[.]\d+{END}",  # 猫:1.3
        rf"(?<=[^\W\dA-Z])\+{{2,}}{END}",  # 猫++
        # Among words in capitals they are words: COFFEE BREAK, ROCK AND ROLL.
        r"(?<![A-Z] )(?<![A-Za-z0-9])(?:AND|BREAK)(?![A-Za-z0-9])(?! [A-Z]{2})",
    )
]
CHOICE = re.compile(r"[|:：]")  # between the words of [猫:犬:0.5] and {猫|犬}
ESCAPED = re.compile(r"\\([()\[\]{}])")
GAPS = re.compile(r"\s*([,、])(?:\s*[,、])+|^\s*[,、]|[,、]\s*$")  # what is left of a list when an item has gone


def plain(text: str) -> tuple[str, list[str]]:
    """Return a prompt without the syntax of other tools, and what was taken out, each form once.

    A text without such syntax is returned as it is. Where words stayed, what was taken out has "…" for them.
    """
    removed: list[str] = []

    def take(match: re.Match) -> str:
        words = match.groupdict().get("words") or ""
        removed.append((match[0].replace(words, "…", 1) if words else match[0]).strip())
        return CHOICE.sub(" ", words) if match[0][0] in "[［{｛" else words

    for form in FORMS:
        found = 1
        while found:  # brackets may be nested, so the innermost ones come first
            text, found = form.subn(take, text)
    text = ESCAPED.sub(r"\1", text)
    if removed:
        text = GAPS.sub(r"\1", " ".join(text.split())).strip()
    return text, list(dict.fromkeys(removed))


def read(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], dict[str, Any]]:
    """Return the token ids of each text, the prompt last, and how the texts were read, as arguments of `Result`."""
    cleaned = [plain(text) for text in texts]
    tokens = [tokenizer(text) for text, _ in cleaned]
    return [t.ids for t in tokens], {
        "tokens": tokens[-1].used,
        "truncated": sum(t.dropped for t in tokens),
        "unknown": "".join(t.unknown for t in tokens),
        "removed": [form for _, removed in cleaned for form in removed],
    }
