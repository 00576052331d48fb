"""`script/predict`, the first command a new user runs."""

import os
import subprocess

import numpy as np
from PIL import Image, ImageDraw

from jsd import images, model, sampling
from jsd.request import Request
from tests.server import ROOT, WEIGHTS


def run(*arguments: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "script" / "predict", *arguments],
        cwd=cwd,
        env=os.environ | {"JSD_WEIGHTS": WEIGHTS},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_script_predict_writes_the_picture_into_the_current_folder(tmp_path):
    done = run(
        "-i", "prompt=猫の肖像画 油絵", "-i", "seed=1", "-i", "num_inference_steps=4", "-o", "out.png", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert images.read_metadata(tmp_path / "out.png")["prompt"] == "猫の肖像画 油絵"
    assert "out.png: seed 1" in done.stdout


def test_script_predict_repaints_only_the_white_part_of_a_mask(tmp_path):
    """The rest is the picture itself, but for the watermark."""
    components = model.load(WEIGHTS)
    width = components.defaults.width
    photo = sampling.generate(components, Request("青い背景の城", seed=1)).images[0]
    photo.save(tmp_path / "in.png")
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((width * 0.3, width * 0.2, width * 0.7, width * 0.9), fill=255)
    mask.save(tmp_path / "mask.png")
    inputs = ["prompt=猫", "seed=2", "image=@in.png", "mask=@mask.png", "prompt_strength=1"]
    done = run(*(word for value in inputs for word in ("-i", value)), "-o", "out.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    painted = Image.open(tmp_path / "out.png")
    black = np.asarray(mask) == 0
    error = np.asarray(painted, float) - np.asarray(photo, float)
    assert 10 * np.log10(255**2 / np.mean(error[black] ** 2)) >= 35
    assert 10 * np.log10(255**2 / np.mean(error[~black] ** 2)) < 25


def test_script_predict_refuses_a_bad_input_with_exit_code_2(tmp_path):
    done = run("-i", "prompt=猫", "-i", "num_inference_steps=999", cwd=tmp_path)
    assert done.returncode == 2
    assert "num_inference_steps: 999 was given; 1 to 500 are allowed" in done.stderr
    assert list(tmp_path.iterdir()) == []
