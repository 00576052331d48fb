"""The two READMEs agree, and everything they refer to exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from jsd.request import Request

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, JAPANESE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.ja.md"))


def code(text: str) -> list[str]:
    """The code blocks of a Markdown file."""
    return re.findall(r"^```\w+\n(.*?)^```", text, re.S | re.M)


def test_both_readmes_have_the_same_code():
    assert code(ENGLISH) == code(JAPANESE)


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE])
def test_every_link_has_a_target(text):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert len(links) > 10
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link  # without a path this is the root
        if anchor and not path:
            headings = [
                re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
                for title in re.findall(r"^#+ (.*)$", text, re.M)
            ]
            assert anchor in headings, link


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
