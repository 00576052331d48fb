"""The page as script/demo starts it, with the model of the repository."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.demo.process import served
from tests.demo.screenshots import ROOT, take_desk

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_an_example_is_drawn_and_the_screenshot_of_the_readme_has_its_size(browser, tmp_path):
    with served("-m", "demo", "--port", "{port}", cwd=ROOT, JSD_DEVICE="cpu") as address:
        take_desk(address, browser, tmp_path / "demo.webp")
    with Image.open(tmp_path / "demo.webp") as image, Image.open(ROOT / "docs" / "demo.webp") as kept:
        assert image.size == kept.size
