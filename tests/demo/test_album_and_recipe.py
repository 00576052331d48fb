"""The files of a result, and the command and the HTTP request below it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from demo.album import Album
from demo.recipe import command, http_request, inputs_of
from jsd import sampling
from jsd.request import Request

GIVEN = {"prompt": 'it\'s "猫" $HOME `id` \\n', "negative_prompt": "白黒", "num_inference_steps": 2}
# Stands for a program: it saves its arguments and its input.
RECORD = """#!/bin/sh
printf '%s\\0' "$@" > arguments
cat > input
"""


def run_in_shell(words: str, folder: Path, program: str) -> tuple[list[str], str]:
    """Run a command in which `program` only records. Returns its arguments and its input."""
    path = folder / program
    path.parent.mkdir(exist_ok=True)
    path.write_text(RECORD)
    path.chmod(0o755)
    subprocess.run(["bash", "-c", f"PATH={folder}:$PATH; {words}"], cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return (folder / "arguments").read_text().split("\0")[:-1], (folder / "input").read_text()


@pytest.fixture
def result(components, photo, mask):
    return sampling.generate(components, Request(**GIVEN, image=photo, mask=mask, seed=7))


def test_the_command_says_the_inputs_to_a_shell(tmp_path, result):
    arguments, _ = run_in_shell(command(inputs_of(result, GIVEN)), tmp_path, "script/predict")
    size = (f"width={result.request.width}", f"height={result.request.height}")
    given = [f"{name}={value}" for name, value in GIVEN.items()]
    assert arguments[1::2] == [*given, "seed=7", *size, "image=@picture.png", "mask=@mask.png", "out.png"]
    assert set(arguments[::2]) == {"-i", "-o"}


def test_the_http_request_holds_the_inputs(tmp_path, result):
    folder = Album(tmp_path).add(result)
    _, body = run_in_shell(http_request(inputs_of(result, GIVEN)), folder, "curl")
    inputs = json.loads(body)["input"]
    for name, file in (("image", "picture.png"), ("mask", "mask.png")):
        kind, _, data = inputs.pop(name).partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == (folder / file).read_bytes()
    assert inputs == GIVEN | {"seed": 7, "width": result.request.width, "height": result.request.height}


def test_an_adapter_is_a_file_in_both(tmp_path, components):
    result = sampling.generate(components, Request(**GIVEN, seed=7))
    inputs = inputs_of(result, {**GIVEN, "lora": "it's my cat.safetensors", "lora_scale": 0.8})
    (tmp_path / inputs["lora"]).write_bytes(b"adapter")
    arguments, _ = run_in_shell(command(inputs), tmp_path, "script/predict")
    assert arguments[1::2][-4:] == ["lora=@it's my cat.safetensors", "lora_scale=0.8", "seed=7", "out.png"]
    _, body = run_in_shell(http_request(inputs), tmp_path, "curl")
    uri = "data:application/octet-stream;base64," + base64.b64encode(b"adapter").decode()
    assert json.loads(body)["input"] == {**GIVEN, "lora_scale": 0.8, "seed": 7, "lora": uri}


def test_the_http_request_without_a_picture(tmp_path, components):
    result = sampling.generate(components, Request(**GIVEN))
    arguments, _ = run_in_shell(http_request(inputs_of(result, GIVEN)), tmp_path, "curl")
    assert json.loads(arguments[-1]) == {"input": GIVEN | {"seed": result.request.seed}}


def test_old_pictures_are_removed(tmp_path, result):
    album = Album(tmp_path, most=2)
    folders = [album.add(result) for _ in range(3)]
    assert [folder.exists() for folder in folders] == [False, True, True]
    album.seconds = 0
    album.add(result)
    assert not folders[2].exists()
