"""The loop, the closed-form latents, the tokenizer: how the embedded model is taught."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from embedded import autoencoder
from embedded.text_to_image import NOISE_SCHEDULE
from jsd.tokenizer import Tokenizer
from jsd.train import trainer
from jsd.train.tokenizer import EDGE, train_tokenizer
from jsd.train.trainer import Plan


@pytest.fixture(autouse=True)
def _own_precision():
    """accelerate keeps one precision a process; other tests choose another."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def regression(folder, steps, stop_at=None, lr=1e-2):
    """Fit a small regression; `stop_at` ends it with an error, as a kill would."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)

    def loss_of(model, step, rng):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(8, 3))).float()
        return (model(x + 0.01 * torch.randn_like(x)) - x.sum(1, keepdim=True)).square().mean(), {}

    plan = Plan(steps, lr, warmup=5, save_every=10)
    trainer.train("line", model, loss_of, plan, folder, Accelerator(mixed_precision="no", cpu=True))
    return model


def test_training_learns_and_logs(tmp_path):
    model = regression(tmp_path, 400, lr=5e-2)
    assert torch.allclose(model.weight, torch.ones(1, 3), atol=0.1)
    rows = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] / 10


def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path):
    whole = regression(tmp_path / "a", 40)
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "b", 40, stop_at=27)
    resumed = regression(tmp_path / "b", 40)
    assert torch.equal(whole.weight, resumed.weight)
    assert not list((tmp_path / "b").glob("*.tmp"))


@pytest.mark.parametrize(("other", "named"), [({"lr": 2e-2}, "lr 0.01, not 0.02"), ({"steps": 41}, "steps 40, not 41")])
def test_a_run_does_not_go_on_under_another_plan(tmp_path, other, named):
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path, 40, stop_at=27)
    with pytest.raises(ValueError, match=f"line-0000020: was begun with {named}"):
        regression(tmp_path, **{"steps": 40, **other})


def test_a_loss_that_is_no_number_stops_the_run_and_names_it(tmp_path):
    model = torch.nn.Linear(1, 1)

    def loss_of(model, step, rng):
        return model.weight.sum() * float("nan"), {"db": 1.0}

    with pytest.raises(FloatingPointError, match="line: the loss is nan at step 0"):
        trainer.train("line", model, loss_of, Plan(3, 1e-3), tmp_path, Accelerator(mixed_precision="no", cpu=True))


def test_a_gradient_that_is_no_number_leaves_the_last_good_checkpoint(tmp_path):
    def loss_of(model, step, rng):
        if step == 3:  # the root of nothing: finite, but not its slope
            return (model.weight - model.weight.detach()).abs().sqrt().sum(), {}
        return model.weight.square().sum(), {}

    plan = Plan(8, 1e-3, save_every=2)
    for _ in range(2):
        torch.manual_seed(0)
        accelerator = Accelerator(mixed_precision="no", cpu=True)
        with pytest.raises(FloatingPointError, match="gradient's norm is .* at step 3.*line-0000002"):
            trainer.train("line", torch.nn.Linear(1, 1), loss_of, plan, tmp_path, accelerator)


@pytest.fixture
def images():
    """Smooth pictures: a few waves of random direction and colour each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64
    waves = np.sin(
        rng.normal(size=(40, 1, 1, 3)) * 4 * x[None, ..., None]
        + rng.normal(size=(40, 1, 1, 3)) * 4 * y[None, ..., None]
    )
    return ((waves + 1) * 127.5).astype(np.uint8)


def test_closed_form_latents_give_the_picture_back(images):
    x = autoencoder.to_tensor(images)
    few = autoencoder.LinearLatents.from_images(images, patch=16, channels=6)
    many = autoencoder.LinearLatents.from_images(images, patch=16, channels=48)
    z = many.encode(x)
    assert z.shape == (40, 48, 4, 4)
    assert float(z.std()) == pytest.approx(1, abs=0.3)
    assert autoencoder.psnr(many.decode(z), x) > 45
    assert autoencoder.psnr(few.decode(few.encode(x)), x) < autoencoder.psnr(many.decode(z), x)


def test_the_segments_in_order_are_the_decoder():
    torch.manual_seed(0)
    vae = autoencoder.make_vae().eval()
    for parameter in vae.parameters():  # some residual branches start at nothing: give them something to do
        torch.nn.init.normal_(parameter, std=0.05)
    z = torch.randn(1, autoencoder.CHANNELS, 2, 2)
    with torch.no_grad():
        h = z
        for part in autoencoder.segments(vae):
            h = part(h)
        assert torch.equal(h, vae.decode(z).sample)
    assert h.shape == (1, 3, 64, 64)


def test_the_decoder_and_encoder_train_a_step_at_a_time(tmp_path, images):
    torch.manual_seed(0)
    vae = autoencoder.make_vae()
    # Any orthonormal basis will do here; the components of 32 x 32 patches take seconds to find.
    basis = torch.linalg.qr(torch.randn(3 * autoencoder.PATCH**2, autoencoder.CHANNELS))[0]
    latents = autoencoder.LinearLatents(autoencoder.PATCH, basis, torch.zeros(len(basis)), torch.ones(basis.shape[1]))
    before = {name: p.clone() for name, p in vae.named_parameters()}
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    autoencoder.train_decoder(vae, images, latents, [(Plan(2, 1e-3), 2)] * 4, tmp_path, accelerator)
    autoencoder.train_encoder(vae, images, latents, Plan(2, 1e-3), tmp_path, accelerator, batch=2)
    still = [name for name, p in vae.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_the_tokenizer_folds_widths_and_keeps_words_apart(tmp_path):
    words = ["猫", "犬", "富士山", "ラーメン", "油絵", "水彩画", "の肖像画", "TV"]
    texts = [f"{EDGE}{a}{EDGE} {EDGE}{b}{EDGE}" for a in words for b in words] * 20
    train_tokenizer(texts, tmp_path, vocab_size=200, max_length=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spiece.model", "tokenizer_config.json"]
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.max_length) == (0, 1, 16)
    assert tokenizer("ﾗｰﾒﾝ　ＴＶ").ids == tokenizer("ラーメン tv").ids
    pieces = [tokenizer.pieces.id_to_piece(i) for i in range(tokenizer.vocabulary_size)]
    assert not [piece for piece in pieces if sum(word in piece for word in words) > 1]
    assert not [piece for piece in pieces if EDGE in piece]


def test_a_bar_in_a_caption_is_a_character_like_any_other(tmp_path):
    train_tokenizer(["東京タワー | 観光ガイド", "猫|犬"] * 50, tmp_path, vocab_size=60, max_length=16)
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.pieces.unk_id() not in tokenizer("東京タワー | 観光ガイド").ids


def test_the_noise_ends_dark_enough_and_every_sampler_can_follow_it():
    from diffusers import DDPMScheduler

    from jsd.schedulers import SCHEDULERS, make_scheduler

    assert float(DDPMScheduler(**NOISE_SCHEDULE).alphas_cumprod[-1].sqrt()) < 0.02
    for name in SCHEDULERS:
        assert make_scheduler(name, NOISE_SCHEDULE).config.prediction_type == "v_prediction"
