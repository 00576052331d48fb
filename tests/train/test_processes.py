"""Two processes train like one process that accumulates two batches, also when the run is resumed."""

import shutil

import pytest
import torch

from jsd.train.checkpoints import read_curve
from jsd.train.parts import load_parts
from jsd.train.stages import STAGES
from tests.train.runs import average_of, run_loop, run_two_processes


def first_weights(settings, stage):
    """The weights that a stage begins with, of the parts that it trains, as one vector."""
    parts = load_parts(stage, settings["model"], settings["tokenizer"])
    weights = [p.detach().flatten() for part in STAGES[stage].trains for p in getattr(parts, part).parameters()]
    return torch.cat(weights)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_processes_train_like_one_that_accumulates_two(settings, tmp_path, stage):
    settings |= {"stage": stage, "tokenizer": settings["tokenizer"] if stage == "stage1" else None, "ema": 0.5}
    assert run_loop(settings, accumulate=2, workers=2, out=tmp_path / "one") == 0
    run_two_processes(settings, out=tmp_path / "two")
    if stage == "stage2":
        shutil.rmtree(tmp_path / "two" / "stage2-0000004")
        run_two_processes(settings, out=tmp_path / "two")  # resumes from step 2

    losses = [read_curve(tmp_path / name / f"{stage}.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in losses[0]] == [row["step"] for row in losses[1]] == [0, 3]
    for one, two in zip(*losses, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=0.01)
    first = first_weights(settings, stage)
    one, two = (average_of(tmp_path / name, stage) for name in ("one", "two"))
    assert (one - two).norm() < 0.01 * (one - first).norm()
