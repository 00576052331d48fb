"""The documents in Japanese: what they refer to exists, and no line break falls inside a paragraph."""

import re
from itertools import pairwise

import pytest

from jsd import cli
from tests.server import ROOT

DOCS = sorted(ROOT.glob("docs/ja/*.md"))
ENGLISH = [
    path.read_text("utf-8") for path in (ROOT / "README.md", ROOT / "weights" / "README.md", *ROOT.glob("docs/*.md"))
]
ALL = [ROOT / "README.ja.md", ROOT / "weights" / "README.ja.md", *DOCS]
BLOCK = re.compile(r"^```\w*\n(.*?)^```\n?", re.S | re.M)
NOT_TEXT = re.compile(r"\s*$|#|\||```|<|- |\* |\d+\. |!\[.*\]\(.*\)$|---$")  # how lines other than a paragraph's begin


def by_path(files):
    return pytest.mark.parametrize("file", files, ids=lambda file: str(file.relative_to(ROOT)))


def commands(text: str) -> list[str]:
    """The commands of the shell blocks of a Markdown file, each on one line, without comments."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M))
    lines = re.sub(r"(^|\s)#.*$", "", blocks.replace("\\\n", ""), flags=re.M).splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def broken(text: str) -> list[str]:
    """The lines of a Markdown file that continue a paragraph or an item of a list."""
    lines = BLOCK.sub("\n", text).splitlines()
    return [
        line
        for before, line in pairwise(lines)
        if not NOT_TEXT.match(line) and not re.match(r"\s*$|#|\||<|---$", before)
    ]


def test_a_line_break_inside_a_paragraph_is_found():
    text = "# 題\n本文です。\n\n- 項目が\n  続く\n- 項目\n\n本文が\n続く。\n```sh\na\nb\n```\n本文\n\n| 表 |\n|---|\n"
    assert broken(text) == ["  続く", "続く。"]


@by_path(ALL)
def test_no_line_break_falls_inside_a_paragraph(file):
    assert broken(file.read_text("utf-8")) == []


@by_path(ALL)
def test_every_link_has_a_target(file):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text("utf-8")) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@by_path(DOCS)
def test_every_command_stands_in_the_english_documents_too(file):
    known = {command for text in ENGLISH for command in commands(text)}
    assert [command for command in commands(file.read_text("utf-8")) if command not in known] == []


@by_path(ALL)
def test_every_option_and_every_figure_stands_in_the_english_documents_too(file):
    pattern = r"(?<![\w-])--[a-z][\w-]+|\d*(?:\.\d+)+%?|\d+%"
    known = {word for text in ENGLISH for word in re.findall(pattern, text)}
    assert [word for word in re.findall(pattern, file.read_text("utf-8")) if word not in known] == []


@by_path(ALL)
def test_every_script_exists(file):
    scripts = set(re.findall(r"\b(?:script|deploy)/[a-z.-]+\b", file.read_text("utf-8")))
    assert [script for script in scripts if not (ROOT / script).exists()] == []


@by_path(ALL)
def test_every_command_has_its_options(file, capsys):
    """Each command of `python -m jsd`, and of the scripts that stand for one."""
    text = BLOCK.sub("", file.read_text("utf-8")) + "\n".join(commands(file.read_text("utf-8")))
    text = text.replace("script/train-embedded", "-m jsd train embedded").replace("script/predict", "-m jsd generate")
    for command, rest in re.findall(r"-m jsd ((?:train |weights )?[a-z-]+)([^`\n]*)", text):
        with pytest.raises(SystemExit) as caught:
            cli.main([*command.split(), "--help"])
        known = capsys.readouterr().out
        assert caught.value.code == 0, command
        assert [option for option in re.findall(r"(?<= )--?[a-z][a-z-]*", rest) if option not in known] == [], command


@by_path(ALL)
def test_every_setting_is_read_somewhere(file):
    sources = "".join(path.read_text("utf-8") for folder in ("jsd", "demo") for path in ROOT.glob(f"{folder}/**/*.py"))
    settings = set(re.findall(r"\bJSD_[A-Z_]+\b", file.read_text("utf-8")))
    assert [setting for setting in settings if f'"{setting}"' not in sources] == []
