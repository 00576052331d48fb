"""Fixtures for all tests: a tiny model folder, made once per session, its loaded components, a photo and a mask."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from jsd.model import Components, load
from tests.fakes import CELL, SpyUNet, make_tiny_folder

os.environ["JSD_LANG"] = "en"  # whatever the locale of the developer is


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model folder with random weights. All tests share it: one that changes files takes `tiny_copy`."""
    return make_tiny_folder(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def tiny_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model folder, which the test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def components(tiny_folder: Path) -> Components:
    """The tiny model, loaded on the CPU in float32."""
    return load(tiny_folder)


@pytest.fixture
def spied(components: Components) -> Components:
    """The loaded tiny model with a `SpyUNet` in place of its UNet."""
    return replace(components, unet=SpyUNet(components.unet))


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A smooth and coloured picture of 80 x 64 pixels, made from random numbers."""
    cells = np.random.default_rng(3).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(cells).resize((80, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def mask() -> Image.Image:
    """A mask for `photo`: its left 32 columns of pixels are black (kept), the other 48 are white (repainted).

    The edge between them is also an edge of latent positions, which cover 16 x 16 pixels.
    """
    image = Image.new("L", (80, 64))
    image.paste(255, (2 * CELL, 0, 80, 64))
    return image


@pytest.fixture(scope="session")
def schema() -> ModuleType:
    """The module script/schema.py, which is in no package."""
    file = Path(__file__).resolve().parent.parent / "script" / "schema.py"
    spec = importlib.util.spec_from_file_location("schema", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
