"""A model is taught other proportions: its UNet changes, and nothing else."""

from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file

from embedded import proportions
from jsd.manifest import verify
from jsd.train import stages
from jsd.train.diffusion import Denoiser
from jsd.train.parts import load_parts
from tests.embedded.icons import short_table, write_icons


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Call the command for a model folder, with few concepts and small numbers. Returns its exit code."""
    table = short_table(tmp_path / "table.tsv", ("cat", "dog", "car", "apple"))
    monkeypatch.setattr(proportions, "CONCEPTS_FILE", table)
    monkeypatch.setattr(proportions, "SHARD", 2)
    monkeypatch.setattr(proportions, "fetch", lambda icons: None)
    numbers = {"scenes": 16, "minutes": 0.02, "batch": 4}
    icons = write_icons(tmp_path / "icons")

    def call(folder, **options):
        given = {"icons": icons, "workdir": tmp_path / "work", **numbers, **options}
        return proportions.main([str(folder), *(f"--{name}={value}" for name, value in given.items())])

    return call


@pytest.fixture
def losses(monkeypatch):
    """What `Keeping` was called with, and what it returned: (new, known, said, error, change)."""
    found, true_forward = [], proportions.Keeping.forward

    def forward(self, new, known, said):
        error, change = true_forward(self, new, known, said)
        found.append((new, known, said, error, change))
        return error, change

    monkeypatch.setattr(proportions.Keeping, "forward", forward)
    return found


def test_the_unet_is_trained_and_nothing_else_changes(command, tiny_copy, tmp_path, capsys):
    before = verify(tiny_copy)
    assert command(tiny_copy) == 0, capsys.readouterr().err
    after = verify(tiny_copy)
    assert after["files"].keys() == before["files"].keys()
    changed = {path for path, entry in after["files"].items() if entry != before["files"][path]}
    assert "unet/diffusion_pytorch_model.safetensors" in changed
    assert changed <= {path for path in after["files"] if path.startswith("unet/")} | {"model_index.json"}
    assert after["figures"]["proportions"] == {"scenes": 16, "minutes": 0.02, "batch": 4}
    assert after["defaults"] == before["defaults"]
    stored = load_file(tiny_copy / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert not list((tmp_path / "work").iterdir())


def test_squares_are_kept_and_the_others_are_learnt(command, losses, tiny_folder, tiny_copy, capsys):
    assert command(tiny_copy, batch=3) == 0, capsys.readouterr().err
    for new, known, *_ in losses:
        (height, width), (side, other) = new[0].shape[2:], known[0].shape[2:]
        assert height != width
        assert side == other
        assert (len(new[0]), len(known[0])) == (1, 2)
    _, known, said, _, change = losses[0]
    assert change < 1e-6  # nothing is trained yet
    parts = load_parts("stage2", tiny_folder, None)
    denoiser = Denoiser(parts.text_encoder, parts.unet, stages.noise_schedule(parts.scheduler_config))
    with torch.no_grad():
        wanted = denoiser.predicted(*known)
    assert (said - wanted).abs().max() < 0.05  # bf16, where the machine has it
    assert losses[-1][-1] > 0


def test_a_run_that_was_stopped_goes_on(command, losses, tiny_copy, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(proportions, "replace_parts", stop)
        assert command(tiny_copy) == 2
    assert "No space" in capsys.readouterr().err
    steps = len(losses)
    assert command(tiny_copy) == 0, capsys.readouterr().err
    assert len(losses) == steps  # it was at its end


def test_a_model_without_a_manifest_is_refused_before_anything_is_done(command, tiny_copy, capsys, tmp_path):
    (tiny_copy / "MANIFEST.json").unlink()
    assert command(tiny_copy) == 2
    assert "MANIFEST.json" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("option", ["icons", "workdir"])
def test_nothing_is_kept_inside_the_model(command, tiny_copy, capsys, option):
    before = verify(tiny_copy)
    assert command(tiny_copy, **{option: tiny_copy / "runs"}) == 2
    assert f"--{option}: " in capsys.readouterr().err
    assert verify(tiny_copy) == before


def test_a_change_of_what_was_known_costs_something(tiny_folder):
    parts = load_parts("stage2", tiny_folder, None)
    denoiser = Denoiser(parts.text_encoder, parts.unet, stages.noise_schedule(parts.scheduler_config), 5.0)
    before, keeping = deepcopy(denoiser), proportions.Keeping(denoiser)
    x_0, t = torch.zeros(2, parts.unet.config.in_channels, 8, 8), torch.tensor([100, 400])
    batch = x_0, torch.ones(2, parts.tokenizer.max_length, dtype=torch.long), torch.ones_like(x_0), t
    with torch.no_grad():
        said = before.predicted(*batch)
        error, change = keeping(batch, batch, said)
        assert change == 0
        assert error == before(*batch)
        parts.unet.conv_out.bias += 1
        assert keeping(batch, batch, said)[1] > 0.01
