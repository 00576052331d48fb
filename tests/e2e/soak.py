"""Test that a server accumulates nothing: `script/soak [--predictions 1000] [--weights FOLDER] [--rest SECONDS]`.

Eight clients ask one server for pictures. Some of their requests are refused, fail, are cancelled, or lose their
client. The pictures of the others are compared with those drawn for the same requests at the start. After each half the
server rests until it has removed its temporary files. Then its memory, open files, threads and files on disk are
counted. The last line is JSON: how many predictions went wrong, and the growth from the first count to the second (of
memory as a share, of the others as a number).
"""

import argparse
import itertools
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from PIL import Image
from tqdm import tqdm

from jsd.manifest import find_weights
from jsd.request import SCHEDULER_NAMES
from serving.folders import COG_FOLDERS, EVERY_SECONDS, KEEP_SECONDS
from tests.addresses import strange_addresses
from tests.alike import MEAN_SQUARE
from tests.e2e import hostile_kinds
from tests.server import Server, as_uri, picture, start_server

PROMPTS = ("猫の肖像画 油絵", "サラリーマン 油絵", "富士山 水彩画", "東京タワー", "赤い背景の寿司", "犬", "桜 ドット絵")
KINDS = (
    {},
    {"num_outputs": 2},
    {"guidance_scale": 1},
    {"width": 192, "height": 320},
    {"image": as_uri(Image.linear_gradient("L").convert("RGB")), "prompt_strength": 0.6},
    {"num_inference_steps": 12},
)
CLIENTS = 8
LONG = 120  # steps of a request that is cancelled or abandoned
REST = KEEP_SECONDS + 3 * EVERY_SECONDS


@dataclass(frozen=True)
class Usage:
    """What a server and its workers use: bytes of memory, open files, threads, and files and folders on disk."""

    memory: int
    files: int
    threads: int
    disk: int


def usage(server: Server, folder: Path, started: float) -> Usage:
    """Count what a server uses now. `folder` is its temporary folder.

    Of the folders that Cog makes for predictions, those changed after `started` (seconds since 1970) count.
    """
    processes = server.processes
    status = [_status(process) for process in processes]
    # The folders of predictions are shared by all of Cog's servers on a machine.
    cog_folders = COG_FOLDERS.iterdir() if COG_FOLDERS.is_dir() else ()
    return Usage(
        memory=sum(int(fields["VmRSS"].split()[0]) * 1024 for fields in status),
        files=sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in processes),
        threads=sum(int(fields["Threads"]) for fields in status),
        disk=sum(1 for _ in folder.rglob("*")) + sum(path.stat().st_mtime > started for path in cog_folders),
    )


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def requests() -> list[dict[str, Any]]:
    """Return the inputs of ordinary requests, one dict each. Every scheduler appears twice."""
    rows = zip(SCHEDULER_NAMES * 2, itertools.cycle(PROMPTS), itertools.cycle(KINDS), strict=False)
    return [
        {"prompt": prompt, "seed": i, "scheduler": scheduler, "num_inference_steps": 6, **kind}
        for i, (scheduler, prompt, kind) in enumerate(rows)
    ]


class Soak:
    """The clients of the test. `drawn`, `refused`, `failed`, `cancelled`, `abandoned`, `hostile`: kinds of predictions.

    Each takes the number of the prediction, makes it, and returns whether the server did what it should.
    """

    def __init__(self, server: Server, address: str):
        self.server, self.address, self.requests = server, address, requests()
        # If the safety checker holds a picture back here, it has to do so later too.
        self.expected = [self.pictures(request) for request in tqdm(self.requests, "references")]
        others = [self.refused, self.failed, self.cancelled, self.abandoned, self.hostile]
        self.kinds: list[Callable[[int], bool]] = [self.drawn, self.drawn, self.drawn, *others, self.drawn]

    def run(self, numbers: range) -> int:
        """Make the predictions with these numbers, CLIENTS at once. Returns how many went wrong."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            return sum(not right for right in tqdm(clients.map(self.one, numbers), "predictions", len(numbers)))

    def one(self, number: int) -> bool:
        kind = self.kinds[number % len(self.kinds)]
        right = kind(number)
        if not right:
            tqdm.write(f"wrong: {kind.__name__} {number}", file=sys.stderr)
        return right

    def pictures(self, inputs: dict[str, Any]) -> np.ndarray | None:
        """Request a prediction. Returns its pictures, (n, height, width, 3), or None if it has not succeeded."""
        prediction = self.server.ask(inputs)
        if prediction["status"] != "succeeded":
            return None
        return np.stack([np.asarray(picture(uri), float) for uri in prediction["output"]])

    def drawn(self, number: int) -> bool:
        i = number % len(self.requests)
        found, expected = self.pictures(self.requests[i]), self.expected[i]
        if found is None or expected is None:
            return found is expected
        return found.shape == expected.shape and float(np.mean((found - expected) ** 2)) <= MEAN_SQUARE

    def hostile(self, number: int) -> bool:
        """Make a request of the kinds that `script/hostile` makes."""
        kinds = hostile_kinds.KINDS
        kind = kinds[number // len(self.kinds) % len(kinds)]
        return kind(self.server, self.address, number)

    def refused(self, number: int) -> bool:
        return self.server.call("POST", "/predictions", {"input": {"num_inference_steps": 999}})[0] == 422

    def failed(self, number: int) -> bool:
        return self.server.predict(image="data:image/png;base64,AAAA")["status"] == "failed"

    def cancelled(self, number: int) -> bool:
        running = self.server.begin(num_inference_steps=LONG, seed=number)
        time.sleep(0.05 * (number % 7))
        while not running.ended and running.cancel() != 200:
            time.sleep(0.01)
        prediction = running.result()
        # At the very start of a prediction Cog 0.23.1 may only mark it as failed, with its exception's name, and let it
        # run to its end.
        return prediction["status"] == "canceled" or "CancelationException" in (prediction.get("error") or "")

    def abandoned(self, number: int) -> bool:
        """Send a request, and hang up after 0.3 seconds, before the answer. Returns True."""
        body = json.dumps({"input": {"num_inference_steps": LONG, "num_outputs": 2, "seed": number}})
        head = (
            f"POST /predictions HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        address = urlparse(self.server.url)
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(f"{head}\r\n\r\n{body}".encode())
            time.sleep(0.3)
        return True


def soak(weights: Path, predictions: int, rest: float, folder: Path) -> dict[str, float]:
    """Start a server, make predictions, and rest `rest` seconds after each half. Returns the growth and the errors.

    The server's log and temporary files go to `folder`.
    """
    log, files, started, half = folder / "log", folder / "tmp", time.time(), predictions // 2
    files.mkdir()
    server = start_server(log, TMPDIR=str(files), JSD_WEIGHTS=str(weights))
    try:
        if server.status() != "READY":
            raise RuntimeError(f"{weights}: the setup failed; the server's log:\n{server.log()[-5000:]}")
        usages, wrong = [], 0
        with strange_addresses() as address:
            clients = Soak(server, address)
            for numbers in (range(half), range(half, predictions)):
                wrong += clients.run(numbers)
                time.sleep(rest)
                usages.append(usage(server, files, started))
                print(usages[-1])
    finally:
        server.stop()
    first, second = usages
    return {
        "predictions": predictions,
        "rss_growth": round(second.memory / first.memory - 1, 4),
        "fd_growth": second.files - first.files,
        "thread_growth": second.threads - first.threads,
        "disk_growth": second.disk - first.disk,
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/soak", description=__doc__.split("\n")[0])
    parser.add_argument("--predictions", type=int, default=1000)
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the model folder that serving uses")
    parser.add_argument("--rest", type=float, default=REST, help=f"seconds after each half (default: {REST})")
    arguments = parser.parse_args()
    weights = find_weights(arguments.weights).resolve()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(soak(weights, arguments.predictions, arguments.rest, Path(folder))))


if __name__ == "__main__":
    main()
