"""Run a server, and start it anew after a death: `script/serve` does this, in a container the restart policy does.

    python -m serving.supervisor HOST PORT COMMAND...

A server that has ended, or that has said three times that it can't draw, is started again. One that ends before
it was ever ready, or whose setup fails, is broken: if an earlier one was ready a few more are tried, else none.
SIGTERM, SIGINT and SIGHUP (a closed terminal) end the server in order, and the supervisor with it. The server and its
worker ignore a SIGHUP of their own, which would kill what they draw.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from serving import health

CHECK_SECONDS = 5
START_SECONDS = 0.2  # between two checks of a server that is not ready yet
ILL_CHECKS = 3  # in a row, and the server is ended
CLOSED_CHECKS = 720  # in a row with its port closed: what clients wait for is finished in an hour
END_SECONDS = 60  # what it draws is finished in this time, else it is killed
BROKEN_STARTS = 3  # in a row, and the supervisor gives up
QUICK_DEATH = 60  # seconds; after one the next start waits, each time twice as long
LONGEST_PAUSE = 30
AGAIN_SECONDS = 2  # terminals and wrappers may send one signal twice


class Supervisor:
    """Runs `command`, a server that listens on `host` and `port`, until it is told to stop."""

    def __init__(self, host: str, port: int, command: list[str]):
        self.host, self.port, self.command = host, port, command
        self._process: subprocess.Popen | None = None
        self._stopping = False
        self._stopped = 0.0  # when
        self._ready = False  # whether the server that runs has been seen ready
        self._was_ready = False  # whether any has

    def run(self) -> int:
        """Run servers until `stop` is called or none can be started. Returns the last one's exit code, 1 if killed."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self.stop)
        broken, pause = 0, 0
        while True:
            began = time.monotonic()
            code = self._run_once()
            if self._stopping:
                return code
            broken = 0 if self._ready else broken + 1
            if not self._was_ready or broken >= BROKEN_STARTS:
                say(f"the server ended with code {code} before it was ready; the lines above say why")
                return code or 1
            quick = time.monotonic() - began < QUICK_DEATH
            pause = min(2 * pause + 1, LONGEST_PAUSE) if quick else 0
            say(f"the server has ended with code {code}; it is started again in {pause} seconds")
            end = time.monotonic() + pause
            while time.monotonic() < end and not self._stopping:
                time.sleep(0.1)
            if self._stopping:
                return code

    def stop(self, number: int, frame: object = None) -> None:
        """End the server, after which `run` returns. A second call, not just after the first, kills the server."""
        now = time.monotonic()
        if not self._stopping:
            self._stopped = now
            self._signal(signal.SIGTERM)
        elif now > self._stopped + AGAIN_SECONDS:
            self._signal(signal.SIGKILL)
        self._stopping = True

    def _signal(self, number: int) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def _run_once(self) -> int:
        """Start the server and watch it until it has ended. Returns its exit code, 1 if a signal has ended it."""
        self._ready, ill = False, 0
        # In a session of its own: Ctrl-C reaches it through `stop` alone.
        self._process = subprocess.Popen(self.command, start_new_session=True, preexec_fn=ignore_hangup)
        if self._stopping:
            self._process.terminate()
        while not self._ended(CHECK_SECONDS if self._ready else START_SECONDS):
            found = health.ask(self.port, self.host)
            self._ready = self._ready or found.status in ("READY", "BUSY", "UNHEALTHY")
            self._was_ready = self._was_ready or self._ready
            # The reason of a first setup's failure stays to be read.
            ill = ill + 1 if self._was_ready and not (found.alive or found.says_so) else 0
            limit = CLOSED_CHECKS if found.status == health.CLOSED else ILL_CHECKS
            if ill >= limit and not self._stopping:
                say(f"the server can't draw ({found}); it is ended")
                self._process.terminate()
                if not self._ended(END_SECONDS):
                    self._process.kill()
        self._clear()
        return self._process.returncode if self._process.returncode >= 0 else 1

    def _ended(self, seconds: float) -> bool:
        """Wait for the server's end, `seconds` at most."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _clear(self) -> None:
        """Wait for the end of the server's worker, and kill it if it hangs."""
        for number in [0] * 100 + [signal.SIGKILL]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
                time.sleep(0.1)
                continue
            return


def ignore_hangup() -> None:
    """Ignore SIGHUP in this process, and in all that it starts."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def say(text: str) -> None:
    """Print a line to stderr, if somebody still reads it."""
    with contextlib.suppress(OSError):
        print(f"script/serve: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(Supervisor(sys.argv[1], int(sys.argv[2]), sys.argv[3:]).run())
