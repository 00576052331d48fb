"""Ask a Cog server on this machine for its health. This module needs nothing but Python's standard library."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

NO_ANSWER = "no answer"
CLOSED = "closed"  # no port: it is starting, or ending, in which case it finishes what clients wait for
ALIVE = ("READY", "BUSY", "STARTING")
BY_ITSELF = "this server ends by itself"  # part of the reason of a server that needs nobody to end it
PAUSES = (3, 3)  # seconds between the questions to a server that seems dead


@dataclass(frozen=True)
class Health:
    """What a server says of itself: `status` as Cog has it, or NO_ANSWER, or CLOSED; `reason` may be empty."""

    status: str
    reason: str = ""

    @property
    def alive(self) -> bool:
        return self.status in ALIVE

    @property
    def says_so(self) -> bool:
        """Whether the server says that it ends by itself."""
        return BY_ITSELF in self.reason

    @property
    def ends_by_itself(self) -> bool:
        return self.says_so or self.status == CLOSED

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status


def ask(port: int, host: str = "127.0.0.1", seconds: float = 8) -> Health:
    """Ask the server that listens on `host` (an address of this machine) and `port`; wait `seconds` for the answer."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    # The answer's code is always 200: what counts is the status in it. No proxy is asked the way to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            f"http://{f'[{host}]' if ':' in host else host}:{port}/health-check", timeout=seconds
        ) as answer:
            found = json.load(answer)
        return Health(str(found["status"]), str(found.get("user_healthcheck_error") or ""))
    except urllib.error.URLError as error:
        return Health(CLOSED if isinstance(error.reason, ConnectionRefusedError) else NO_ANSWER)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return Health(NO_ANSWER)


def ask_patiently(port: int) -> Health:
    """Ask up to three times, some seconds apart, until the server seems alive. Returns the last answer."""
    for pause in PAUSES:
        health = ask(port)
        if health.alive:
            return health
        time.sleep(pause)
    return ask(port)


def end(process: int, seconds: float = 10) -> None:
    """Tell a server to end, and after `seconds` kill what is left of it. `process` may be 1, a container's init.

    An init process can't be killed from inside, but it ends with its child.
    """
    children = _children(process)
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and Path(f"/proc/{process}").exists():
        time.sleep(0.1)
    for one in (*children, process):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found
