"""What the server says when it can't serve, and what it needs nobody for."""

import os
import pickle
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch

from tests.e2e.conftest import CAT, WEIGHTS


class Evil:
    """Whoever loads its pickle makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def spoil(folder: Path, how: str, trap: Path) -> Path:
    """Spoil a model folder; the file the server should name."""
    file = next((folder / "unet").glob("*.safetensors"))
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "one bit":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "deleted":
        file.unlink()
    elif how == "a pickle in its place":
        file.unlink()
        file = file.with_suffix(".bin")
        file.write_bytes(pickle.dumps(Evil(trap)))
    elif how == "a pickle under its name":
        size = file.stat().st_size
        file.write_bytes(pickle.dumps(Evil(trap)).ljust(size, b"\0"))
    return file


@pytest.mark.parametrize("how", ["truncated", "one bit", "deleted", "a pickle in its place", "a pickle under its name"])
def test_bad_weights_fail_the_setup_and_are_named(start, tmp_path, how):
    folder = Path(shutil.copytree(WEIGHTS, tmp_path / "weights"))
    file = spoil(folder, how, tmp_path / "trap")
    server = start(JSD_WEIGHTS=str(folder))
    assert server.status() == "SETUP_FAILED"
    assert str(file) in server.health()["setup"]["logs"]
    assert not (tmp_path / "trap").exists()
    server.stop()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("JSD_WEIGHTS", "/nowhere/at/all", "/nowhere/at/all: no such folder"),
        ("JSD_DTYPE", "fp8", "JSD_DTYPE: 'fp8' was given; allowed are fp16, bf16, fp32"),
        pytest.param(
            "JSD_DEVICE",
            "cuda",
            "JSD_DEVICE: 'cuda' can't be used",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_a_setting_that_can_not_be_used_fails_the_setup_and_is_named(start, name, value, told):
    server = start(**{name: value})
    assert server.status() == "SETUP_FAILED"
    assert told in server.health()["setup"]["logs"]
    server.stop()


def test_nothing_is_fetched_from_anywhere(start):
    """Whatever the server's libraries would ask for goes through a proxy that only listens."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        proxy = f"http://127.0.0.1:{trap.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_ENDPOINT")
        server = start(**dict.fromkeys(names, proxy))
        assert len(server.draw(**CAT)) == 1
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()
    server.stop()


def test_behind_a_proxy_nobody_answers_for_a_webhook_can_not_shut_it_down(start):
    """As deploy/compose.yaml sets it: else a client could make the server ask itself to."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    server = start(**proxies, NO_PROXY="")
    body = {"input": CAT, "webhook": f"{server.url}/shutdown"}
    assert server.call("POST", "/predictions", body)[0] == 200
    time.sleep(2)
    assert server.process.poll() is None
    assert len(server.draw(**CAT)) == 1
    server.stop()


def test_it_ends_when_it_is_told_to_and_finishes_what_it_has_begun(start):
    server = start()
    running = server.begin(**CAT | {"num_inference_steps": 100})
    running.wait_for("1/100 [")
    server.process.terminate()
    print(running.result()["status"])
    assert server.process.wait(60) == 0
    assert running.result()["status"] == "succeeded"
