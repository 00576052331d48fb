"""Many clients at once over HTTP: our predictor and the peer's (`bench.peer`), each behind the same Cog server.

In front of a server stands what stands in front of Replicate's containers: a queue that hands over a request as soon as
the server has a slot, in the order they came. Waiting there counts.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = (
    "猫の肖像画 油絵",
    "サラリーマン 油絵",
    "富士山 水彩画",
    "東京タワー",
    "赤い背景の寿司",
    "犬",
    "桜 ドット絵",
    "鳥居",
)
STAGGER = 0.1  # seconds from one client's first request to the next one's
START_SECONDS = 600


@dataclass(frozen=True)
class Contender:
    """A predictor to serve: its file, how many requests it takes at once, and how it is asked for picture i."""

    file: str
    slots: int
    inputs: Callable[[int], dict[str, Any]]


@dataclass
class Server:
    url: str
    contender: Contender

    def __post_init__(self):
        self._slots = ThreadPoolExecutor(self.contender.slots)  # takes what is submitted in its order

    def predict(self, number: int) -> float:
        """Seconds from the asking for a picture until it is here."""
        began = time.perf_counter()
        prediction = self._slots.submit(self._post, {"input": self.contender.inputs(number)}).result()
        if prediction["status"] != "succeeded":
            raise RuntimeError(f"{self.contender.file}: {prediction['error']}")
        return time.perf_counter() - began

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        while True:
            request = urllib.request.Request(self.url + "/predictions", data, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code != 409:  # Cog may say busy to two requests of the same instant
                    raise
            time.sleep(0.005)

    def load(self, clients: int, each: int) -> tuple[float, list[float]]:
        """`clients` ask for `each` pictures, one after another: pictures a second, and the seconds each took."""

        def client(number: int) -> list[float]:
            time.sleep(number * STAGGER)
            return [self.predict(number * each + i) for i in range(each)]

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            latencies = [seconds for found in pool.map(client, range(clients)) for seconds in found]
        return clients * each / (time.perf_counter() - began), latencies


@contextlib.contextmanager
def served(contender: Contender, weights: Path) -> Iterator[Server]:
    """The contender behind Cog's server on a free port, ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "JSD_WEIGHTS": str(weights.resolve()),
        "COG_MAX_CONCURRENCY": str(contender.slots),
    }
    # In a folder of its own: the schema of the one must not be read for the other.
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as null:
        file = Path(folder) / Path(contender.file).name
        file.write_text((ROOT / contender.file).read_text("utf-8"), "utf-8")
        environment["COG_PREDICT_TYPE_STUB"] = f"{file.name}:Predictor"
        command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=null, stderr=null)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, process)
            yield Server(url, contender)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(url: str, process: subprocess.Popen) -> None:
    """Wait for a server to be ready. Raises RuntimeError if it does not get there."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url + "/health-check", timeout=5) as response:
            status = json.load(response)["status"]
            if status == "READY":
                return
            if status == "SETUP_FAILED":
                break
        time.sleep(0.1)
    raise RuntimeError(f"{url}: the server did not get ready")
