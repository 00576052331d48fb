"""Nothing accumulates: `script/soak [--predictions 1000] [--weights FOLDER]`.

Eight clients ask one server for pictures, and between them come those who are refused, who fail, who cancel, and who
hang up; every picture is compared with the one drawn for its seed at the start, alone. After each half the server rests
until it has removed its temporary files; then memory, open files, threads and disk are read. The last line is JSON:
growths are those of the second half, of memory as a share, the others as numbers (disk: files and folders).
"""

import argparse
import base64
import contextlib
import io
import itertools
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
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from bench.serving import PROMPTS, ROOT, wait_until_ready
from cog_folders import COGS, EVERY_SECONDS, KEEP_SECONDS
from jsd.request import SCHEDULER_NAMES

CLIENTS = 8
ALIKE = 255**2 / 10**5  # mean squared error of pictures that are equal to 50 dB
SECONDS = 300  # longer than any answer takes
STEPS = 120  # of those who cancel or hang up: more than they wait for
REST = KEEP_SECONDS + 3 * EVERY_SECONDS


@dataclass(frozen=True)
class Usage:
    """What a server and its workers hold: bytes of memory, open files, threads, and files and folders on disk."""

    memory: int
    files: int
    threads: int
    disk: int


class Server:
    """`script/serve` on a free port, with a temporary folder of its own."""

    def __init__(self, weights: Path | None, folder: Path):
        self.folder, self.started = folder, time.time()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = (
            os.environ | {"TMPDIR": str(folder)} | ({"JSD_WEIGHTS": str(weights.resolve())} if weights else {})
        )
        command = [ROOT / "script" / "serve", "--port", str(self.port)]
        self.url = f"http://127.0.0.1:{self.port}"
        with tempfile.TemporaryFile() as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                wait_until_ready(self.url, self.process)
            except BaseException:
                self.stop()
                log.seek(0)
                print(log.read().decode(errors="replace")[-5000:], file=sys.stderr)
                raise

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(HTTP status, parsed answer); busy servers are asked again."""
        while True:
            request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method=method)
            request.add_header("content-type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                code, answer = error.code, error.read()
            if code != 409:
                return code, answer
            time.sleep(0.01)

    def draw(self, inputs: dict[str, Any]) -> np.ndarray | None:
        """Pictures of a prediction, (n, height, width, 3); None if there are none."""
        code, prediction = self.call("POST", "/predictions", {"input": inputs})
        if code != 200 or prediction["status"] != "succeeded":
            return None
        files = [base64.b64decode(uri.partition(",")[2]) for uri in prediction["output"]]
        return np.stack([np.asarray(Image.open(io.BytesIO(file)), float) for file in files])

    def usage(self) -> Usage:
        pids = list(self._processes(self.process.pid))
        status = [_status(pid) for pid in pids]
        return Usage(
            memory=sum(int(fields["VmRSS"].split()[0]) * 1024 for fields in status),
            files=sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
            threads=sum(int(fields["Threads"]) for fields in status),
            disk=sum(1 for _ in self.folder.rglob("*")) + sum(path.stat().st_mtime > self.started for path in _cogs()),
        )

    def _processes(self, pid: int) -> Iterator[int]:
        yield pid
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from self._processes(int(child))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _cogs() -> list[Path]:
    """Cog's folders of predictions, this server's and others': they are always there."""
    return list(COGS.iterdir()) if COGS.is_dir() else []


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def requests(photo: str) -> list[dict[str, Any]]:
    """Ordinary requests, of every kind; `photo` is a data URI to start from."""
    kinds: list[dict[str, Any]] = [
        {},
        {"num_outputs": 2},
        {"guidance_scale": 1},
        {"width": 192, "height": 320},
        {"image": photo, "prompt_strength": 0.6},
        {"num_inference_steps": 12},
    ]
    return [
        {"prompt": prompt, "seed": i, "scheduler": scheduler, "num_inference_steps": 6, **kind}
        for i, (scheduler, prompt, kind) in enumerate(
            zip(SCHEDULER_NAMES * 2, itertools.cycle(PROMPTS), itertools.cycle(kinds), strict=False)
        )
    ]


class Soak:
    """The clients' side: `one(number)` is prediction `number`, True if it went as it should."""

    def __init__(self, server: Server, photo: str):
        self.server = server
        self.requests = requests(photo)
        # Whoever draws nothing here (the safety checker held it back) has to draw nothing later.
        self.expected = [server.draw(request) for request in tqdm(self.requests, "references")]
        others = [self.refused, self.failed, self.cancelled, self.left]
        self.kinds: list[Callable[[int], bool]] = [self.drawn, self.drawn, self.drawn, *others, self.drawn]

    def one(self, number: int) -> bool:
        kind = self.kinds[number % len(self.kinds)]
        right = kind(number)
        if not right:
            tqdm.write(f"wrong: {kind.__name__} {number}", file=sys.stderr)
        return right

    def drawn(self, number: int) -> bool:
        i = number % len(self.requests)
        found, expected = self.server.draw(self.requests[i]), self.expected[i]
        if found is None or expected is None:
            return found is expected
        return found.shape == expected.shape and float(np.mean((found - expected) ** 2)) <= ALIKE

    def refused(self, number: int) -> bool:
        return self.server.call("POST", "/predictions", {"input": {"num_inference_steps": 999}})[0] == 422

    def failed(self, number: int) -> bool:
        code, prediction = self.server.call("POST", "/predictions", {"input": {"image": "data:image/png;base64,AAAA"}})
        return code == 200 and prediction["status"] == "failed"

    def cancelled(self, number: int) -> bool:
        identifier = f"soak-{uuid.uuid4()}"
        body = {"input": {"num_inference_steps": STEPS, "seed": number}}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.server.call, "PUT", f"/predictions/{identifier}", body)
            time.sleep(0.05 * (number % 7))
            while not answer.done() and self.server.call("POST", f"/predictions/{identifier}/cancel")[0] != 200:
                time.sleep(0.01)
            code, prediction = answer.result()
        # At the very start of a prediction Cog 0.23.1 may only mark it as failed, with its exception's name, and let it
        # run to its end.
        ended = prediction["status"] == "canceled" or "CancelationException" in (prediction.get("error") or "")
        return code == 200 and ended

    def left(self, number: int) -> bool:
        """Hangs up in the middle."""
        body = json.dumps({"input": {"num_inference_steps": STEPS, "num_outputs": 2, "seed": number}})
        head = (
            f"POST /predictions HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        with socket.create_connection(("127.0.0.1", self.server.port)) as client:
            client.sendall(f"{head}\r\n\r\n{body}".encode())
            time.sleep(0.3)
        return True

    def run(self, numbers: range) -> int:
        """Predictions with these numbers by CLIENTS at once; how many went wrong."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            return sum(not right for right in tqdm(clients.map(self.one, numbers), "predictions", len(numbers)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--predictions", type=int, default=1000)
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the one that serving would use")
    parser.add_argument("--rest", type=float, default=REST, help=f"seconds after each half (default: {REST})")
    args = parser.parse_args()
    half = args.predictions // 2
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(io.BytesIO()) as photo:
        Image.linear_gradient("L").convert("RGB").save(photo, "PNG")
        server = Server(args.weights, Path(folder))
        try:
            soak = Soak(server, "data:image/png;base64," + base64.b64encode(photo.getvalue()).decode())
            usages, wrong = [], 0
            for numbers in (range(half), range(half, args.predictions)):
                wrong += soak.run(numbers)
                time.sleep(args.rest)
                usages.append(server.usage())
                print(usages[-1])
        finally:
            server.stop()
    first, second = usages
    report = {
        "predictions": args.predictions,
        "rss_growth": round(second.memory / first.memory - 1, 4),
        "fd_growth": second.files - first.files,
        "thread_growth": second.threads - first.threads,
        "disk_growth": second.disk - first.disk,
        "wrong": wrong,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
