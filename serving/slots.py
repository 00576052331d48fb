"""Watch the slots of Cog's server, and end the server when slots are lost or nothing can be drawn any more.

Cog loses a slot for ever when it can't make the folder or the file of a prediction (docs/cog-reports.md). It then shuts
down its end of the slot's socket, which this process can see. Only a new server has all its slots again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import coglet

from jsd.errors import JSDError
from serving.health import BY_ITSELF

EVERY_SECONDS = 1
LEAVE_SECONDS = 5  # for answers to go out, and for health checks
KILL_SECONDS = 60  # Cog sends the answers of finished predictions in this time, and uploads their files


class ServerEndsError(JSDError):
    """This server takes no new prediction, because it ends when those under way are finished."""


class Slots:
    """Counts running predictions, watches the slots' sockets on a thread, and ends the server when it has to.

    When slots are lost, no new prediction is taken, and the server is ended after the running ones. `end_server` is
    called for that, with the reason. `sockets` are file descriptors, by default those of Cog's slots in this process.
    """

    def __init__(self, end_server: Callable[[str], None], sockets: Sequence[int] | None = None):
        self._reason: str | None = None  # why this server ends
        self._end_server = end_server
        self._sockets = slot_sockets() if sockets is None else sockets
        self._running = 0
        self._lock = threading.Lock()  # guards _reason and _running
        self._closed = threading.Event()
        if coglet.server.active and not self._sockets:
            print("Cog's slots can't be watched here: lost ones will not be noticed", flush=True)
        self._thread = threading.Thread(target=self._watch, name="jsd-slots", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def prediction(self) -> Iterator[None]:
        """Context manager to run a prediction in. Raises `ServerEndsError` if this server takes no more."""
        with self._lock:
            self.check()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def check(self) -> None:
        """Raise `ServerEndsError` with the reason if this server ends soon."""
        if self._reason:
            raise ServerEndsError("{}; ask again in a minute", self._reason)

    def end(self, reason: str) -> None:
        """Take no more predictions, and end the server at once."""
        self._announce(reason, "")
        self._end_server(reason)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        poll = select.poll()
        for descriptor in self._sockets:
            poll.register(descriptor, getattr(select, "POLLRDHUP", 0))  # macOS has no such event
        lost = 0
        while not lost:
            if self._closed.wait(EVERY_SECONDS):
                return
            lost = len(poll.poll(0))
        reason = f"Cog has lost {lost} of {len(self._sockets)} slots"
        self._announce(reason, " when its running predictions have ended")
        while self._running:
            if self._closed.wait(EVERY_SECONDS):
                return
        self._end_server(reason)

    def _announce(self, reason: str, when: str) -> None:
        with self._lock:
            self._reason = f"{reason}: {BY_ITSELF}{when}, to be started again"
        print(self._reason, flush=True)


def slot_sockets() -> list[int]:
    """Return the file descriptors of this process's sockets to Cog's server, one for each slot. None outside Cog."""
    found = []
    for descriptor in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself, and sockets without a peer
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as copy:
                    peer = copy.getpeername()
                name = peer if isinstance(peer, bytes) else str(peer).encode()
                if copy.family == socket.AF_UNIX and b"coglet" in name:
                    found.append(descriptor)
    return found


def end_server(server: int, reason: str) -> None:
    """Print `reason`, and end Cog's server (process id `server`), if one runs, so that its supervisor can restart it.

    This process is only Cog's worker. If it ended alone, the server would stay and answer 409 for ever.
    """
    print(f"{reason}: this server ends in {LEAVE_SECONDS} seconds", flush=True)
    for number, seconds in ((signal.SIGTERM, LEAVE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        end = time.monotonic() + seconds
        while time.monotonic() < end and coglet.server.active and os.getppid() == server:
            time.sleep(0.1)
        if coglet.server.active and os.getppid() == server:
            os.kill(server, number)
