"""A stage changes the parts it trains and no others, and the diffusion loss is the one of the papers."""

import copy

import pytest
import torch
from accelerate import Accelerator

from jsd.errors import InputError, TrainingError, WeightsError
from jsd.train.data import Shards, Stream
from jsd.train.diffusion import Denoiser, draws
from jsd.train.parts import load_parts
from jsd.train.shards import find_shards
from jsd.train.stages import freeze, latents_of, noise_schedule, train_stage
from jsd.train.trainer import Plan


@pytest.mark.parametrize(
    ("stage", "trained"), [("stage1", {"text_encoder"}), ("stage2", {"text_encoder", "unet"}), ("base", {"unet"})]
)
def test_a_stage_changes_only_the_parts_it_trains(settings, tmp_path, stage, trained):
    parts = load_parts(stage, settings["model"], settings["tokenizer"] if stage == "stage1" else None)
    accelerator = Accelerator(cpu=True)
    freeze(parts.vae, accelerator)
    before = {part: copy.deepcopy(getattr(parts, part).state_dict()) for part in ("text_encoder", "unet", "vae")}
    train_stage(
        stage,
        parts.text_encoder,
        parts.unet,
        noise_schedule(parts.scheduler_config),
        latents_of(Stream(Shards(find_shards(str(settings["shards"])), 64, 4)), parts.vae, parts.tokenizer),
        torch.tensor(parts.tokenizer("").ids),
        Plan(2, 1e-3, warmup=1),
        tmp_path,
        accelerator,
    )
    for part, tensors in before.items():
        after = getattr(parts, part).state_dict()
        changed = [key for key in tensors if not torch.equal(tensors[key], after[key])]
        if part in trained:
            # A few tensors may get no gradient, for example the norm of the pooled text.
            assert len(changed) > 0.9 * len(tensors), part
        else:
            assert changed == [], part


def test_a_stage_that_keeps_the_text_encoder_keeps_its_tokenizer(settings):
    with pytest.raises(InputError, match="--tokenizer: stage2 keeps the text encoder"):
        load_parts("stage2", settings["model"], settings["tokenizer"])


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_new_text_encoder_needs_the_config_of_the_folder(settings, tiny_copy, content):
    (tiny_copy / "MANIFEST.json").unlink(missing_ok=True)
    config = tiny_copy / "text_encoder" / "config.json"
    config.unlink()
    if content:
        config.write_text(content, "utf-8")
    with pytest.raises(WeightsError, match="config.json: (missing|not a JSON object)"):
        load_parts("stage1", tiny_copy, settings["tokenizer"])


def test_draws_depend_on_the_sample_and_not_on_its_batch():
    together = draws(["a", "b", "c"], 1, 5, (4, 2, 2), 1000)
    apart = [draws([key], 1, 5, (4, 2, 2), 1000) for key in "abc"]
    for i, values in enumerate(together):
        assert torch.equal(values, torch.cat([one[i] for one in apart]))
    assert not torch.equal(draws(["a"], 1, 6, (4, 2, 2), 1000)[0], apart[0][0])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_timesteps(components, prediction_type):
    """The weight is min(SNR, gamma) / SNR, for v-prediction min(SNR, gamma) / (SNR + 1)."""
    config = {**components.scheduler_config, "prediction_type": prediction_type}
    scheduler = noise_schedule(config)
    x_0, eps = torch.randn(2, 1, components.unet.config.in_channels, 4, 4)
    ids = torch.tensor([components.tokenizer("猫").ids])
    with torch.no_grad():
        for t in (torch.tensor([20]), torch.tensor([900])):
            alpha_bar = scheduler.alphas_cumprod[t].item()
            snr = alpha_bar / (1 - alpha_bar)
            plain = Denoiser(components.text_encoder, components.unet, scheduler)(x_0, ids, eps, t)
            weighted = Denoiser(components.text_encoder, components.unet, scheduler, 5.0)(x_0, ids, eps, t)
            wanted = min(snr, 5.0) / (snr if prediction_type == "epsilon" else snr + 1)
            assert (weighted / plain).item() == pytest.approx(wanted, rel=1e-4)


def test_a_model_that_predicts_the_sample_is_refused(components):
    scheduler = noise_schedule({**components.scheduler_config, "prediction_type": "sample"})
    with pytest.raises(TrainingError, match="prediction_type is 'sample'; epsilon and v_prediction"):
        Denoiser(components.text_encoder, components.unet, scheduler)
