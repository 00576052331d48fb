"""Real servers for the tests of this folder, started by `script/serve` and spoken to over HTTP.

They serve JSD_WEIGHTS, by default weights/embedded. A start takes many seconds, so tests share servers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jsd import images
from tests.alike import assert_same
from tests.server import Server, data, start_server

CAT = {"prompt": "猫の肖像画 油絵", "width": 256, "height": 256, "num_inference_steps": 4, "seed": 7}
SMALL = CAT | {"width": 128, "height": 128}  # takes a quarter of the time, but has no watermark


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """A function that returns a server with the given environment variables: `start(JSD_...=...)`.

    A server that runs already with the same variables is shared. All servers are stopped at the end of the session.
    """
    servers: dict[frozenset, Server] = {}

    def start(**environment: str) -> Server:
        key = frozenset(environment.items())
        if key not in servers or servers[key].process.poll() is not None:
            servers[key] = start_server(tmp_path_factory.mktemp("server") / "log", **environment)
        return servers[key]

    yield start
    for server in servers.values():
        server.stop()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    """The server without settings of its own, which most tests share. Its setup has succeeded."""
    server = start()
    assert server.status() == "READY", server.health()
    return server


@pytest.fixture
def tiny_server(start: Callable[..., Server], tiny_folder: Path) -> Server:
    """The shared server with a model that draws a picture in milliseconds, and 500 steps in seconds."""
    server = start(JSD_WEIGHTS=str(tiny_folder))
    assert server.status() == "READY", server.health()
    return server


@pytest.fixture(scope="session")
def cat(start: Callable[..., Server]) -> Image.Image:
    """The picture that the shared server draws for the inputs in `CAT`."""
    return start().draw(**CAT)[0]


@pytest.fixture(scope="session")
def small(start: Callable[..., Server]) -> Image.Image:
    """The picture that the shared server draws for the inputs in `SMALL`."""
    return start().draw(**SMALL)[0]


@pytest.fixture
def still_serving(server: Server, small: Image.Image) -> Iterator[None]:
    """Check after the test that the shared server is ready, and still draws the same picture for `SMALL`."""
    yield
    assert server.status() == "READY"
    assert_same(server.draw(**SMALL)[0], small)


def metadata_of(prediction: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """Read the metadata (prompt, seed ...) from the file of one picture of a prediction."""
    return images.read_metadata(io.BytesIO(data(prediction["output"][index])))
