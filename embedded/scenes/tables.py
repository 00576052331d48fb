"""Tables of words: a name, a tab, and its words, a line each."""

from pathlib import Path


def read(path: Path) -> dict[str, list[str]]:
    """The words of each name, in the file's order."""
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    return {name: words.split() for name, words in rows}
