"""The training loop on models of a few weights: it learns, resumes, averages, and refuses a loss that is not finite."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from jsd.errors import TrainingError
from jsd.train import trainer
from jsd.train.checkpoints import read_curve
from jsd.train.trainer import Plan


def accelerator(mixed_precision="no"):
    return Accelerator(mixed_precision=mixed_precision, cpu=True)


def regression(folder, steps, stop_at=None, lr=1e-2):
    """Train a small regression. `stop_at` interrupts it before this step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)

    def loss_of(model, step, rng):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(8, 3))).float()
        return (model(x + 0.01 * torch.randn_like(x)) - x.sum(1, keepdim=True)).square().mean(), {}

    plan = Plan(steps, lr, warmup=5, save_every=10)
    trainer.train("line", model, loss_of, plan, folder, accelerator())
    return model


def test_training_learns_and_logs(tmp_path):
    model = regression(tmp_path, 400, lr=5e-2)
    assert torch.allclose(model.weight, torch.ones(1, 3), atol=0.1)
    rows = read_curve(tmp_path / "line.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"] / 10


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole = regression(tmp_path / "a", 40)
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "b", 40, stop_at=27)
    resumed = regression(tmp_path / "b", 40)
    assert torch.equal(whole.weight, resumed.weight)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"line-0000030", "line-0000040", "line.jsonl"}


@pytest.mark.parametrize(("other", "named"), [({"lr": 2e-2}, "lr 0.01, not 0.02"), ({"steps": 41}, "steps 40, not 41")])
def test_a_run_does_not_resume_under_another_plan(tmp_path, other, named):
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path, 40, stop_at=27)
    with pytest.raises(TrainingError, match=f"line-0000020: was begun with {named}"):
        regression(tmp_path, **{"steps": 40, **other})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def loss_of(model, step, rng):
        return model.weight.sum() * float("nan"), {"db": 1.0}

    with pytest.raises(TrainingError, match="line: the loss is nan at step 0"):
        trainer.train("line", torch.nn.Linear(1, 1), loss_of, Plan(3, 1e-3), tmp_path, accelerator())


def test_a_gradient_that_is_not_finite_leaves_the_last_good_checkpoint(tmp_path):
    def loss_of(model, step, rng):
        if step == 3:  # the square root of 0 is finite, but its slope is not
            return (model.weight - model.weight.detach()).abs().sqrt().sum(), {}
        return model.weight.square().sum(), {}

    plan = Plan(8, 1e-3, save_every=2)
    for _ in range(2):
        torch.manual_seed(0)
        with pytest.raises(TrainingError, match="gradient's norm is .* at step 3.*line-0000002"):
            trainer.train("line", torch.nn.Linear(1, 1), loss_of, plan, tmp_path, accelerator())


def test_on_save_sees_the_averaged_weights_and_training_continues_with_its_own(tmp_path):
    torch.manual_seed(0)
    model, seen = torch.nn.Linear(1, 1, bias=False), {}

    def loss_of(model, step, rng):
        seen[step] = model.weight.item()
        return (model.weight - 100).square().sum(), {}

    def on_save(step):
        seen[f"average {step}"] = model.weight.item()

    plan = Plan(20, 1.0, warmup=1, save_every=10, ema=0.9)
    trainer.train("line", model, loss_of, plan, tmp_path, accelerator(), on_save=on_save)
    assert seen[0] < seen["average 10"] < seen[9] < seen[10] < seen[19]
    assert model.weight.item() == seen["average 20"]


def train_in_bf16(folder, model, stop_at=None):
    def loss_of(model, step, rng):
        if step == stop_at:
            raise KeyboardInterrupt
        return (model(torch.ones(2, 8)) / 3 - 1).square().mean(), {}

    trainer.train("square", model, loss_of, Plan(3, 1e-2, warmup=1), folder, accelerator("bf16"))


@pytest.mark.parametrize("stop_at", [None, 1])
def test_a_trained_model_gives_the_results_of_its_weights_in_a_new_model(tmp_path, stop_at):
    """It computes under autocast only during the training, also when the training is interrupted."""
    torch.manual_seed(0)
    model, loaded = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    try:
        train_in_bf16(tmp_path, model, stop_at)
    except KeyboardInterrupt:
        assert stop_at is not None
    loaded.load_state_dict(model.state_dict())
    x = torch.randn(4, 8)
    assert torch.equal(model(x), loaded(x))


def test_a_second_training_of_a_model_is_like_that_of_its_weights_in_a_new_model(tmp_path):
    torch.manual_seed(0)
    model, loaded = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    train_in_bf16(tmp_path / "first", model)
    loaded.load_state_dict(model.state_dict())
    train_in_bf16(tmp_path / "second", model)
    train_in_bf16(tmp_path / "second of loaded", loaded)
    assert torch.equal(model.weight, loaded.weight)


def test_a_run_may_end_by_time_and_its_rate_falls_by_time(tmp_path, monkeypatch):
    """The clock of this test advances a second with every look at it."""
    seconds = iter(range(10_000))
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(seconds)))
    model, saved = torch.nn.Linear(1, 1), []
    plan = Plan(10**9, 1e-3, flat=0.6, seconds=100, save_seconds=30, warmup=1)

    def train(plan):
        loss_of = lambda model, step, rng: (model.weight.square().sum(), {})  # noqa: E731
        trainer.train("line", model, loss_of, plan, tmp_path, accelerator(), on_save=saved.append)

    train(plan)
    assert 3 <= len(saved) <= 4
    assert 10 < saved[-1] <= 100
    assert read_curve(tmp_path / "line.jsonl")[-1]["seconds"] >= 99
    steps = saved[-1]
    train(plan)  # its time is over
    assert saved[-1] == steps
    train(replace(plan, seconds=200))
    assert saved[-1] > steps
    assert plan.lr_at(500, 0.6) == 1
    assert 0.02 < plan.lr_at(500, 0.9) < 0.2
