"""deploy/space: what its README tells to copy is a page that runs, with the versions of the locks."""

from __future__ import annotations

import re
import shutil
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.demo.process import served
from tests.test_locks import HOST, REQUIRED, pins

ROOT = Path(__file__).resolve().parent.parent.parent
SPACE = ROOT / "deploy" / "space"
SERVER = ("cog", "httpx2", "prometheus-client")  # what only the container's server needs
HEADER = yaml.safe_load((SPACE / "README.md").read_text("utf-8").split("---\n")[1])


def test_the_versions_are_those_of_the_locks():
    wanted = pins((SPACE / "requirements.txt").read_text().splitlines())
    assert wanted == {name: version for name, version in REQUIRED.items() if name not in SERVER}
    assert (HEADER["sdk"], HEADER["sdk_version"]) == ("gradio", HOST["gradio"])
    assert HEADER["app_file"] == "app.py"


@pytest.fixture
def space(tmp_path, tiny_folder):
    """A Space made as the README says, but with the tiny model."""
    copied = re.search(r"^cp -R (.*) space$", (SPACE / "README.md").read_text("utf-8"), re.M)[1].split()
    assert "weights" in copied
    for name in copied:
        if name != "weights":
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            options = {"dirs_exist_ok": True} if copy is shutil.copytree else {}
            copy(ROOT / name, tmp_path if name.endswith("/.") else tmp_path / name, **options)
    shutil.copytree(tiny_folder, tmp_path / "weights" / "embedded")
    return tmp_path


@pytest.mark.slow
def test_the_space_serves_the_page_and_ends(space):
    with (
        served("app.py", cwd=space, GRADIO_SERVER_PORT="{port}", TMPDIR=str(space)) as address,
        urllib.request.urlopen(f"{address}/config", timeout=30) as answer,
    ):
        config = answer.read().decode()
    assert '"maximum":2,' in config.replace(" ", "")  # num_outputs, by app.py
    assert "field-prompt" in config
    assert "field-lora" not in config
    assert list(space.glob("jsd-demo-*")) == []  # no pictures are left behind
