"""The settings in the environment are followed, and a wrong one is refused by name."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from jsd import model, settings
from jsd.errors import SettingError, WeightsError
from jsd.graphs import GraphedUNet
from tests.server import ROOT


@pytest.fixture(autouse=True)
def _environment(tiny_folder, monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")


@pytest.mark.parametrize("load", [settings.load_components, settings.make_engine])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JSD_DEVICE", "toaster", "JSD_DEVICE: 'toaster' can't be used"),
        ("JSD_DEVICE", "meta", "JSD_DEVICE: 'meta' can't be used"),
        ("JSD_DTYPE", "int8", "JSD_DTYPE: 'int8' was given; allowed are fp16, bf16, fp32"),
        ("JSD_SAFETY_CHECKER", "no", "JSD_SAFETY_CHECKER: 'no' was given; allowed are on, off"),
        ("JSD_MAX_BATCH", "many", "JSD_MAX_BATCH: 'many' was given; a number of UNet rows, 1 or more, is wanted"),
        ("JSD_MAX_BATCH", "0", "JSD_MAX_BATCH: '0' was given"),
        ("JSD_MAX_BATCH", "9" * 5000, "JSD_MAX_BATCH: '9999"),
        ("JSD_COMPILE", "yes", "JSD_COMPILE: 'yes' was given; allowed are on, 1, off, 0"),
        ("JSD_CUDA_GRAPHS", "1", "JSD_CUDA_GRAPHS: '1' was given; allowed are on, off"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(monkeypatch, load, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=message):
        load()


@pytest.mark.parametrize("load", [settings.load_components, settings.make_engine])
def test_a_missing_model_folder_is_named(monkeypatch, load):
    monkeypatch.setenv("JSD_WEIGHTS", "/nowhere/at/all")
    with pytest.raises(WeightsError, match="/nowhere/at/all: no such folder"):
        load()


def test_the_largest_batch_is_a_setting(monkeypatch):
    monkeypatch.setenv("JSD_MAX_BATCH", "3")
    with settings.make_engine() as engine:
        assert engine.max_batch_rows == 3


@pytest.mark.parametrize(
    ("own", "count"), [({}, 10000), ({"OMP_WAIT_POLICY": "PASSIVE"}, 0), ({"GOMP_SPINCOUNT": "7"}, 7)]
)
def test_threads_spin_briefly_while_they_wait_or_as_the_user_says(own, count):
    """torch's OpenMP library says what it has read when it is loaded, which has to be after the setting is made."""
    code = "import jsd.cli, predict\ntry: predict.settings.make_engine()\nexcept ValueError: import torch"
    environment = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    environment |= {"OMP_DISPLAY_ENV": "verbose", "JSD_WEIGHTS": "/nowhere"} | own
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = '{count}'" in done.stderr


@pytest.mark.parametrize(("value", "compiled"), [("1", True), ("on", True), ("0", False), ("", False)])
def test_the_unets_blocks_are_compiled_if_the_setting_says_so(monkeypatch, capsys, value, compiled):
    """Compiling itself takes too long for a test. The UNet is called afterwards, so that no request waits for it."""
    asked = []
    monkeypatch.setattr(UNet2DConditionModel, "compile_repeated_blocks", lambda unet, **how: asked.append(how))
    monkeypatch.setenv("JSD_COMPILE", value)
    components = settings.load_components()
    assert asked == ([{"dynamic": True}] if compiled else [])
    assert capsys.readouterr().out.rstrip().endswith(", compiled") == compiled
    assert components.name == "tiny"


@pytest.mark.parametrize(("value", "graphed"), [("", True), ("on", True), ("off", False)])
def test_a_gpu_gets_graphs_of_the_unet_if_the_setting_says_so(monkeypatch, capsys, components, value, graphed):
    monkeypatch.setattr(torch, "zeros", lambda *size, device: torch.ones(1))  # of a GPU that is not here
    monkeypatch.setattr(model, "load", lambda *arguments, **options: replace(components, device=arguments[1]))
    monkeypatch.setenv("JSD_DEVICE", "cuda:1")
    monkeypatch.setenv("JSD_CUDA_GRAPHS", value)
    assert isinstance(settings.load_components().unet, GraphedUNet) == graphed
    assert capsys.readouterr().out.rstrip().endswith(", CUDA graphs") == graphed


@pytest.mark.parametrize("checker", ["on", "off"])
def test_the_log_says_which_model_is_used_and_how(monkeypatch, capsys, tiny_folder, checker):
    monkeypatch.setenv("JSD_SAFETY_CHECKER", checker)
    components = settings.load_components()
    reason = "a small UNet gains nothing from bf16"
    line = f"weights {tiny_folder} (tiny), device cpu, fp32 ({reason}), safety checker {checker}\n"
    assert capsys.readouterr().out == line
    assert (components.safety_checker is not None) == (checker == "on")


@pytest.mark.parametrize(("device", "told"), [("", True), ("cpu", False)])
def test_an_image_for_a_gpu_that_finds_none_says_so_first(monkeypatch, capsys, device, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("JSD_BUILT_FOR", "cuda")
    monkeypatch.setenv("JSD_DEVICE", device)
    settings.load_components()
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("WARNING: this image was built for an NVIDIA GPU, and torch finds none") == told
    assert len(rest) == (1 if told else 0)


def run_python(script: str) -> list[str]:
    """The words that a script prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_the_cycle_collector_rests_inside_the_block_and_not_after_it():
    script = """
import gc
from jsd.settings import without_collector
with without_collector():
    print(gc.isenabled())
    kept = [[] for _ in range(10000)]
print(gc.isenabled(), gc.get_freeze_count() > 10000)
"""
    assert run_python(script) == ["False", "True", "True"]


def test_an_error_in_the_block_switches_the_collector_on_and_exempts_nothing():
    script = """
import gc
from jsd.settings import without_collector
try:
    with without_collector():
        raise KeyError
except KeyError:
    print(gc.isenabled(), gc.get_freeze_count() == 0)
"""
    assert run_python(script) == ["True", "True"]


def test_a_collector_that_was_off_stays_off():
    script = """
import gc
from jsd.settings import without_collector
gc.disable()
with without_collector():
    pass
print(gc.isenabled())
"""
    assert run_python(script) == ["False"]
