"""The commands work from any folder: no folder or file there is taken for one of ours or of Python's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [path for path in (ROOT / "script").iterdir() if path.is_file()]
BASH = {path.name for path in SCRIPTS if path.read_bytes().startswith(b"#!/usr/bin/env bash")}
FOLDERS = ("jsd", "embedded", "bench", "serving", "demo", "tests")
FILES = ("random", "argparse", "json", "PIL", "numpy", "torch", "predict", "sitecustomize")
# bootstrap and lock run a Python of their own and fetch packages.
# What stands for Python: it prints its folder and its arguments, a line each, and the settings that it was given.
ECHO = """#!/usr/bin/env bash
printf '%s\\n' "$PWD" "$@" "path=${PYTHONPATH:-}" "weights=${JSD_WEIGHTS:-}" "lora=${JSD_LORA:-}"
"""


@pytest.fixture
def caller(tmp_path):
    """A folder with packages and modules that end Python when they are imported, and with a picture."""
    folder = tmp_path / "caller"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    for path in (*(f"{name}/__init__.py" for name in FOLDERS), *(f"{name}.py" for name in FILES)):
        (folder / path).write_text(f"raise SystemExit('the {path} of the caller was imported')\n")
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    return folder


@pytest.fixture
def project(tmp_path):
    """A copy of script/ in a project whose Python is ECHO. Nothing has to be installed there."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "script", folder / "script")
    (folder / ".venv" / "bin").mkdir(parents=True)
    for file in (folder / "script" / "bootstrap", *(folder / ".venv" / "bin" / name for name in ("python", "ruff"))):
        file.write_text(ECHO)
        file.chmod(0o755)
    (folder / "script" / "bootstrap").write_text("#!/bin/sh\n")
    return folder


def run(command, cwd, **environment):
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | environment
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", sorted(BASH - {"bootstrap", "lock"}))
def test_every_script_runs_python_where_no_file_of_the_caller_is_imported(name, caller, project):
    """Python looks for modules in its current folder. With -P it does not."""
    decoy = caller / "decoy" / "project" / "script"  # where `cd project/script` would lead with this CDPATH
    decoy.mkdir(parents=True)
    done = run(
        ["project/script/" + name], caller.parent, CDPATH=str(caller / "decoy"), PYTHONPATH="caller", JSD_LORA="a"
    )
    assert done.returncode == 0, done.stderr
    folder, first = done.stdout.splitlines()[:2]
    safe = first == "-P" and f"path={project}" in done.stdout.splitlines()
    assert safe or folder == str(project)


@pytest.mark.parametrize("name", sorted(BASH - {"bootstrap", "lock"}))
def test_a_link_to_a_script_runs_it(name, caller, project):
    (caller / "linked").symlink_to(project / "script" / name)
    done = run(["./linked"], caller)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{project}\n") or f"path={project}" in done.stdout


def test_a_server_takes_relative_paths_from_where_it_was_called(caller, project):
    done = run([project / "script" / "serve"], caller, JSD_WEIGHTS="mine", JSD_LORA="../a.safetensors")
    assert f"weights={caller}/mine\nlora={caller}/../a.safetensors\n" in done.stdout
    done = run([project / "script" / "serve"], caller, JSD_WEIGHTS="/mine", JSD_LORA="")
    assert "weights=/mine\nlora=\n" in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["script/predict", "-i", "image=@small.png", "-i", "steps=999"], 2, ": 999 was given"),
        (["script/bench", "--help"], 0, "usage: script/bench"),
        (["script/healthcheck", "--help"], 0, "usage: script/healthcheck"),
        ([sys.executable, "script/schema.py", "schema.json"], 0, ""),
    ],
)
def test_a_script_runs_in_a_folder_full_of_names_like_its_own(command, code, text, caller):
    place = 1 if command[0] == sys.executable else 0
    command[place] = os.path.relpath(ROOT / command[place], caller)
    done = run(command, caller)
    assert done.returncode == code, done.stderr
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["package", "folder"])
def test_the_command_line_runs_with_p_beside_another_jsd(kind, caller):
    if kind == "folder":
        (caller / "jsd" / "__init__.py").unlink()
    done = run([sys.executable, "-P", "-m", "jsd", "generate", "--help"], caller, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr


def test_the_command_line_imports_no_module_of_the_callers_folder(caller):
    """Only another jsd, and a module that Python itself needs to begin, can't be passed over."""
    shutil.rmtree(caller / "jsd")
    for name in ("argparse", "json", "sitecustomize"):
        (caller / f"{name}.py").rename(caller / f"{name}.txt")
    command = [sys.executable, "-m", "jsd", "generate", "-i", "image=@small.png", "-i", "steps=999"]
    done = run(command, caller, PYTHONPATH=str(ROOT))
    assert ": 999 was given" in done.stderr
