"""The examples of a Markdown page: its code blocks, each with the heading above it and the output the page shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PLACES = re.compile(
    r"^#+ (?P<heading>[^\n]*)$"  # or a code block, and the block right after it if that holds its output
    r"|^```(?P<language>\w+)\n(?P<code>.*?)^```\n(?:\n```(?:text|json)\n(?P<output>.*?)^```$)?",
    re.S | re.M,
)


@dataclass
class Example:
    heading: str
    language: str
    code: str
    output: str | None  # what it prints, where `...` stands for any text; None if the page doesn't say


def examples(page: Path) -> list[Example]:
    """Return the code blocks of a page in their order, without those that are another one's output."""
    found, heading = [], ""
    for place in PLACES.finditer(page.read_text("utf-8")):
        if place["heading"] is not None:
            heading = place["heading"]
        else:
            found.append(Example(heading, place["language"], place["code"], place["output"]))
    return found


def alike(pattern: str, text: str) -> bool:
    """Whether `text` is what `pattern` says, where each `...` stands for any text, also for none."""
    parts = [re.escape(part) for part in pattern.strip().split("...")]
    return re.fullmatch(".*".join(parts), text.strip(), re.S) is not None
