"""The two READMEs agree, and so do the guides to prompts; everything they refer to exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from jsd.request import Request

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.ja.md")
GUIDES = ("docs/prompts.md", "docs/ja/prompts.md")
ENGLISH, JAPANESE = ((ROOT / name).read_text("utf-8") for name in READMES)


def code(text: str) -> list[str]:
    """The code blocks of a Markdown file."""
    return re.findall(r"^```\w+\n(.*?)^```", text, re.S | re.M)


def anchors(text: str) -> list[str]:
    """The anchors that GitHub gives the headings of a Markdown file."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("names", [READMES, GUIDES])
def test_both_languages_have_the_same_code(names):
    english, japanese = (code((ROOT / name).read_text("utf-8")) for name in names)
    assert english == japanese != []


@pytest.mark.parametrize("name", [*READMES, *GUIDES])
def test_every_link_has_a_target(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text("utf-8"))
    links = [link for link in map("".join, links) if "://" not in link]
    assert len(links) > 5
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize(("prompts", "names"), [("docs/grid.txt", READMES), ("docs/prompts.txt", (*READMES, *GUIDES))])
def test_the_prompts_of_the_pictures_stand_below_them(prompts, names):
    for name in names:
        text = " ".join((ROOT / name).read_text("utf-8").split())
        assert [p for p in (ROOT / prompts).read_text("utf-8").splitlines() if p not in text] == []


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE])
def test_every_input_is_listed(text):
    listed = re.findall(r"^\| ([a-z_, 、または or]+?) \|", text, re.M)
    names = {name for cell in listed for name in re.findall(r"[a-z_]+", cell)}
    assert {field.name for field in fields(Request)} - {"guidance_interval"} <= names


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE])
def test_every_setting_is_listed(text):
    sources = "".join(file.read_text("utf-8") for file in ROOT.glob("jsd/*.py"))
    read = set(re.findall(r"\"(JSD_[A-Z_]+)\"", sources))
    assert "JSD_DEVICE" in read
    assert read - {"JSD_BUILT_FOR"} == set(re.findall(r"^\| `(JSD_[A-Z_]+)` \|", text, re.M))  # that one is cog.yaml's


def test_every_script_in_the_readme_exists():
    scripts = set(re.findall(r"\bscript/[a-z-]+", ENGLISH))
    assert {"script/predict", "script/test", "script/serve", "script/soak"} <= scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
