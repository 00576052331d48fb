"""script/bootstrap installs what locks/host.txt pins, once, and again when a file that it goes by has changed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server import ROOT

RECORD = """#!/usr/bin/env bash
echo "$*" >>asked
[ ! -e fails ] || [ "$3" != install ]
"""
INSTALL = "-m pip install --quiet --disable-pip-version-check --constraint locks/host.txt --editable"


@pytest.fixture
def bootstrap(tmp_path: Path) -> Callable[..., list[str]]:
    """A function that runs script/bootstrap where Python only writes down its arguments. Returns what is installed."""
    for name in ("script/bootstrap", "requirements.txt", "pyproject.toml", "locks/host.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORD)
    python.chmod(0o755)

    def run(*extras: str) -> list[str]:
        (tmp_path / "asked").write_text("")
        subprocess.run([tmp_path / "script" / "bootstrap", *extras], capture_output=True)
        return [line for line in (tmp_path / "asked").read_text().splitlines() if " install " in line]

    return run


def test_the_extras_are_installed_in_the_locked_versions_and_only_once(bootstrap):
    assert bootstrap("train", "eval") == [f"{INSTALL} .[train,eval]"]
    assert bootstrap("train", "eval") == []
    assert bootstrap() == []  # they hold what serving needs
    assert bootstrap("dev") == [f"{INSTALL} .[dev]"]


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml", "locks/host.txt"])
def test_a_change_is_installed(bootstrap, tmp_path, name):
    assert bootstrap() == [f"{INSTALL} ."]
    with (tmp_path / name).open("a") as file:
        file.write("# changed\n")
    assert bootstrap() == [f"{INSTALL} ."]


def test_what_was_interrupted_is_taken_up_again(bootstrap, tmp_path):
    (tmp_path / "fails").touch()
    assert bootstrap() == [f"{INSTALL} ."]
    (tmp_path / "fails").unlink()
    assert bootstrap() == [f"{INSTALL} ."]
