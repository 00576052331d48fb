"""`weights pull` from a server with the hub's API: open, gated and broken off, and each error with its advice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jsd import cli, model
from jsd.errors import HubError
from jsd.genuine.convert import convert
from jsd.genuine.hub import check_space, choose
from jsd.manifest import verify
from tests.genuine.hub import SHA, Hub, environment, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pull(connect, tmp_path, capsys):
    """A function that runs `weights pull REPOSITORY --to tmp_path/model ...` in this process.

    It returns the exit code and the text on stdout and stderr.
    """

    def pull(hub: Hub, *arguments: str, repository: str = "owner/name", offline: bool = False) -> tuple[int, str]:
        connect(hub, offline)
        code = cli.main(["weights", "pull", repository, "--to", str(tmp_path / "model"), *arguments])
        return code, "".join(capsys.readouterr())

    return pull


def test_a_process_of_its_own_pulls_an_open_repository(old, tmp_path):
    with serve(Hub(old.folder)) as hub:
        done = subprocess.run(
            [sys.executable, "-m", "jsd", "weights", "pull", "owner/name", "--to", str(tmp_path / "model")],
            cwd=ROOT,
            env=environment(hub, tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert f"wrote {tmp_path / 'model'}; JSD_WEIGHTS={tmp_path / 'model'} serves it" in done.stdout
    assert verify(tmp_path / "model")["name"] == "name"
    assert model.load(tmp_path / "model").safety_checker is not None


def test_only_the_files_that_are_needed_are_fetched_and_none_is_left(old, pull, tmp_path):
    with serve(Hub(old.folder)) as hub:
        assert pull(hub)[0] == 0
    assert (tmp_path / "model" / "LICENSE").is_file()
    assert not any("flax" in name or name.endswith(".ckpt") for name in hub.fetched)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("model.")]


def test_a_gated_repository_says_how_to_get_a_token(old, pull, tmp_path, monkeypatch):
    with serve(Hub(old.folder, token="hf_good")) as hub:
        for token in (None, "hf_bad"):
            if token:
                monkeypatch.setenv("HF_TOKEN", token)
            code, text = pull(hub)
            assert code == 2
            assert f"Visit {hub.url}/owner/name" in text
            assert "tick the box" in text
            assert "set HF_TOKEN" in text
            assert not (tmp_path / "model").exists()


def test_a_token_opens_a_gated_repository_and_a_second_pull_replaces_the_model(old, pull, tmp_path, monkeypatch):
    with serve(Hub(old.folder, token="hf_good")) as hub:
        assert pull(hub, "--token", "hf_good")[0] == 0
        verify(tmp_path / "model")
        (tmp_path / "model" / "README.md").write_text("from the first pull")
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        assert pull(hub)[0] == 0
    verify(tmp_path / "model")
    assert not (tmp_path / "model" / "README.md").exists()


def test_a_download_that_breaks_off_once_is_repeated(old, pull, tmp_path):
    with serve(Hub(old.folder, cut="once")) as hub:
        assert pull(hub)[0] == 0
    assert hub.fetched.count("unet/diffusion_pytorch_model.bin") == 2
    verify(tmp_path / "model")


def test_a_download_that_stays_broken_can_be_continued(old, pull, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits before it tries again
    with serve(Hub(old.folder, cut="always")) as hub:
        code, text = pull(hub)
        assert code == 2
        assert "run the same command again to continue" in text
        assert not (tmp_path / "model").exists()
        hub.cut, first = "", set(hub.fetched)
        hub.fetched.clear()
        assert pull(hub)[0] == 0
        complete = {name for name in first if name.endswith(".json")}
        assert complete - set(hub.fetched)
    verify(tmp_path / "model")
    assert not list(tmp_path.glob("*.download"))


def test_a_model_of_another_repository_is_not_replaced(old, converted, pull, tmp_path):
    shutil.copytree(converted, tmp_path / "model")
    manifest = tmp_path / "model" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace("converted from old", "alice/other at 0123"))
    with serve(Hub(old.folder)) as hub:
        code, text = pull(hub)
    assert code == 2
    assert "is another model (alice/other at 0123)" in text
    assert not hub.fetched


@pytest.mark.parametrize("token", ["hf_sec\nret", "hf_sec…ret"])
def test_a_text_that_can_not_be_a_token_is_refused_and_not_shown(old, pull, token):
    with serve(Hub(old.folder, token="hf_good")) as hub:
        code, text = pull(hub, "--token", token)
    assert code == 2
    assert "the token holds characters that no token has" in text
    assert "hf_sec" not in text
    assert not hub.fetched


def test_a_pulled_model_is_the_same_as_a_converted_one(old, pull, tmp_path):
    with serve(Hub(old.folder)) as hub:
        assert pull(hub, "--dtype", "fp32")[0] == 0
    convert(old.folder, tmp_path / "converted", torch.float32, name="name", origin=f"owner/name at {SHA}")
    manifests = [json.loads((tmp_path / name / "MANIFEST.json").read_text()) for name in ("model", "converted")]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("arguments", "repository", "message"),
    [
        ((), "owner/other", "owner/other: not found"),
        ((), "owner/../../x", "not the name of a repository"),
        (("--revision", "v9"), "owner/name", "has no revision v9"),
    ],
)
def test_a_wrong_name_or_revision_is_named(old, pull, tmp_path, arguments, repository, message):
    with serve(Hub(old.folder)) as hub:
        code, text = pull(hub, *arguments, repository=repository)
    assert code == 2
    assert message in text
    assert not (tmp_path / "model").exists()


def test_offline_mode_is_named(old, pull):
    with serve(Hub(old.folder)) as hub:
        code, text = pull(hub, offline=True)
    assert code == 2
    assert "HF_HUB_OFFLINE is set" in text
    assert not hub.fetched


def test_a_hub_that_can_not_be_reached_is_named(old, pull):
    code, text = pull(Hub(old.folder, url="http://127.0.0.1:9"))
    assert code == 2
    assert "owner/name: the download broke off (ConnectError" in text


def test_a_disk_that_is_too_small_is_named_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000_000_000})())
    sizes = [4_000_000_000, 2_000_000_000]
    with pytest.raises(HubError, match=r"10.0 GB are free there, 16.0 GB are needed"):
        check_space(tmp_path / "far" / "away", tmp_path / "download", sizes)
    (tmp_path / "download").mkdir()
    with (tmp_path / "download" / "unet").open("wb") as file:
        file.truncate(6_000_000_000)
    check_space(tmp_path / "far" / "away", tmp_path / "download", sizes)  # nothing is left to fetch


def test_safetensors_are_chosen_before_pickles_and_nothing_that_is_not_needed():
    parts = ("text_encoder", "vae", "unet", "safety_checker")
    files = [f"{part}/{name}" for part in parts for name in ("model.safetensors", "pytorch_model.bin", "config.json")]
    chosen = choose([*files, "unet/flax.msgpack", "v1.ckpt", "LICENSE.md", "tokenizer/spiece.model", "README.md"])
    assert sorted(chosen) == sorted(
        [f"{part}/{name}" for part in parts for name in ("model.safetensors", "config.json")]
        + ["LICENSE.md", "tokenizer/spiece.model", "README.md"]
    )


def test_a_repository_without_a_part_is_refused():
    with pytest.raises(HubError, match="no weights of vae"):
        choose([f"{part}/model.safetensors" for part in ("text_encoder", "unet", "safety_checker")])
