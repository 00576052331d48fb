"""A model's safety checker is trained on, and takes the place of the one that was there."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from embedded import networks, safety_checker, safety_training
from embedded.safety_examples import FLAGGED
from jsd.genuine.folder import write_index, write_manifest
from jsd.manifest import verify
from tests.embedded.icons import short_table, write_icons

WEIGHTS = "safety_checker/model.safetensors"


@pytest.fixture
def begun(monkeypatch):
    """The checkers that trainings began with, as their weights; None for random ones."""
    found, true_train = [], safety_checker.train

    def train(*arguments):
        found.append(arguments[-1] and {name: value.clone() for name, value in arguments[-1].state_dict().items()})
        return true_train(*arguments)

    monkeypatch.setattr(safety_checker, "train", train)
    return found


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Call the command for a model folder, with few concepts and small numbers. Returns its exit code."""
    table = short_table(tmp_path / "table.tsv", ("cat", "dog", "car", "apple", *FLAGGED))
    monkeypatch.setattr(safety_training, "CONCEPTS_FILE", table)
    monkeypatch.setattr(safety_training, "EACH", 8)
    monkeypatch.setattr(safety_training, "fetch", lambda icons: None)
    numbers = {"drawn": 8, "rendered": 12, "minutes": 0.02, "batch": 4}
    icons = write_icons(tmp_path / "icons")

    def call(folder, **options):
        given = {"icons": icons, "workdir": tmp_path / "work", **numbers, **options}
        return safety_training.main([str(folder), *(f"--{name}={value}" for name, value in given.items())])

    return call


@pytest.fixture
def unchecked(tiny_copy):
    """A model folder without a safety checker."""
    manifest = json.loads((tiny_copy / "MANIFEST.json").read_text())
    for part in safety_training.REPLACED:
        shutil.rmtree(tiny_copy / part)
    write_index(tiny_copy)
    del manifest["files"]
    write_manifest(tiny_copy, **manifest)
    return tiny_copy


def test_a_checker_is_trained_and_then_trained_on_and_nothing_else_changes(command, begun, unchecked, tmp_path, capsys):
    before = verify(unchecked)
    assert command(unchecked) == 0, capsys.readouterr().err
    stored = load_file(unchecked / WEIGHTS)
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
    assert stored["visual_projection.weight"].shape[0] == networks.CHECKER_WIDTH
    assert command(unchecked) == 0, capsys.readouterr().err
    assert begun[0] is None
    assert all(torch.equal(begun[1][name].half(), stored[name].half()) for name in stored)

    after = verify(unchecked)
    new = {path for path in after["files"] if path.startswith(safety_training.REPLACED)}
    kept = before["files"].keys() - {"model_index.json"}
    assert after["files"].keys() - new == before["files"].keys()
    assert all(before["files"][path] == after["files"][path] for path in kept)
    assert after["figures"]["safety"] == {"drawn": 8, "rendered": 12, "minutes": 0.02}
    assert after["defaults"] == before["defaults"]
    assert len(list((tmp_path / "work").glob("*/drawn-*.npz"))) == 1  # the second training has the same pictures


def test_a_checker_of_another_kind_stays(command, tiny_copy, capsys):
    before = verify(tiny_copy)
    assert command(tiny_copy) == 2
    assert "has a safety checker of another kind" in capsys.readouterr().err
    assert verify(tiny_copy) == before


@pytest.mark.parametrize("option", ["icons", "workdir"])
def test_nothing_is_kept_inside_the_model(command, unchecked, capsys, option):
    before = verify(unchecked)
    assert command(unchecked, **{option: unchecked / "runs"}) == 2
    assert f"--{option}: " in capsys.readouterr().err
    assert verify(unchecked) == before
