"""The real server: `script/serve` on a free port, spoken to over HTTP.

It serves JSD_WEIGHTS, by default weights/embedded.
"""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jsd import images

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = os.environ.get("JSD_WEIGHTS") or str(ROOT / "weights" / "embedded")
START_SECONDS = 300  # a slow machine imports torch and diffusers


@dataclass
class Server:
    """A running `script/serve`: its address, its process, and the file its log goes to."""

    url: str
    process: subprocess.Popen
    log_file: Path

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One HTTP call: (status code, parsed JSON or text). `body` is JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
                code, answer = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            code, answer = error.code, error.read().decode()
        try:
            return code, json.loads(answer)
        except ValueError:
            return code, answer

    def ask(self, inputs: dict[str, Any], identifier: str | None = None) -> dict[str, Any]:
        """A prediction that has to be taken (HTTP 200); it may have failed: read its `status`.

        Cog answers 409 when every slot is busy, and also, with slots free, when two requests ask for one at the very
        same moment (coglet 0.23, `PermitPool::try_acquire`). A client is meant to ask again, and so does this one.
        """
        where = ("POST", "/predictions") if identifier is None else ("PUT", f"/predictions/{identifier}")
        for _ in range(20):
            code, prediction = self.call(*where, {"input": inputs})
            if code != 409:
                break
            time.sleep(0.25)
        assert code == 200, prediction
        return prediction

    def predict(self, **inputs: Any) -> dict[str, Any]:
        """See `ask`."""
        return self.ask(inputs)

    def draw(self, **inputs: Any) -> list[Image.Image]:
        """A prediction that has to succeed: its pictures."""
        prediction = self.predict(**inputs)
        assert prediction["status"] == "succeeded", prediction["error"]
        return [picture(uri) for uri in prediction["output"]]

    def begin(self, **inputs: Any) -> Running:
        """A prediction in the background, under an id of its own."""
        return Running(self, f"test-{uuid.uuid4()}", inputs)

    def health(self) -> dict[str, Any]:
        return self.call("GET", "/health-check")[1]

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def wait(self, what: str, true: Callable[[], Any], seconds: float = START_SECONDS) -> None:
        """Wait until `true()`; fail with the log if it takes too long or the server ends."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end or self.process.poll() is not None:
                pytest.fail(f"{what}: not seen; the server's log:\n{self.log()[-5000:]}")
            time.sleep(0.05)

    def status(self) -> str:
        try:
            return self.health()["status"]
        except OSError:  # not listening yet
            return "STARTING"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Running:
    """A prediction whose answer is still to come."""

    def __init__(self, server: Server, identifier: str, inputs: dict[str, Any]):
        self.server, self.identifier = server, identifier
        self._thread = ThreadPoolExecutor(1)
        self._answer = self._thread.submit(server.ask, inputs, identifier)
        self._thread.shutdown(wait=False)

    def wait_for(self, text: str) -> None:
        """Wait until this prediction logs `text`."""
        self.server.wait(
            text, lambda: any(self.identifier in line and text in line for line in self.server.log().splitlines())
        )

    def cancel(self) -> int:
        """Ask for its end; the status code: 200, or 404 when it has ended already."""
        return self.server.call("POST", f"/predictions/{self.identifier}/cancel")[0]

    def result(self) -> dict[str, Any]:
        return self._answer.result(START_SECONDS)


def picture(uri: str) -> Image.Image:
    """A data URI to a picture, decoded whole."""
    image = Image.open(io.BytesIO(data(uri)))
    image.load()
    return image


def data(uri: str) -> bytes:
    return base64.b64decode(uri.partition(";base64,")[2], validate=True)


def as_uri(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    """A picture to a data URI."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return to_uri(file.getvalue())


def to_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers, `start(JSD_...=...)`, and stops them all at the end."""
    servers = []

    def start(**environment: str) -> Server:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [ROOT / "script" / "serve", "--port", str(port)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"JSD_WEIGHTS": WEIGHTS} | environment,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        servers.append(server)
        server.wait("the end of setup", lambda: server.status() != "STARTING")
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(start: Callable[..., Server]) -> Server:
    """The server most tests share."""
    server = start()
    assert server.status() == "READY", server.health()
    return server


CAT = {"prompt": "猫の肖像画 油絵", "width": 256, "height": 256, "num_inference_steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def cat(server: Server) -> bytes:
    """The pixels of `CAT`."""
    return server.draw(**CAT)[0].tobytes()


@pytest.fixture
def still_serving(server: Server, cat: bytes) -> Iterator[None]:
    """After the test, the server is ready and draws what it drew before."""
    yield
    assert server.status() == "READY"
    assert server.draw(**CAT)[0].tobytes() == cat


def told(prediction: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """What a picture of a prediction's tells about itself."""
    return images.read_metadata(io.BytesIO(data(prediction["output"][index])))
