"""Fixtures for training: a fresh state of accelerate for every test, the settings of a short run, a failing command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from jsd import cli
from jsd.train.tokenizer import train_tokenizer
from tests.train.shards import good


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Reset accelerate before and after a test, because it keeps one precision and one device per process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def settings(tmp_path: Path, tiny_folder: Path) -> dict[str, Any]:
    """Settings of a short run of stage 1 on the tiny model, with a new tokenizer and four shards, without samples."""
    train_tokenizer(["猫の絵", "犬の絵", "青い空"] * 30, tmp_path / "tokenizer", 60, 16)
    good(tmp_path / "data", shards=4, each=8)
    (tmp_path / "no prompts").touch()
    return {
        "stage": "stage1",
        "model": tiny_folder,
        "tokenizer": tmp_path / "tokenizer",
        "shards": tmp_path / "data",
        "out": tmp_path / "run",
        "steps": 4,
        "batch": 4,
        "size": 64,
        "lr": 1e-3,
        "warmup": 2,
        "workers": 0,
        "save-every": 2,
        "prompts": tmp_path / "no prompts",
    }


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command of `python -m jsd`, which has to fail. It returns what stderr says."""

    def fails(*words: object) -> str:
        try:
            code = cli.main([*map(str, words)])
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err
        assert code == 2, error
        assert "Traceback" not in error
        return error.splitlines()[-1]

    return fails
