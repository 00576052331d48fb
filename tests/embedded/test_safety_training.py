"""A model's safety checker is trained anew, and takes the place of the one that was there."""

import pytest
import torch
from safetensors.torch import load_file

from embedded import safety_training
from embedded.safety_examples import FLAGGED
from jsd.manifest import verify
from tests.embedded.icons import short_table, write_icons

CHECKER = "safety_checker/model.safetensors"


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A short table of concepts, in place of the project's."""
    file = short_table(tmp_path / "table.tsv", ("cat", "dog", "car", "apple", *FLAGGED))
    monkeypatch.setattr(safety_training, "CONCEPTS_FILE", file)
    monkeypatch.setattr(safety_training, "EACH", 8)
    monkeypatch.setattr(safety_training, "fetch", lambda icons: None)
    return file


def test_the_checker_of_a_model_is_replaced_and_nothing_else(table, tmp_path, tiny_copy, capsys):
    icons, work = write_icons(tmp_path / "icons"), tmp_path / "work"
    before = verify(tiny_copy)
    options = {"icons": icons, "workdir": work, "drawn": 8, "rendered": 12, "minutes": 0.02, "batch": 4}
    arguments = [str(tiny_copy), *(f"--{name}={value}" for name, value in options.items())]
    assert safety_training.main(arguments) == 0, capsys.readouterr().err
    after = verify(tiny_copy)
    changed = {path for path in before["files"] if before["files"][path] != after["files"].get(path)}
    assert {path.partition("/")[0] for path in changed} <= {*safety_training.REPLACED, "model_index.json"}
    assert CHECKER in changed
    assert {name: after[name] for name in before if name != "files"} == {n: before[n] for n in before if n != "files"}
    assert {value.dtype for value in load_file(tiny_copy / CHECKER).values()} >= {torch.float16}
    assert len(list(work.glob("*/drawn-*.npz"))) == 1
    first = load_file(tiny_copy / CHECKER)["visual_projection.weight"].float().flatten()
    assert safety_training.main(arguments) == 0, capsys.readouterr().err  # goes on from the one that it made
    second = load_file(tiny_copy / CHECKER)["visual_projection.weight"].float().flatten()
    assert torch.cosine_similarity(first, second, dim=0) > 0.9
    assert not torch.equal(first, second)
