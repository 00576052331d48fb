"""A page with the tiny model on a free port, and a browser to visit it. Without Chromium its tests are skipped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jsd.engine import Engine
from jsd.model import load
from tests.demo.visitor import CHROMIUM, SIZE, Visitor, chromium
from tests.fakes import SpyUNet


@pytest.fixture(scope="module")  # playwright keeps an event loop, beside which asyncio.run fails
def browser():
    if not CHROMIUM:
        pytest.skip("Chromium is not here; on Debian: apt-get install chromium")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def engine(tiny_folder):
    """An engine whose UNet is a `SpyUNet`. Its model is loaded for it alone, because adapters change the weights."""
    components = load(tiny_folder)
    with Engine(replace(components, unet=SpyUNet(components.unet)), max_batch_rows=8) as engine:
        yield engine


@pytest.fixture(scope="package")
def address(engine, tmp_path_factory):
    """The address of a page that draws at most 4 pictures a request."""
    from demo.album import Album
    from demo.limits import Limits
    from demo.page import Page

    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        page = Page(engine, Limits(outputs=4), Album(folder / "album"))
        yield page.launch("127.0.0.1", None)
        page.close()


@pytest.fixture
def visit(browser, address):
    """A function that opens the page in a new window and returns the `Visitor` in front of it."""
    contexts = []

    def visit(language: str = "ja-JP", width: int = 1200, height: int = 900) -> Visitor:
        contexts.append(browser.new_context(locale=language, viewport={"width": width, "height": height}))
        return Visitor(contexts[-1].new_page(), address)

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def picture(tmp_path, photo):
    """The file of a picture of the tiny model's own size."""
    file = tmp_path / "photo.png"
    photo.resize((SIZE, SIZE)).save(file)
    return file
