"""deploy/smoke, with programs in place of Cog and Docker that only write down what they are asked, and a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from tests.server import ROOT, as_uri

RECORD = """#!/usr/bin/env bash
echo "$(basename "$0") $* ${COGLET_WHEEL:-}" >>"$SMOKE_FOLDER/asked"
[ ! -e "$SMOKE_FOLDER/fail-$(basename "$0")-$1" ]
"""


class Container(ThreadingHTTPServer):
    """Answers as the container does through its proxy. It is ill for a second after a command was run inside it."""

    def __init__(self, asked: Path, device: str = "cuda"):
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked, self.device = asked, device
        self.ill_until: float | None = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def ill(self) -> bool:
        if self.ill_until is None and " exec " in self.asked.read_text():
            self.ill_until = time.monotonic() + 1
        return time.monotonic() < (self.ill_until or 0)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        logs = f"weights embedded, device {self.server.device}, fp16"
        self.answer(200, {"status": "UNHEALTHY" if self.server.ill else "READY", "setup": {"logs": logs}})

    def do_POST(self) -> None:
        inputs = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}").get("input", {})
        if self.path != "/predictions":
            self.answer(404, {})
        elif inputs.get("width") == 65:
            self.answer(200, {"status": "failed", "error": "width: 65 was given; a multiple of 32 is wanted"})
        else:
            picture = Image.effect_noise((64, 64), 50) if self.server.device == "random" else Image.new("L", (64, 64))
            timings = PngImagePlugin.PngInfo()
            timings.add_text("metadata", str(time.monotonic()))
            self.answer(200, {"status": "succeeded", "output": [as_uri(picture, pnginfo=timings)]})

    def answer(self, code: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def smoke(tmp_path: Path) -> Iterator[Callable[..., tuple[int, str, list[str]]]]:
    """A function that runs deploy/smoke on a device. Returns the exit code, the output, and what was asked of whom."""
    for name in ("cog", "docker"):
        (tmp_path / name).write_text(RECORD)
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "basename"):
        (tmp_path / name).symlink_to(shutil.which(name))

    def run(device: str, *flags: str) -> tuple[int, str, list[str]]:
        with Container(tmp_path / "asked", device) as server:
            environment = {"SMOKE_URL": f"http://127.0.0.1:{server.server_port}", "SMOKE_FOLDER": str(tmp_path)}
            environment["PATH"] = str(tmp_path)
            command = [sys.executable, ROOT / "deploy" / "smoke", *flags]
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)
            server.shutdown()
        return done.returncode, done.stdout, (tmp_path / "asked").read_text().splitlines()

    return run


def test_it_builds_runs_draws_kills_the_worker_and_says_that_all_held(smoke):
    code, printed, asked = smoke("cuda", "--use-cuda-base-image=false")
    assert (code, printed.splitlines()[-1]) == (0, "Everything held.")
    assert printed.count("\nheld: ") == 10
    assert asked[0] == "cog build -t japanese-stable-diffusion --use-cuda-base-image=false pypi:0.23.1"
    compose = f"docker compose -p jsd-smoke -f {ROOT / 'deploy' / 'compose.yaml'}"
    assert [line.removeprefix(compose).split()[0] for line in asked if compose in line] == ["up", "exec", "down"]


@pytest.mark.parametrize(
    ("device", "what"), [("cpu", "it draws on the GPU"), ("random", "the same seed draws the same picture")]
)
def test_it_says_what_did_not_hold(smoke, device, what):
    code, printed, asked = smoke(device)
    assert code == 1
    assert f"DID NOT HOLD: {what}" in printed
    assert " down " in asked[-1]


def test_it_says_so_where_there_is_no_docker(smoke, tmp_path):
    (tmp_path / "docker").unlink()
    code, printed, asked = smoke("cuda")
    assert code == 1
    assert "DID NOT HOLD: all steps could be done" in printed
    assert printed.endswith("2 did not hold: all steps could be done; nothing is left running\n")
    assert len(asked) == 1


@pytest.mark.parametrize("step", ["cog-build", "docker-compose"])
def test_a_step_that_fails_ends_it_and_nothing_is_left_running(smoke, tmp_path, step):
    (tmp_path / f"fail-{step}").touch()
    code, printed, asked = smoke("cuda")
    assert code == 1
    assert "DID NOT HOLD: all steps could be done" in printed
    assert " down " in asked[-1]
