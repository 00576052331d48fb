"""The page as a process of its own, as its commands start it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(*arguments: str, cwd: Path, **environment: str) -> Iterator[str]:
    """Context manager: run Python with these arguments, and give the address of its page once it is there.

    {port} in an argument or a variable stands for a free port. No setting of the tests' own environment counts. In the
    end it has to exit with 0 after SIGTERM.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JSD_", "PYTHONPATH"))}
    process = subprocess.Popen(
        [sys.executable, *(argument.format(port=port) for argument in arguments)],
        cwd=cwd,
        env=kept | {key: value.format(port=port) for key, value in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        while "The page is at" not in "".join(lines[-1:]):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
