"""Start a real Cog server on a free port, by default with `script/serve`, and speak to it over HTTP."""

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
from collections.abc import Callable, Iterator, Sequence
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
    """Start a server on a free port, wait until its setup has succeeded or failed, and return it. The caller stops it.

    By default this is `script/serve` with the weights in JSD_WEIGHTS, or weights/embedded. Another `command` has to
    listen on the port in the environment variable PORT. `environment` are more such variables. The output goes to
    `log_file`. Raises RuntimeError if the process ends during setup, or if setup takes more than 300 seconds.
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
        """Make one HTTP call. Returns the status code and the answer's body, parsed if it is JSON, else as text.

        `body` is sent as JSON, except that bytes are sent as they are.
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
        """Request a prediction, under an id if one is given, and return Cog's answer when it has ended, failed or not.

        Cog answers 409 when every slot is busy. It also does so with slots free when two requests ask for one at the
        same moment (coglet 0.23, `PermitPool::try_acquire`). So a request that gets a 409 is repeated for 30 seconds.
        Raises RuntimeError if the request is still refused, or gets another code than 200.
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
        """Request a prediction with these inputs, and return Cog's answer, as `ask` does."""
        return self.ask(inputs)

    def draw(self, **inputs: Any) -> list[Image.Image]:
        """Request a prediction, and return its pictures. Raises RuntimeError if it does not succeed.

        Without a seed it is 1, because the safety checker holds back a few harmless pictures: no test depends on luck.
        """
        prediction = self.ask({"seed": 1} | inputs)
        if prediction["status"] != "succeeded":
            raise RuntimeError(f"the prediction has {prediction['status']}: {prediction.get('error')}")
        return [picture(uri) for uri in prediction["output"]]

    def begin(self, **inputs: Any) -> Running:
        """Request a prediction in the background, under a new id. Returns a `Running`, to wait for it or cancel it."""
        return Running(self, f"test-{uuid.uuid4()}", inputs)

    def health(self) -> dict[str, Any]:
        return self.call("GET", "/health-check")[1]

    def status(self) -> str:
        """Return the status in the health check, such as "READY", or "STARTING" if the server does not answer yet."""
        try:
            return self.health()["status"]
        except OSError:
            return "STARTING"

    @property
    def processes(self) -> list[int]:
        """The ids of the server's processes (Linux): with script/serve the supervisor, Cog's server, and its worker."""
        return list(_processes(self.process.pid))

    @property
    def restarts(self) -> int:
        """How often script/serve has started the server again."""
        return self.log().count("script/serve: the server has ended")

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait(self, what: str, true: Callable[[], Any], seconds: float = SECONDS) -> None:
        """Wait until the function `true` returns something true. Raises RuntimeError if that takes more than `seconds`.

        It also raises if the server ends. The error shows `what` was waited for, and the end of the log.
        """
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"{what}: not seen; the server's log:\n{self.log()[-5000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server's process with SIGTERM, or kill it after 30 seconds."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Running:
    """A prediction that a thread requests in the background. Use it to wait for the prediction, or to cancel it."""

    def __init__(self, server: Server, identifier: str, inputs: dict[str, Any]):
        self.server, self.identifier = server, identifier
        thread = ThreadPoolExecutor(1)
        self._answer = thread.submit(server.ask, inputs, identifier)
        thread.shutdown(wait=False)

    @property
    def ended(self) -> bool:
        return self._answer.done()

    def wait_for(self, text: str) -> None:
        """Wait until the server's log has a line with this prediction's id and `text`."""
        self.server.wait(
            text, lambda: any(self.identifier in line and text in line for line in self.server.log().splitlines())
        )

    def cancel(self) -> int:
        """Cancel the prediction. Returns the HTTP status: 200, or 404 if the server does not know it (any more)."""
        return self.server.call("POST", f"/predictions/{self.identifier}/cancel")[0]

    def result(self) -> dict[str, Any]:
        """Wait for the end of the prediction, and return Cog's answer. Raises the errors of `Server.ask`."""
        return self._answer.result(SECONDS)


def _processes(process: int) -> Iterator[int]:
    """Yield the id of a process and those of all its descendants."""
    yield process
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _processes(int(child))


def picture(uri: str) -> Image.Image:
    """Return the picture in a data URI, with all its pixels decoded."""
    image = Image.open(io.BytesIO(data(uri)))
    image.load()
    return image


def data(uri: str) -> bytes:
    """Return the bytes in a data URI."""
    return base64.b64decode(uri.partition(";base64,")[2], validate=True)


def as_uri(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    """Return a picture as a data URI of a file. `format` and `options` are those of Pillow's `Image.save`."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return to_uri(file.getvalue())


def to_uri(data: bytes) -> str:
    """Return bytes as a data URI. Its type is image/png, whatever the bytes are."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
