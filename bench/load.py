"""Many clients at once over HTTP: our predictor and one with stock diffusers (`bench.peer`), both behind Cog's server.

In front of each server is a queue, like the one in front of Replicate's containers: it hands over a request as soon as
the server has a slot, in the order of arrival. The latency includes the time in this queue.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench import EQUAL, PROMPTS, ROOT, add_weights, plot, shared_guidance
from tests.server import start_server

SERVED = {"ours": ("predict.py", 32), "stock": ("bench/peer.py", 1)}  # the predictor's file, and its slots
CLIENTS = (1, 2, 4, 8, 16)
STAGGER = 0.1  # seconds from one client's first request to the next one's


def add_arguments(parser: ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("--rounds", type=int, default=3, help="how often each part is repeated (default: 3)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the rates and latencies")


def run(arguments: Namespace) -> dict[str, float]:
    """Measure, print and plot. Returns ratios ours / stock: "throughput_N" and "p95_N" (latency) with N clients."""
    rows, ratios = load(arguments.weights, arguments.rounds), {}
    print(f"{'clients':>8}{'':8}{'per second':>12}{'p50 s':>8}{'p95 s':>8}")
    for (clients, name), (rate, p50, p95) in rows.items():
        print(f"{clients:8} {name:7}{rate:12.2f}{p50:8.2f}{p95:8.2f}")
    for clients in CLIENTS:
        ours, stock = rows[clients, "ours"], rows[clients, "stock"]
        ratios[f"throughput_{clients}"] = round(ours[0] / stock[0], 3)
        ratios[f"p95_{clients}"] = round(ours[2] / stock[2], 3)
    if arguments.plot:
        rates, seconds = {}, {}
        for name in SERVED:
            rate, p50, p95 = zip(*(rows[clients, name] for clients in CLIENTS), strict=True)
            rates[name] = CLIENTS, rate
            seconds |= {f"{name}, p50": (CLIENTS, p50), f"{name}, p95": (CLIENTS, p95)}
        plot(arguments.plot, "o-", "clients", {"pictures per second": rates, "seconds per picture": seconds})
    return ratios


def load(weights: Path, rounds: int) -> dict[tuple[int, str], tuple[float, float, float]]:
    """Send requests to both servers, which take turns, from each number of clients in CLIENTS.

    Returns, by (number of clients, server): pictures per second, median and 95th percentile of latency in seconds.
    """
    settings = {"guidance_scale": shared_guidance(weights), **EQUAL}
    rows = {}
    with contextlib.ExitStack() as stack:
        contenders = {name: Contender(stack, *place, weights, settings) for name, place in SERVED.items()}
        for contender in contenders.values():
            contender.load(2, 2)  # a warm-up
        for clients in tqdm(CLIENTS, "clients"):
            found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, contender in contenders.items():
                    found[name].append(contender.load(clients, max(2, 24 // clients)))
            for name, runs in found.items():
                p50, p95 = np.percentile([seconds for _, each in runs for seconds in each], (50, 95)).tolist()
                rows[clients, name] = (statistics.median(rate for rate, _ in runs), p50, p95)
    return rows


class Contender:
    """A Cog server with the predictor in `file`, and the queue in front of it. Every request has the inputs `settings`.

    The server runs until `stack` is closed. Its working directory is a new one, because Cog would check inputs by any
    schema that it finds there.
    """

    def __init__(self, stack: contextlib.ExitStack, file: str, slots: int, weights: Path, settings: dict[str, object]):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "served.py").write_bytes((ROOT / file).read_bytes())
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # of the server's worker
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "HF_HUB_OFFLINE": "1",
            "JSD_WEIGHTS": str(weights),
            "COG_PREDICT_TYPE_STUB": "served.py:Predictor",
            "COG_MAX_CONCURRENCY": str(slots),
        }
        command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
        self.server, self.settings = start_server(folder / "log", command, folder, **environment), settings
        stack.callback(self.server.stop)
        if self.server.status() != "READY":
            raise RuntimeError(f"{file}: its setup failed; the server's log:\n{self.server.log()[-5000:]}")
        self._slots = ThreadPoolExecutor(slots)  # takes requests in the order of arrival

    def draw(self, number: int) -> float:
        """Have a picture drawn. `number` chooses its prompt and seed. Returns the seconds it took, queue included."""
        began = time.perf_counter()
        inputs = {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number, **self.settings}
        prediction = self._slots.submit(self.server.ask, inputs).result()
        if prediction["status"] != "succeeded":
            raise RuntimeError(f"{self.server.url}: {prediction['error']}")
        return time.perf_counter() - began

    def load(self, clients: int, each: int) -> tuple[float, list[float]]:
        """Let `clients` clients request `each` pictures in sequence. Returns pictures per second, and all latencies."""

        def client(number: int) -> list[float]:
            time.sleep(number * STAGGER)
            return [self.draw(number * each + i) for i in range(each)]

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            latencies = [seconds for found in pool.map(client, range(clients)) for seconds in found]
        return clients * each / (time.perf_counter() - began), latencies
