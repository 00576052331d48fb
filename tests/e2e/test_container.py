"""What goes into the container's image, by .dockerignore: what serving needs, one model, and nothing private."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import translate
from pathlib import Path, PurePosixPath

import pytest
import yaml

from tests.server import ROOT, start_server

COG = yaml.safe_load((ROOT / "cog.yaml").read_text())
LINES = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def in_image(path: str, lines: list[str] = LINES) -> bool:
    """Whether Docker sends a file or a folder. The last line that matches it, or a folder above it, decides."""
    places = [path, *map(str, PurePosixPath(path).parents)]
    sent = True
    for line in lines:
        # A star does not match a slash, except that **/ stands for any folders, or none.
        pattern = translate(line.lstrip("!").removeprefix("**/")).replace(".*", "[^/]*")
        pattern = "(.*/)?" + pattern if line.startswith("**/") else pattern
        if any(re.fullmatch(pattern, place) for place in places):
            sent = line.startswith("!")
    return sent


def left_out(folder: str, names: list[str]) -> list[str]:
    """Those of the names in a folder of this checkout that do not go into the image, for `shutil.copytree`."""
    return [name for name in names if not in_image(str((Path(folder) / name).relative_to(ROOT)))]


def test_a_server_of_the_image_draws_and_says_that_it_finds_no_gpu(tmp_path):
    """Only with the files, the environment and the command of the image, on a machine without a GPU."""
    image = tmp_path / "src"
    shutil.copytree(ROOT, image, ignore=left_out)
    environment = dict(line.split("=", 1) for line in COG["environment"])
    environment |= dict.fromkeys(["JSD_WEIGHTS", "JSD_DEVICE", "CUDA_VISIBLE_DEVICES"], "")
    environment["COG_PREDICT_TYPE_STUB"] = COG["predict"]
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the worker is the first python there
    command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
    subprocess.run([sys.executable, "script/schema.py"], cwd=image, check=True)  # as the compose file has it
    server = start_server(tmp_path / "log", command, image, **environment)
    try:
        assert server.status() == "READY"
        warning, _, rest = server.health()["setup"]["logs"].partition("this image was built for an NVIDIA GPU")
        assert warning.endswith("WARNING: ")
        assert f"weights {image / 'weights' / 'embedded'} (jsd-embedded), device cpu" in rest
        assert server.draw()[0].size == (256, 256)
        assert server.call("POST", "/predictions", {"input": {"width": 63}})[0] == 422
        health = subprocess.run(["script/healthcheck", "--port", server.url.rpartition(":")[2]], cwd=image)
        assert health.returncode == 0
    finally:
        server.stop()


@pytest.mark.parametrize("pattern", ["predict.py", "jsd/**/*.py", "serving/*.py", "weights/embedded/**/*", "LICENSE"])
def test_what_serving_needs_is_in_the_image(pattern):
    files = [str(file.relative_to(ROOT)) for file in ROOT.glob(pattern) if "__pycache__" not in file.parts]
    assert files
    assert [file for file in files if not in_image(file)] == []


@pytest.mark.parametrize("path", ["script/healthcheck", "script/schema.py", ".cog/tmp/build1/requirements.txt"])
def test_what_compose_and_cog_read_is_in_the_image(path):
    assert in_image(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/lib/x.so",
        "tests/conftest.py",
        "docs/operate.md",
        "notebooks/txt2img.ipynb",
        "runs/base/model.safetensors",
        "embedded/recipe.py",
        "bench/one.py",
        "deploy/compose.yaml",
        "out.png",
        "my-cat.safetensors",
        "script/train-embedded",
        "jsd/__pycache__/model.cpython-311.pyc",
        "weights/japanese-stable-diffusion/unet/diffusion_pytorch_model.safetensors",
        "weights/mine/MANIFEST.json",
    ],
)
def test_nothing_else_is_in_the_image(path):
    assert not in_image(path)


@pytest.mark.parametrize("folder", [".cog", "jsd", "serving", "script", "weights", "weights/embedded"])
def test_no_folder_is_hidden_in_which_something_is_sent(folder):
    """Cog does not look for weights in a folder that a line matches, whatever the later lines say of its contents."""
    assert in_image(folder)


def test_another_model_is_baked_in_by_one_more_line():
    line = "!weights/japanese-stable-diffusion"
    assert f"echo '{line}' >> .dockerignore" in (ROOT / "docs" / "operate.md").read_text("utf-8")
    assert in_image("weights/japanese-stable-diffusion/unet/x.safetensors", [*LINES, line])
    assert not in_image("weights/mine/MANIFEST.json", [*LINES, line])
