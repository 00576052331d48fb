"""Muon: matrices and filters get the step of torch.optim.Muon, and all other parameters that of AdamW."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from jsd.train import trainer
from jsd.train.muon import MuonWithAdamW, split
from jsd.train.plan import Plan, make_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = {
        "conv_in": nn.Conv2d(3, 16, 3),
        "filters": nn.Conv2d(16, 8, 3),
        "others": nn.Conv2d(16, 8, 3),
        "tall": nn.Linear(8, 24),
        "table": nn.Embedding(5, 8),
        "norm": nn.LayerNorm(8),
    }
    return nn.ModuleDict(layers)


def test_tables_edges_biases_and_norms_stay_with_adamw():
    model = network()
    model["others"].weight.requires_grad_(False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden, others = ({names[id(parameter)] for parameter in part} for part in split(model))
    assert hidden == {"filters.weight", "tall.weight"}
    assert hidden | others == set(names.values()) - {"others.weight"}


def test_filters_are_stepped_as_torch_steps_their_matrix():
    """torch.optim.Muon computes in bf16, so the steps differ by a few hundredths."""
    model = network()
    filters = [model["filters"].weight, model["others"].weight]
    matrices = [nn.Parameter(p.detach().flatten(1).clone()) for p in [*filters, model["tall"].weight]]
    mine = MuonWithAdamW([{"params": [*filters, model["tall"].weight], "muon": True}], lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        before = [matrix.detach().clone() for matrix in matrices]
        for parameter, matrix in zip([*filters, model["tall"].weight], matrices, strict=True):
            matrix.grad = torch.randn_like(matrix)
            parameter.grad = matrix.grad.view_as(parameter).clone()
        mine.step()
        theirs.step()
        for parameter, matrix, old in zip([*filters, model["tall"].weight], matrices, before, strict=True):
            assert (parameter.flatten(1) - matrix).norm() < 0.06 * (matrix - old).norm()


def test_the_other_parameters_are_stepped_by_adamw():
    model = network()
    twin = copy.deepcopy(model)
    mine = make_optimizer(model, Plan(1, 1e-2, muon=1e-3))
    theirs = torch.optim.AdamW(twin.parameters(), 1e-2, betas=Plan(1, 1e-2).betas, weight_decay=0.01)
    for optimizer, module in ((mine, model), (theirs, twin)):
        sum(parameter.square().sum() for parameter in module.parameters()).backward()
        optimizer.step()
    same = {name for name, p in model.named_parameters() if torch.allclose(p, twin.get_parameter(name), atol=1e-7)}
    assert same == {name for name, _ in model.named_parameters()} - {"filters.weight", "others.weight", "tall.weight"}


def test_a_run_with_muon_resumes_to_the_same_weights(tmp_path):
    def run(folder, stop_at=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))

        def loss_of(model, step, rng):
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.from_numpy(rng.normal(size=(8, 3))).float()
            return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}

        plan = Plan(12, 1e-2, muon=1e-2, save_every=5)
        trainer.train("line", model, loss_of, plan, folder, Accelerator(mixed_precision="no", cpu=True))
        return model.state_dict()

    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop_at=8)
    resumed = run(tmp_path / "b")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_muon_takes_no_groups():
    with pytest.raises(ValueError, match="either `groups` or `plan.muon`"):
        make_optimizer(network(), Plan(1, 1e-3, muon=1e-3), [{"params": []}])
