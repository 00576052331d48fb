"""Fixtures for the tests of `jsd.genuine`: a repository of 2022, the model converted from it, and a fake hub to use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from jsd.genuine.convert import convert
from jsd.manifest import MANIFEST
from tests.genuine.hub import Hub
from tests.genuine.repository import Repository, make_repository


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A small repository in the layout of 2022. All tests share it: one that changes files takes `old_copy`."""
    return make_repository(tmp_path_factory.mktemp("hub") / "old")


@pytest.fixture
def old_copy(old: Repository, tmp_path: Path) -> Path:
    """A copy of the folder of `old`, which the test may spoil."""
    return Path(shutil.copytree(old.folder, tmp_path / "old"))


@pytest.fixture(scope="session")
def converted(old: Repository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder that `convert` makes of `old`, in float16. Tests share it, so they only read it."""
    folder = tmp_path_factory.mktemp("weights") / "new"
    convert(old.folder, folder)
    return folder


@pytest.fixture
def plain(tiny_copy: Path) -> Path:
    """A model folder without its manifest, as diffusers would save it."""
    (tiny_copy / MANIFEST).unlink()
    return tiny_copy


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes huggingface_hub in this process use a given fake `Hub`, without a token.

    It sets the constants that huggingface_hub reads from the environment when it is imported. For another process, use
    `tests.genuine.hub.environment`.
    """

    def connect(hub: Hub, offline: bool = False) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))

    monkeypatch.delenv("HF_TOKEN", raising=False)
    return connect
