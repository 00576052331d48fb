"""On a CPU: which type is chosen, what it changes in the pictures, and how many threads compute."""

from __future__ import annotations

import os

import pytest
import torch

from jsd import cpu, model, settings
from jsd.errors import WeightsError
from jsd.genuine.folder import write_manifest
from jsd.manifest import MANIFEST, read_json
from jsd.request import Request
from jsd.sampling import generate
from tests.fakes import psnr
from tests.server import ROOT

GENUINE = {"block_out_channels": [320, 640, 1280, 1280]}
CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def seconds(monkeypatch):
    """The CPU seconds that a call of a layer takes, by its class and type. `calls` lists the calls."""
    clock, costs, calls = [0.0], {}, []

    def call(layer, x):
        calls.append((type(layer), x.dtype))
        clock[0] += costs[calls[-1]] * (10 if len(calls) == 3 else 1)  # another program disturbs one call

    for kind in (torch.nn.Linear, torch.nn.Conv2d):
        monkeypatch.setattr(kind, "forward", call)
        costs |= {(kind, torch.float32): 1.0, (kind, torch.bfloat16): 0.4}
    monkeypatch.setattr(cpu.time, "thread_time", lambda: clock[0])
    costs["calls"] = calls
    return costs


@pytest.mark.parametrize(("ratio", "name"), [(0.15, "bf16"), (0.55, "bf16"), (0.8, "fp32"), (1.4, "fp32")], ids=str)
def test_a_wide_unet_gets_bfloat16_only_where_it_is_clearly_faster(ratio, name):
    assert cpu.faster_type(GENUINE, lambda width: ratio) == (name, f"bf16 takes {ratio:.2f} of the time of fp32 here")


def test_the_embedded_model_stays_in_float32_whatever_the_processor_is(monkeypatch):
    monkeypatch.setattr(cpu, "bfloat16_ratio", lambda width: 0.01)
    unet = read_json(ROOT / "weights" / "embedded" / "unet" / "config.json")
    assert cpu.faster_type(unet) == ("fp32", "a small UNet gains nothing from bf16")
    assert cpu.faster_type(GENUINE)[0] == "bf16"


@pytest.mark.parametrize(
    ("unet", "width"), [(GENUINE, 640), ({"block_out_channels": [10**9]}, 640), ({}, 320)], ids=["own", "huge", "none"]
)
def test_the_measured_layers_have_the_models_own_width_within_reason(unet, width):
    widths = []
    cpu.faster_type(unet, lambda width: widths.append(width) or 1.0)
    assert widths == [width]


def test_both_layers_count_and_one_disturbed_call_does_not(seconds):
    seconds[torch.nn.Conv2d, torch.bfloat16] = 0.8
    assert cpu.bfloat16_ratio(32) == pytest.approx(0.6)


def test_no_convolution_is_tried_where_it_could_take_for_ever(seconds):
    seconds[torch.nn.Linear, torch.bfloat16] = 5.0
    assert cpu.bfloat16_ratio(32) == pytest.approx(5)
    assert {kind for kind, _ in seconds["calls"]} == {torch.nn.Linear}


def test_measuring_really_computes_and_leaves_the_threads_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert cpu.bfloat16_ratio(64) > 0
        with pytest.raises(ZeroDivisionError):
            cpu._seconds(lambda: 1 / 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def served(tiny_folder, monkeypatch):
    """Load the tiny model as a server does, with settings. Where the type is measured, bfloat16 is faster."""
    monkeypatch.setattr(settings, "faster_type", lambda unet: ("bf16", "measured"))
    monkeypatch.setattr(settings, "tune", lambda unet: [])

    def load(**given):
        for name, value in ({"JSD_WEIGHTS": str(tiny_folder), "JSD_DEVICE": "cpu", "JSD_DTYPE": ""} | given).items():
            monkeypatch.setenv(name, value)
        return settings.load_components()

    return load


@pytest.mark.parametrize(
    ("asked", "told", "dtype"),
    [("", "bf16 (measured)", torch.bfloat16), ("bf16", "bf16", torch.bfloat16), ("fp32", "fp32", torch.float32)],
)
def test_the_type_that_is_asked_for_wins_and_the_log_says_which_it_is(served, capsys, asked, told, dtype):
    components = served(JSD_DTYPE=asked)
    assert f"device cpu, {told}, safety" in capsys.readouterr().out
    assert (components.unet.dtype, components.vae.dtype) == (dtype, dtype)
    assert (components.text_encoder.dtype, components.safety_checker.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("part", ["vae", "safety_checker"])
def test_a_file_that_holds_no_weights_is_named(served, tiny_copy, part):
    """As where Git LFS left a pointer, and somebody wrote the manifest for it."""
    (file,) = (tiny_copy / part).glob("*.safetensors")
    file.write_text("version https://git-lfs.github.com/spec/v1")
    manifest = read_json(tiny_copy / MANIFEST)
    write_manifest(tiny_copy, **{name: value for name, value in manifest.items() if name != "files"})
    with pytest.raises(WeightsError, match=f"{part}: can't be loaded"):
        served(JSD_WEIGHTS=str(tiny_copy))


def test_the_log_says_that_float16_is_slow_on_a_cpu(served, capsys):
    assert served(JSD_DTYPE="fp16").unet.dtype == torch.float16
    assert "cpu, fp16 (slow on CPUs without units for it; leave JSD_DTYPE out), safety" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dtype", "compiled", "told"), [("bf16", "", True), ("fp32", "", False), ("bf16", "on", False)]
)
def test_a_unet_in_bfloat16_is_tuned_and_the_log_says_so(served, monkeypatch, capsys, dtype, compiled, told):
    monkeypatch.setattr(settings, "tune", lambda unet: [f"tuned {unet.dtype}"])
    monkeypatch.setattr(settings, "_compile", lambda components: None)
    served(JSD_DTYPE=dtype, JSD_COMPILE=compiled)
    assert (", tuned torch.bfloat16" in capsys.readouterr().out) == told


def test_a_seed_gives_the_same_picture_in_one_type_and_nearly_the_same_in_another(served, components):
    request = Request("猫の肖像画 油絵", seed=1)
    one, again = (generate(served(), request).images[0] for _ in range(2))
    assert one.tobytes() == again.tobytes()
    assert 30 < psnr(one, generate(components, request).images[0]) < 90


@pytest.mark.parametrize("part", model.PARTS)
def test_each_part_computes_in_its_own_type(tiny_folder, components, photo, part):
    mixed = model.load(tiny_folder, dtype=dict.fromkeys(model.PARTS, torch.float32) | {part: torch.bfloat16})
    request = Request("猫", image=photo, prompt_strength=0.5, seed=1)
    assert psnr(generate(mixed, request).images[0], generate(components, request).images[0]) > 30


@pytest.mark.slow
def test_pictures_of_the_embedded_model_in_bfloat16_look_like_those_in_float32(monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(ROOT / "weights" / "embedded"))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    prompts = (ROOT / "docs" / "grid.txt").read_text("utf-8").splitlines()[:24:4]  # docs/cpu.md has all 24
    drawn = []
    for name in ("fp32", "bf16"):
        monkeypatch.setenv("JSD_DTYPE", name)
        components = settings.load_components()
        drawn.append([generate(components, Request(prompt, seed=1)).images[0] for prompt in prompts])
    assert sum(psnr(a, b) >= 30 for a, b in zip(*drawn, strict=True)) >= 5


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": f"{CORES}00000 100000"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 1),
        ("0::/elsewhere/of/the/host", {"cpu.max": "20000 100000"}, 1),
        ("3:cpu,cpuacct:/docker/7\n0::/", {"cpu/cpu.cfs_quota_us": "90000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("3:cpu,cpuacct:/docker/7", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:memory:/docker/7", {"cpu.max": "50000 100000"}, None),
        ("", {}, None),
    ],
)
@pytest.mark.skipif(CORES == 1, reason="no limit is below one core")
def test_the_limit_of_a_container_is_seen(tmp_path, own, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    assert cpu.core_limit(tmp_path, tmp_path / "own") == limit
    assert cpu.core_limit(tmp_path, tmp_path / "nowhere") is None


@pytest.mark.parametrize(("own", "limit", "threads"), [("", 3, 3), ("4", 3, 4), ("", None, 4), ("", 8, 4)])
def test_threads_follow_the_limit_unless_the_user_sets_them(served, monkeypatch, own, limit, threads):
    monkeypatch.setattr(settings, "core_limit", lambda: limit)
    monkeypatch.setenv("OMP_NUM_THREADS", own)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        served(JSD_DTYPE="fp32")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
