"""Every notebook runs from its first cell to its last, with the embedded model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import psnr

ROOT = Path(__file__).resolve().parent.parent


def run(name, monkeypatch):
    """Execute the code cells in order, without Colab's shell commands. Returns the variables."""
    monkeypatch.chdir(ROOT)
    book = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))
    variables: dict = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            source = re.sub(r"^(\s*)[!%].*$", r"\1pass", "".join(cell["source"]), flags=re.M)
            exec(compile(source, f"{name}.ipynb", "exec"), variables)
    return variables


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))])
def test_a_notebook_runs(name, monkeypatch):
    variables = run(name, monkeypatch)
    image = variables["image"]
    assert image.size == (256, 256)
    assert np.asarray(image).std() > 10
    if name == "txt2img":
        assert len(variables["images"]) == len(variables["prompts"])
    else:
        assert psnr(image, variables["start"]) < 30
    if name == "inpainting":  # far from the mask the picture is kept, but for the autoencoder and the watermark
        kept = (192, 0, 256, 256)
        assert psnr(image.crop(kept), variables["start"].crop(kept)) > psnr(image, variables["start"]) + 3


def test_there_is_a_notebook_for_each_way_to_draw():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {"txt2img", "img2img", "inpainting"}
