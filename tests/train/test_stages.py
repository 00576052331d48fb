"""The two stages on a tiny model: what each changes, that a killed run goes on, and what comes out opens and draws."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from jsd import model, sampling
from jsd.request import Request
from jsd.tokenizer import Tokenizer
from jsd.train import export, run_stage, trainer
from jsd.train.diffusion import Denoiser, draws
from jsd.train.stages import noise_schedule
from jsd.train.tokenizer import train_tokenizer

from .shards import good


@pytest.fixture(autouse=True)
def _own_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def arguments(tmp_path, tiny_folder):
    """A run of stage 1 on the tiny model: new tokenizer, four small shards."""
    train_tokenizer(["猫の絵", "犬の絵", "青い空"] * 30, tmp_path / "tokenizer", 60, 16)
    good(tmp_path / "data", shards=4, each=8)
    values = {
        "stage": "stage1",
        "model": tiny_folder,
        "tokenizer": tmp_path / "tokenizer",
        "shards": tmp_path / "data",
        "out": tmp_path / "run",
        "steps": 6,
        "batch": 4,
        "size": 64,
        "lr": 1e-3,
        "warmup": 2,
        "workers": 0,
        "save-every": 3,
    }
    return values


def flags(values, **changed):
    merged = values | {key.replace("_", "-"): value for key, value in changed.items()}
    return [word for key, value in merged.items() if value is not None for word in (f"--{key}", str(value))] + ["--cpu"]


def train(values, **changed):
    AcceleratorState._reset_state(reset_partial_state=True)
    run_stage.main(flags(values, **changed))


def tensors(folder, part):
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def changed(one, other):
    return {key for key in one if not torch.equal(one[key].float(), other[key].float())}


@pytest.mark.parametrize(
    ("stage", "trained"), [("stage1", {"text_encoder"}), ("stage2", {"text_encoder", "unet"}), ("base", {"unet"})]
)
def test_a_stage_changes_the_parts_it_is_to_and_no_other(arguments, monkeypatch, stage, trained):
    """The very tensors that are trained with, before and after."""
    seen = {}
    original = run_stage.train_stage

    def watch(name, text_encoder, unet, scheduler, source, *rest, **more):
        parts = {"text_encoder": text_encoder, "unet": unet, "vae": kept[0]}
        before = {part: {k: v.clone() for k, v in m.state_dict().items()} for part, m in parts.items()}
        original(name, text_encoder, unet, scheduler, source, *rest, **more)
        for part, module in parts.items():
            now = module.state_dict()
            seen[part] = {key for key in now if not torch.equal(now[key], before[part][key])}, set(now)

    kept = []
    load = run_stage.load_parts

    def load_parts(*given):
        parts = load(*given)
        kept.append(parts.vae)
        return parts

    monkeypatch.setattr(run_stage, "train_stage", watch)
    monkeypatch.setattr(run_stage, "load_parts", load_parts)
    train(arguments, stage=stage, tokenizer=arguments["tokenizer"] if stage == "stage1" else None)
    for part, (changed, every) in seen.items():
        # The pooled text's last norm and the like may see no gradient; what is not to change, not a bit of it may.
        assert len(changed) > 0.9 * len(every) if part in trained else not changed, part


def test_stage_1_then_stage_2_give_folders_that_draw(arguments, tmp_path, tiny_folder):
    train(arguments)
    export.main([str(tmp_path / "run"), str(tmp_path / "one")])
    one, base = tmp_path / "one", tiny_folder
    assert not changed(tensors(one, "unet"), tensors(base, "unet"))
    assert not changed(tensors(one, "vae"), tensors(base, "vae"))
    assert tensors(one, "text_encoder")["embeddings.token_embedding.weight"].shape[0] == len(
        Tokenizer.from_folder(tmp_path / "tokenizer").pieces
    )

    train(arguments, stage="stage2", model=one, tokenizer=None, out=tmp_path / "run2")
    export.main([str(tmp_path / "run2"), str(tmp_path / "two"), "--name", "mine"])
    two = tmp_path / "two"
    assert len(changed(tensors(two, "unet"), tensors(one, "unet"))) > 0.9 * len(tensors(one, "unet"))
    assert len(changed(tensors(two, "text_encoder"), tensors(one, "text_encoder"))) > 10
    assert not changed(tensors(two, "vae"), tensors(base, "vae"))

    components = model.load(two, safety_checker=False)
    assert components.name == "mine"
    assert sampling.generate(components, Request("猫の絵", num_inference_steps=1)).images[0].size == (64, 64)
    card = (two / "README.md").read_text("utf-8")
    assert "stage2, 6 steps of 4" in card


def test_a_run_leaves_a_curve_and_samples_as_pictures(arguments, tmp_path):
    train(arguments)
    run = tmp_path / "run"
    assert {path.name for path in run.glob("*.png")} == {"stage1.png", "sample-0000003.png", "sample-0000006.png"}
    assert [path.name for path in trainer.checkpoints(run, "stage1")] == ["stage1-0000003", "stage1-0000006"]
    assert not list(run.glob("*.tmp*"))


def test_a_run_can_be_followed_in_tensorboard(arguments, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(arguments, log_with="tensorboard")
    (folder,) = (tmp_path / "run" / "logs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    rows = trainer.read_curve(tmp_path / "run" / "stage1.jsonl")
    assert [(e.step, e.value) for e in events.Scalars("stage1/loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in rows
    ]


def test_samples_are_drawn_with_the_averaged_weights_and_training_goes_on_with_its_own(tmp_path):
    torch.manual_seed(0)
    model, seen = torch.nn.Linear(1, 1, bias=False), {}

    def loss_of(model, step, rng):
        seen[step] = model.weight.item()
        return (model.weight - 100).square().sum(), {}

    def on_save(step):
        seen[f"average {step}"] = model.weight.item()

    plan = trainer.Plan(20, 1.0, warmup=1, save_every=10, ema=0.9)
    trainer.train("line", model, loss_of, plan, tmp_path, Accelerator(mixed_precision="no", cpu=True), on_save=on_save)
    assert seen[0] < seen["average 10"] < seen[9] < seen[10] < seen[19]
    assert model.weight.item() == seen["average 20"]


def test_a_run_killed_at_any_moment_gives_the_same_curve(arguments, tmp_path):
    """kill -9, at several moments, against one that is left alone: equal to the bit."""
    train(arguments, steps=12, out=tmp_path / "whole")
    command = [sys.executable, "-m", "jsd.train.run_stage", *flags(arguments, steps=12)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for step in (3, 6):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / f"stage1-{step:07d}").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(arguments, steps=12)
    last = [trainer.load_average(trainer.checkpoints(tmp_path / name, "stage1")[-1]) for name in ("whole", "run")]
    assert all(torch.equal(a, b) for a, b in zip(*last, strict=True))
    curves = [
        [(row["step"], row["loss"]) for row in trainer.read_curve(tmp_path / name / "stage1.jsonl")]
        for name in ("whole", "run")
    ]
    assert curves[0] == curves[1]


def launch(values, **changed):
    """Two processes: by torch's own launcher, as `accelerate launch` starts several without a GPU only under MPI."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "jsd.train.run_stage", *flags(values, workers=1, **changed)]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})


def average(folder, stage="stage1"):
    return torch.cat([x.flatten() for x in trainer.load_average(trainer.checkpoints(folder, stage)[-1])])


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_processes_train_as_one_that_accumulates_two(arguments, tmp_path, stage):
    """Also when they were stopped half-way. Not only the losses: the weights they arrive at."""
    arguments |= {"stage": stage, "tokenizer": arguments["tokenizer"] if stage == "stage1" else None, "ema": 0.5}
    train(arguments, accumulate=2, workers=2, out=tmp_path / "one")
    train(arguments, accumulate=2, workers=2, out=tmp_path / "idle", lr=1e-12)
    launch(arguments, out=tmp_path / "two")
    for path in (tmp_path / "two" / f"{stage}-0000006", tmp_path / "two" / f"{stage}.jsonl"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    launch(arguments, out=tmp_path / "two")  # goes on from step 3
    one, two, idle = (average(tmp_path / name, stage) for name in ("one", "two", "idle"))
    assert (one - two).norm() < 0.01 * (one - idle).norm()


def test_two_processes_have_the_losses_of_one_that_accumulates_two(arguments, tmp_path):
    train(arguments, accumulate=2, workers=2, out=tmp_path / "one")
    launch(arguments, out=tmp_path / "two")
    assert json.loads((trainer.checkpoints(tmp_path / "two", "stage1")[-1] / "progress.json").read_text())["data"][1]
    rows = [trainer.read_curve(tmp_path / name / "stage1.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for one, two in zip(*rows, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=0.01)


def test_chance_depends_on_the_sample_not_on_its_batch():
    together = draws(["a", "b", "c"], 1, 5, (4, 2, 2), 1000)
    apart = [draws([key], 1, 5, (4, 2, 2), 1000) for key in "abc"]
    for i, values in enumerate(together):
        assert torch.equal(values, torch.cat([one[i] for one in apart]))
    assert not torch.equal(draws(["a"], 1, 6, (4, 2, 2), 1000)[0], apart[0][0])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_timesteps(components, prediction_type):
    """gamma / SNR where there is little noise, 1 where there is much; for v both over SNR + 1."""
    config = {**components.scheduler_config, "prediction_type": prediction_type}
    scheduler = noise_schedule(config)
    x_0, eps = torch.randn(2, 1, components.unet.config.in_channels, 4, 4)
    ids = torch.tensor([components.tokenizer("猫").ids])
    with torch.no_grad():
        for t in (torch.tensor([20]), torch.tensor([900])):
            share = scheduler.alphas_cumprod[t].item()
            snr = share / (1 - share)
            plain = Denoiser(components.text_encoder, components.unet, scheduler)(x_0, ids, eps, t)
            weighted = Denoiser(components.text_encoder, components.unet, scheduler, 5.0)(x_0, ids, eps, t)
            wanted = min(snr, 5.0) / (snr if prediction_type == "epsilon" else snr + 1)
            assert (weighted / plain).item() == pytest.approx(wanted, rel=1e-4)


def test_what_can_not_be_is_told(arguments, tmp_path):
    with pytest.raises(ValueError, match="stage2 keeps the text encoder"):
        train(arguments, stage="stage2")
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"stage": "stage1", "model": "x", "tokenizer": None}))
    with pytest.raises(FileNotFoundError, match="no checkpoint of stage1"):
        export.main([str(tmp_path / "run"), str(tmp_path / "one")])


def test_a_run_is_taken_up_only_as_it_was_begun(arguments, tmp_path, tiny_copy):
    train(arguments)
    for changed, told in (
        ({"model": tiny_copy}, "was begun with model"),
        ({"batch": 2}, "was begun with batch 4, not 2"),
        ({"seed": 1}, "was begun with seed 0, not 1"),
    ):
        with pytest.raises(ValueError, match=told):
            train(arguments, **changed)
    good(tmp_path / "data", shards=5, each=8)
    with pytest.raises(ValueError, match="was begun with urls"):
        train(arguments)


def test_what_would_fail_at_the_first_checkpoint_is_told_before_the_first_step(arguments, tmp_path):
    with pytest.raises(ValueError, match="width: 72 was given"):
        train(arguments, size=72)
    (tmp_path / "prompts").write_text("猫\n" + "犬" * 3000)
    with pytest.raises(ValueError, match="prompt: 3000 characters"):
        train(arguments, prompts=tmp_path / "prompts")
    for name in ("batch", "steps", "save-every"):
        with pytest.raises(SystemExit):
            train(arguments, **{name: 0})
    assert not (tmp_path / "run").exists()


def test_less_memory_and_weighted_timesteps_train_too(arguments, tmp_path):
    for name, more in (("plain", []), ("checkpointed", ["--gradient-checkpointing"]), ("weighted", ["--min-snr", "5"])):
        AcceleratorState._reset_state(reset_partial_state=True)
        run_stage.main([*flags(arguments, out=tmp_path / name, warmup=0), *more])
    plain, checkpointed, weighted = (average(tmp_path / name) for name in ("plain", "checkpointed", "weighted"))
    assert torch.allclose(plain, checkpointed, atol=1e-6)
    assert not torch.allclose(plain, weighted, atol=1e-6)


def test_a_download_with_pickles_beside_its_safetensors_can_be_exported(arguments, tmp_path, tiny_copy):
    (tiny_copy / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"old")
    (tiny_copy / "LICENSE").write_text("Open RAIL-M")
    train(arguments, model=tiny_copy)
    export.main([str(tmp_path / "run"), str(tmp_path / "one")])
    assert not list((tmp_path / "one").rglob("*.bin"))
    assert (tmp_path / "one" / "LICENSE").read_text() == "Open RAIL-M"
    model.load(tmp_path / "one")
