"""Serve the page: `script/demo [--host 127.0.0.1] [--port 7860]`. The settings are environment variables, JSD_*."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from demo.limits import Limits
from jsd import cli, settings
from jsd.errors import InputError, NSFWError
from jsd.language import Text, speak
from jsd.request import Request


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until SIGINT or SIGTERM. Returns the exit code: 0, or 2 after an error."""
    speak()
    parser = cli.CommandParser(prog="script/demo", description=Text("A page to draw with, in the browser."))
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0: all")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    return cli.exit_code(_serve, parser.parse_args(argv))


def _serve(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="jsd-demo-") as folder:
        _on_end(lambda: _leave(folder))
        _serve_from(Path(folder), arguments)


def _serve_from(folder: Path, arguments: argparse.Namespace) -> None:
    limits = Limits.from_environment()
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")  # it leaves its files behind
    with settings.make_engine() as engine:
        warm_up = engine.submit(Request(cli.PROMPT))  # so that the first visitor's picture takes no longer than others
        from demo.album import Album
        from demo.page import Page

        page = Page(engine, limits, Album(folder / "album"))
        with suppress(NSFWError):
            warm_up.result()
        try:
            url = page.launch(arguments.host, arguments.port)
        except (OSError, OverflowError) as error:
            raise InputError(
                "--port", "nothing can listen at {}, port {}; take another", arguments.host, arguments.port or 7860
            ) from error
        end = threading.Event()
        _on_end(end.set)
        print(Text("The page is at {}. Ctrl-C ends it.", url), flush=True)
        if sys.stdout.isatty() and _has_screen():
            webbrowser.open(url)
        end.wait()
        page.close()


def _on_end(act: Callable[[], object]) -> None:
    """Call `act` at SIGINT and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: act())


def _leave(folder: str) -> None:
    """End the process while the model is loaded. An exception amid imports could be taken for one of theirs."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _has_screen() -> bool:
    """Whether a browser can open a window. A browser of the terminal would hide the address."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    sys.exit(main())
