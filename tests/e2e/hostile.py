"""Test that strangers can't take a server away: `script/hostile [--long] [--load SECONDS] [--weights FOLDER]`.

One server gets every kind of request in tests/e2e/hostile_kinds.py, random requests made from its own OpenAPI document,
and the load of 64 clients. Another one gets requests while its disk is full. After each kind a picture has to come
within a minute. At the end the first server rests until its temporary files are removed. The tables say what held, how
many slots the server had before and after, and what has grown. The exit code is 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import urllib.error
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from schemathesis import GenerationMode
from tqdm import tqdm

from jsd.manifest import find_weights
from serving.folders import EVERY_SECONDS, KEEP_SECONDS
from tests.addresses import strange_addresses
from tests.e2e import full_disk
from tests.e2e.hostile_kinds import COSTLY, KINDS, LONG, SMALL, lost_slot
from tests.e2e.random_requests import ask_randomly
from tests.e2e.soak import usage
from tests.server import Server, start_server

CASES = 32  # of each kind
MANY = 1000  # with --long
CLIENTS = 8
LOADERS = 64  # clients of the load
LOAD_SECONDS = 10
BACK_SECONDS = 60  # in which a picture has to come again
GROWTH = 0.05  # of what a server uses, or as much as in SLACK
REST = KEEP_SECONDS + EVERY_SECONDS + 5  # until all temporary files are removed
SLACK = {"memory": 2 * 2**20, "files": 2, "threads": 2, "disk": 2}


@dataclass(frozen=True)
class Row:
    """What one kind of requests did: `held` of `cases` were answered right; `back` is in seconds, until a picture."""

    kind: str
    cases: int
    held: int
    slots: tuple[int, int]
    back: float

    @property
    def right(self) -> bool:
        return self.held == self.cases and self.slots[1] == self.slots[0] and self.back <= BACK_SECONDS

    def __str__(self) -> str:
        slots = f"{self.slots[0]} -> {self.slots[1]}"
        return (
            f"{self.kind:24}{self.cases:7}{self.held:7}   {slots:10}{self.back:7.1f}   {'' if self.right else 'WRONG'}"
        )


def seconds_to_a_picture(server: Server) -> float:
    """Wait until the server draws a picture, a minute and a half at most. Returns the seconds."""
    began = time.monotonic()
    while time.monotonic() < began + 1.5 * BACK_SECONDS:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, RuntimeError):
            if server.draw(**SMALL):
                break
        time.sleep(0.1)
    return time.monotonic() - began


def count_slots(server: Server, expected: int = 0) -> int:
    """Return how many predictions the server takes at once. Up to a minute it waits until there are `expected`."""
    end = time.monotonic() + BACK_SECONDS
    while (found := _count_slots(server)) < expected and time.monotonic() < end:
        time.sleep(1)
    return found


def _count_slots(server: Server) -> int:
    names = []
    while len(names) < 100:
        name = f"slot-{uuid.uuid4().hex}"
        code, _ = server.call("PUT", f"/predictions/{name}", {"input": LONG}, {"prefer": "respond-async"})
        if code != 202:
            break
        names.append(name)
    for name in names:
        while server.call("POST", f"/predictions/{name}/cancel")[0] == 200:
            time.sleep(0.01)
    return len(names)


def ask_often(name: str, one: Callable[[int], bool], cases: int) -> int:
    """Call `one` with the numbers from 0 to `cases`, CLIENTS at once. Returns how often it returned True."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(tqdm(pool.map(one, range(cases)), name, cases, leave=False))


def try_kind(server: Server, name: str, one: Callable[[int], bool], cases: int) -> Row:
    """Make `cases` requests of one kind, and look whether the server is whole after them."""
    before = count_slots(server)
    held = ask_often(name, one, cases)
    if one_is_costly(name):
        wait_for_the_restart(server)
    back = seconds_to_a_picture(server)
    return Row(name, cases, held, (before, count_slots(server, before)), back)


def one_is_costly(name: str) -> bool:
    return name in {kind.__name__ for kind in COSTLY}


def wait_for_the_restart(server: Server) -> None:
    """Wait until no answer comes any more: a server that has lost slots still draws for some seconds."""
    with contextlib.suppress(RuntimeError):
        server.wait("its end", lambda: server.status() == "STARTING", seconds=BACK_SECONDS)


def load(server: Server, seconds: float) -> Row:
    """64 clients ask for pictures, some of 500 steps, for some time. The server must not be restarted meanwhile."""
    before, restarts, end = count_slots(server), server.restarts, time.monotonic() + seconds
    drawn = []

    def ask(number: int) -> None:
        while time.monotonic() < end:
            code, answer = server.call("POST", "/predictions", {"input": SMALL if number % 16 else LONG})
            if code != 409:
                drawn.append(code == 200 and answer["status"] == "succeeded")
            else:
                time.sleep(0.05)

    with ThreadPoolExecutor(LOADERS) as clients:
        list(clients.map(ask, range(LOADERS)))
    back = seconds_to_a_picture(server)
    held = sum(drawn) if server.restarts == restarts else 0
    return Row(f"64 clients, {seconds:.0f} s", len(drawn), held, (before, count_slots(server, before)), back)


def random_requests(server: Server, cases: int) -> Row:
    """Requests that schemathesis makes up from the server's own document, with a fixed seed."""
    before = count_slots(server)
    held = sum(ask_randomly(server, mode, cases // 2) for mode in GenerationMode)
    return Row("schemathesis", held, held, (before, count_slots(server, before)), seconds_to_a_picture(server))


def growth(server: Server, folder: Path, started: float, before: dict[str, int]) -> list[str]:
    """Print what the server uses now and used `before`. Returns the names of what has grown too much."""
    after = vars(usage(server, folder, started))
    print(f"\n{'after the rest':24}{'before':>12}{'after':>12}")
    wrong = []
    for name, value in after.items():
        if value > max(before[name] * (1 + GROWTH), before[name] + SLACK[name]):
            wrong.append(name)
        print(f"{name:24}{before[name]:12}{value:12}   {'WRONG' if name in wrong else ''}")
    return wrong


def hostile(weights: Path, cases: int, load_seconds: float, folder: Path) -> bool:
    """Run everything, print the tables, and return whether all held. Logs and temporary files go to `folder`."""
    files = folder / "tmp"
    files.mkdir()
    server = start_server(folder / "log", TMPDIR=str(files), JSD_WEIGHTS=str(weights))
    print(f"{'kind':24}{'cases':>7}{'held':>7}   {'slots':10}{'back':>7}")
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        tqdm.write(str(row))

    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        address = stack.enter_context(strange_addresses())
        for kind in COSTLY:
            count = cases if kind is lost_slot else 1
            show(try_kind(server, kind.__name__, lambda number, kind=kind: kind(server, address, number), count))
        # Once before anything is compared: Cog's own process keeps 60 MB after its first large requests.
        load(server, 1)
        for kind in KINDS:
            ask_often(kind.__name__, lambda number, kind=kind: kind(server, address, number), CASES)
        time.sleep(2 * EVERY_SECONDS)
        started = time.time()
        before = vars(usage(server, files, started))
        for kind in KINDS:
            show(try_kind(server, kind.__name__, lambda number, kind=kind: kind(server, address, number), cases))
        show(random_requests(server, 2 * cases))
        show(load(server, load_seconds))
        rest = time.monotonic() + REST  # the full disk is tried meanwhile
        for name, held in full_disk.run(weights, folder / "log-full-disk"):
            tqdm.write(f"full disk: {name:40}{'held' if held else 'skipped' if held is None else 'WRONG'}")
            rows.append(Row(name, 1, int(held is not False), (0, 0), 0))
        for _ in tqdm(range(max(0, round(rest - time.monotonic()))), "rest", leave=False):
            time.sleep(1)
        wrong = growth(server, files, started, before)
    return all(row.right for row in rows) and not wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/hostile", description=__doc__.split("\n")[0])
    parser.add_argument("--long", action="store_true", help=f"{MANY} requests of each kind, not {CASES}")
    parser.add_argument("--load", type=float, default=LOAD_SECONDS, metavar="SECONDS", help="how long 64 clients ask")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the model folder that serving uses")
    arguments = parser.parse_args()
    weights = find_weights(arguments.weights).resolve()
    with tempfile.TemporaryDirectory() as folder:
        held = hostile(weights, MANY if arguments.long else CASES, arguments.load, Path(folder))
    print("\nall held" if held else "\nnot all held")
    sys.exit(not held)


if __name__ == "__main__":
    main()
