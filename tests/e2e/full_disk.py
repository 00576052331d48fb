"""A server whose disk fills up: its /tmp is a small one of its own, where the system allows that (Linux, `unshare`)."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.hostile_kinds import SMALL
from tests.server import ROOT, Server, start_server, to_uri

MOUNT = 'mount -t tmpfs -o size="$1",nr_inodes=500,mode=1777 tmpfs "$0" && shift && exec "$@"'
WAYS = (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"])
LARGE = SMALL | {"image": to_uri(bytes(8_000_000))}  # Cog writes a request of more than 6 MB to the disk


def own_disk(folder: str | Path, size: str) -> list[str] | None:
    """Return the beginning of a command that runs the rest of it with a disk of its own in `folder`, of 500 files.

    `size` is as mount takes it: 24m. Returns None if the system gives no process a disk of its own.
    """
    for way in WAYS:
        command = [*way, "sh", "-c", MOUNT, str(folder), size]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
    return None


def fill_blocks(folder: Path) -> None:
    with (folder / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def fill_names(folder: Path) -> None:
    try:
        for number in range(1000):
            (folder / f"fill-{number}").touch()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def ask(server: Server, inputs: dict) -> str:
    """Request a prediction. Returns its error, "" if it has succeeded, and a word if the server is starting again."""
    try:
        code, answer = server.call("POST", "/predictions", {"input": inputs})
    except (urllib.error.URLError, ConnectionError):
        return "no answer"
    return answer.get("error", "") if code == 200 else "refused"


def draws(server: Server, seconds: float = 60) -> bool:
    """Whether a picture comes within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ask(server, SMALL) == "":
            return True
        time.sleep(0.2)
    return False


def run(weights: Path, log: Path) -> Iterator[tuple[str, bool | None]]:
    """Start a server, fill its disk in two ways, and yield what was tried and whether it held (None: skipped)."""
    command = own_disk("/tmp", "24m")
    if command is None:
        yield "skipped: this system gives no process a /tmp of its own", None
        return
    server = start_server(
        log,
        [*command, "sh", "-c", 'exec "$0" --port "$PORT"', ROOT / "script" / "serve"],
        TMPDIR="/tmp",
        JSD_WEIGHTS=str(weights),
    )
    try:
        disk = Path(f"/proc/{server.process.pid}/root/tmp")
        yield "the disk is empty: a picture", draws(server)
        for name, fill in (("blocks", fill_blocks), ("names", fill_names)):
            fill(disk)
            errors = [ask(server, inputs) for inputs in (SMALL, LARGE, SMALL)]
            yield (
                f"no {name} left: errors that say so",
                all("No space left" in error or "slots" in error for error in errors),
            )
            time.sleep(10)  # a slot was lost, so the server starts again, on the full disk
            for file in disk.glob("fill*"):
                file.unlink()
            yield f"{name} are free again: a picture", draws(server)
        left = [file for file in disk.rglob("*") if file.is_file() and file.stat().st_size > 2**20]
        yield "no large file is left", left == []
    finally:
        server.stop()
