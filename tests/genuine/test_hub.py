"""`weights pull` from a server that speaks the hub's API: open, gated, broken off, and what else goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from jsd import model
from jsd.errors import WeightsError
from jsd.genuine import hub as jsd_hub
from jsd.genuine.hub import choose
from jsd.manifest import verify
from tests.genuine.hub import SHA, Hub, make_2022_folder, serve


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "name"
    make_2022_folder(folder)
    return folder


@pytest.fixture
def pull(tmp_path):
    """`python -m jsd weights pull owner/name ...` in a process of its own: the hub's address is read on import."""

    def run(hub: Hub, *arguments: str, repository="owner/name", **environment: str) -> subprocess.CompletedProcess:
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "20"}
        clean = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
        return subprocess.run(
            [sys.executable, "-m", "jsd", "weights", "pull", repository, "--to", str(tmp_path / "model"), *arguments],
            env={**clean, **own, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_an_open_repository_becomes_a_folder_that_loads(repository, pull, tmp_path):
    with serve(Hub(repository)) as hub:
        done = pull(hub)
    assert done.returncode == 0, done.stderr
    manifest = verify(tmp_path / "model")
    assert manifest["name"] == "name"
    assert model.load(tmp_path / "model").safety_checker is not None
    assert (tmp_path / "model" / "LICENSE").is_file()
    assert not any("flax" in name or name.endswith(".ckpt") for name in hub.fetched)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("model.")]


def test_a_gated_repository_tells_what_to_do_and_opens_with_a_token(repository, pull, tmp_path):
    with serve(Hub(repository, token="hf_good")) as hub:
        for environment in ({}, {"HF_TOKEN": "hf_bad"}):
            done = pull(hub, **environment)
            assert done.returncode == 2
            assert f"Visit {hub.url}/owner/name" in done.stderr
            assert "tick the box" in done.stderr
            assert "set HF_TOKEN" in done.stderr
            assert "Traceback" not in done.stderr
            assert not (tmp_path / "model").exists()
        assert pull(hub, "--token", "hf_good").returncode == 0
        verify(tmp_path / "model")
        done = pull(hub, HF_TOKEN="hf_good")  # again: the model is replaced
        assert done.returncode == 0, done.stderr
    verify(tmp_path / "model")


def test_a_connection_that_breaks_costs_nothing_but_time(repository, pull, tmp_path):
    with serve(Hub(repository, cut="once")) as hub:
        done = pull(hub)
    assert done.returncode == 0, done.stderr
    assert hub.fetched.count("unet/diffusion_pytorch_model.bin") == 2
    model.load(tmp_path / "model")


def test_a_download_that_stays_broken_leaves_nothing_under_the_final_name(repository, pull, tmp_path):
    with serve(Hub(repository, cut="always")) as hub:
        done = pull(hub)
        assert done.returncode == 2
        assert "run the same again to go on" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "model").exists()
        hub.cut, first = "", set(hub.fetched)
        hub.fetched.clear()
        assert pull(hub).returncode == 0
        small = {name for name in first if name.endswith(".json")}
        assert small - set(hub.fetched)  # what had come whole is not fetched again
    model.load(tmp_path / "model")
    assert not list(tmp_path.glob("*.download"))


def test_another_model_is_not_replaced(repository, pull, tmp_path):
    with serve(Hub(repository)) as hub:
        assert pull(hub).returncode == 0
        manifest = tmp_path / "model" / "MANIFEST.json"
        assert json.loads(manifest.read_text())["source"] == f"owner/name at {SHA}"
        manifest.write_text(manifest.read_text().replace("owner/name at", "alice/other at"))
        done = pull(hub)
    assert done.returncode == 2
    assert "is another model (alice/other at" in done.stderr


@pytest.mark.parametrize("token", ["hf_sec\nret", "hf_sec…ret"])
def test_a_token_that_is_none_is_refused_and_not_shown(repository, pull, token):
    with serve(Hub(repository, token="hf_good")) as hub:
        done = pull(hub, "--token", token)
    assert done.returncode == 2
    assert "the token holds characters that no token has" in done.stderr
    assert "hf_sec" not in done.stdout + done.stderr
    assert not hub.fetched


def test_the_same_pictures_come_from_a_pulled_folder_as_from_a_converted_one(repository, pull, tmp_path):
    """What they are is compared with stock diffusers in test_convert."""
    from jsd.genuine.convert import convert

    with serve(Hub(repository)) as hub:
        assert pull(hub, "--dtype", "fp32").returncode == 0
    convert(repository, tmp_path / "converted", weights_dtype("fp32"), name="name", origin="owner/name")
    one, other = (
        json.loads((tmp_path / folder / "MANIFEST.json").read_text())["files"] for folder in ("model", "converted")
    )
    assert one == other


def weights_dtype(name):
    import torch

    return {"fp16": torch.float16, "fp32": torch.float32}[name]


@pytest.mark.parametrize(
    ("arguments", "repository_name", "environment", "told"),
    [
        ((), "owner/other", {}, "owner/other: not found"),
        ((), "owner/../../x", {}, "no name of a repository"),
        (("--revision", "v9"), "owner/name", {}, "has no revision v9"),
        ((), "owner/name", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ((), "owner/name", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the download broke off"),
    ],
)
def test_what_goes_wrong_is_told(repository, pull, tmp_path, arguments, repository_name, environment, told):
    with serve(Hub(repository)) as hub:
        done = pull(hub, *arguments, repository=repository_name, **environment)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_full_disk_is_told_before_the_download(repository, pull, tmp_path, monkeypatch):
    monkeypatch.setattr(jsd_hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000_000_000})())
    sizes = [4_000_000_000, 2_000_000_000]
    with pytest.raises(WeightsError, match=r"10.0 GB are free there, 16.0 GB are needed"):
        jsd_hub._check_space(tmp_path / "far" / "away", tmp_path / "download", sizes)
    (tmp_path / "download").mkdir()
    with (tmp_path / "download" / "unet").open("wb") as file:
        file.truncate(6_000_000_000)  # has come already
    jsd_hub._check_space(tmp_path / "far" / "away", tmp_path / "download", sizes)


def test_safetensors_are_chosen_before_pickles_and_nothing_unneeded():
    parts = ("text_encoder", "vae", "unet", "safety_checker")
    files = [f"{part}/{name}" for part in parts for name in ("model.safetensors", "pytorch_model.bin", "config.json")]
    chosen = choose([*files, "unet/flax.msgpack", "v1.ckpt", "LICENSE.md", "tokenizer/spiece.model", "README.md"])
    assert sorted(chosen) == sorted(
        [f"{part}/{name}" for part in parts for name in ("model.safetensors", "config.json")]
        + ["LICENSE.md", "tokenizer/spiece.model", "README.md"]
    )
    with pytest.raises(WeightsError, match="no weights of vae"):
        choose([file for file in files if not file.startswith("vae")])
