"""The guides to prompts name every style, place and colour that the embedded model has learnt."""

from pathlib import Path

import pytest

from embedded.scenes import COLOURS, PLACES, STYLES, THING_COLOURS
from embedded.scenes.words.language import JAPANESE

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PAGES = ("README.md", "README.ja.md", "docs/prompts.md", "docs/ja/prompts.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_word_is_in_a_table(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    table = "\n".join(line for line in lines if line.startswith("|"))
    words = [JAPANESE.styles[style].words[0] for style in STYLES if style != "plain"]
    words += [JAPANESE.places[place][0] for place in PLACES]
    words += [JAPANESE.colours[colour][0].rstrip("いの") for colour in (*COLOURS, *THING_COLOURS)]
    assert len(words) > 40
    assert [word for word in words if word not in table] == []
