"""Drawing with an adapter on the page, in a real browser, with the tiny model."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from PIL import Image

from jsd import cli, images
from tests.adapters import adapter

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_an_adapter_is_drawn_with_and_the_command_says_so(visit, components, tiny_folder, tmp_path, monkeypatch):
    visitor, file = visit(), tmp_path / "うちの 猫(1).safetensors"
    file.write_bytes(adapter(components))
    visitor.upload(file, "lora")
    visitor.draw(prompt="猫", num_inference_steps=2, seed=1, lora_scale=0.8)
    shown = visitor.download("PNG", tmp_path)
    assert images.read_metadata(shown)["lora_scale"] == 0.8
    with_lora = np.array(Image.open(shown))
    visitor.find("summary").click()
    command = visitor.find("pre").first.text_content()

    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", *shlex.split(command)[1:]]) == 0
    assert np.array_equal(with_lora, Image.open("out.png"))

    visitor.remove("lora")
    visitor.draw(lora_scale=1)
    assert "lora" not in images.read_metadata(visitor.download("PNG", tmp_path))
