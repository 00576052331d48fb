"""The sheets to look at."""

import sys

import pytest
from PIL import Image

from embedded.scenes import sheets


@pytest.fixture
def run(icons, assets, monkeypatch, tmp_path):
    """Run the command with `--only` and this value; the folder that it writes to."""
    monkeypatch.setattr(sheets, "load_assets", lambda *_, **__: assets)

    def with_only(name):
        monkeypatch.setattr(sys, "argv", f"sheets {tmp_path} --icons {icons} --only {name} --size 208 160".split())
        sheets.main()
        return tmp_path

    return with_only


def test_a_sheet_shows_its_scenes_in_any_size_and_says_what_they_are(run):
    out = run("numbers")
    assert {file.name for file in out.iterdir()} == {"numbers.png", "numbers.txt"}
    assert Image.open(out / "numbers.png").size == (8 * 208, 3 * 160)
    lines = (out / "numbers.txt").read_text("utf-8").splitlines()
    assert len(lines) == 18
    assert lines[0].startswith("二匹の猫 | ")


def test_an_unknown_sheet_is_refused_with_the_names_of_all(run, capsys):
    with pytest.raises(SystemExit):
        run("cats")
    assert "random, styles, places, relations, colours, numbers, weathers" in capsys.readouterr().err
