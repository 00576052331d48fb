"""A real server on a free port, spoken to over HTTP: `start_server`, by default with `script/serve`."""

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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = os.environ.get("JSD_WEIGHTS") or str(ROOT / "weights" / "embedded")
SECONDS = 300  # longer than a start or an answer takes
BUSY_SECONDS = 30  # how long `Server.ask` repeats a request that is answered with 409


def start_server(
    log_file: Path, command: Sequence[str | Path] | None = None, cwd: Path | None = None, **environment: str
) -> Server:
    """Start a server on a free port, and wait until its setup has ended, well or not. The caller has to stop it.

    By default this is `script/serve` with the weights in JSD_WEIGHTS, or weights/embedded. Another `command` has to
    listen on the port in the environment variable PORT. Raises RuntimeError if the process ends during setup.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = command or [ROOT / "script" / "serve", "--port", port]
    environment = os.environ | {"JSD_WEIGHTS": WEIGHTS, "PORT": port} | environment
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, log_file)
    try:
        server.wait("the end of setup", lambda: server.status() != "STARTING")
    except BaseException:
        server.stop()
        raise
    return server


@dataclass
class Server:
    """A running server: its address, its process, and the file its log goes to."""

    url: str
    process: subprocess.Popen
    log_file: Path

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Make one HTTP call, and return the status code and the answer, as parsed JSON or as text.

        `body` is sent as JSON, but bytes are sent as they are.
        """
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, method=method)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                code, answer = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            code, answer = error.code, error.read().decode()
        try:
            return code, json.loads(answer)
        except ValueError:
            return code, answer

    def ask(self, inputs: dict[str, Any], identifier: str | None = None) -> dict[str, Any]:
        """Ask for a prediction, under an id if one is given, and return it. Its `status` tells whether it failed.

        Cog answers 409 when every slot is busy. It also does so with slots free when two requests ask for one at the
        same moment (coglet 0.23, `PermitPool::try_acquire`). Then this asks again. Raises RuntimeError if the request
        is refused.
        """
        where = ("POST", "/predictions") if identifier is None else ("PUT", f"/predictions/{identifier}")
        end = time.monotonic() + BUSY_SECONDS
        while True:
            code, prediction = self.call(*where, {"input": inputs})
            if code == 200:
                return prediction
            if code != 409 or time.monotonic() > end:
                raise RuntimeError(f"the server answered {code}: {prediction}")
            time.sleep(0.01)

    def predict(self, **inputs: Any) -> dict[str, Any]:
        """Ask for a prediction, as `ask` does."""
        return self.ask(inputs)

    def draw(self, **inputs: Any) -> list[Image.Image]:
        """Ask for a prediction, and return its pictures. Raises RuntimeError if it does not succeed."""
        prediction = self.ask(inputs)
        if prediction["status"] != "succeeded":
            raise RuntimeError(f"the prediction has {prediction['status']}: {prediction.get('error')}")
        return [picture(uri) for uri in prediction["output"]]

    def begin(self, **inputs: Any) -> Running:
        """Begin a prediction in the background, under a new id."""
        return Running(self, f"test-{uuid.uuid4()}", inputs)

    def health(self) -> dict[str, Any]:
        return self.call("GET", "/health-check")[1]

    def status(self) -> str:
        """The status in the health check. It is STARTING while the server does not listen yet."""
        try:
            return self.health()["status"]
        except OSError:
            return "STARTING"

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait(self, what: str, true: Callable[[], Any], seconds: float = SECONDS) -> None:
        """Wait until `true()`. Raises RuntimeError with the log if it takes too long or the server ends."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"{what}: not seen; the server's log:\n{self.log()[-5000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server, by force after 30 seconds."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Running:
    """A prediction that runs in the background."""

    def __init__(self, server: Server, identifier: str, inputs: dict[str, Any]):
        self.server, self.identifier = server, identifier
        thread = ThreadPoolExecutor(1)
        self._answer = thread.submit(server.ask, inputs, identifier)
        thread.shutdown(wait=False)

    @property
    def ended(self) -> bool:
        return self._answer.done()

    def wait_for(self, text: str) -> None:
        """Wait until this prediction logs `text`."""
        self.server.wait(
            text, lambda: any(self.identifier in line and text in line for line in self.server.log().splitlines())
        )

    def cancel(self) -> int:
        """Cancel the prediction. Returns the status code: 200, or 404 if the server does not know it (any more)."""
        return self.server.call("POST", f"/predictions/{self.identifier}/cancel")[0]

    def result(self) -> dict[str, Any]:
        """Wait for the answer. Raises the errors of `Server.ask`."""
        return self._answer.result(SECONDS)


def picture(uri: str) -> Image.Image:
    """The picture in a data URI, decoded whole."""
    image = Image.open(io.BytesIO(data(uri)))
    image.load()
    return image


def data(uri: str) -> bytes:
    """The bytes in a data URI."""
    return base64.b64decode(uri.partition(";base64,")[2], validate=True)


def as_uri(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    """A picture as a data URI, in a file format of Pillow's."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return to_uri(file.getvalue())


def to_uri(data: bytes) -> str:
    """Bytes as a data URI. Its type is image/png, whatever the bytes are."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
