"""Requests with different adapters share the engine, and each is drawn as if it were alone."""

from __future__ import annotations

import gc
from concurrent.futures import CancelledError
from dataclasses import replace
from itertools import groupby

import pytest
import torch
from safetensors.torch import save

from jsd import adapters, model
from jsd.batch import STAY
from jsd.engine import Engine
from jsd.errors import InputError
from tests.adapters import adapter, kohya
from tests.engine.conftest import CAT, MANY, SECONDS, TWELVE, alone, hold
from tests.fakes import SpyUNet, psnr

SCALES = (0.8, 1.0, -0.5)


@pytest.fixture
def loaded(tiny_folder):
    """The tiny model with a `SpyUNet`, for one test alone, because adapters change its weights."""
    components = model.load(tiny_folder)
    return replace(components, unet=SpyUNet(components.unet))


@pytest.fixture
def with_lora(components):
    """`CAT` with each of three adapters."""
    return [replace(CAT, lora=adapter(components, i), lora_scale=scale) for i, scale in enumerate(SCALES)]


@pytest.fixture(scope="module")
def draw_alone(tiny_folder, tmp_path_factory):
    """A function that draws a request with a model that never had another adapter: it is loaded with this one."""
    models = {}

    def draw(request):
        key = (request.lora, request.lora_scale)
        if key not in models:
            file = tmp_path_factory.mktemp("lora") / "a.safetensors"
            file.write_bytes(request.lora or b"")
            models[key] = model.load(tiny_folder, lora=request.lora and file, lora_scale=request.lora_scale)
        return alone(models[key], replace(request, lora=None, lora_scale=1))

    return draw


def test_eight_requests_with_three_adapters_and_none_draw_as_if_alone(loaded, with_lora, draw_alone):
    requests = [
        replace(request, seed=seed, num_inference_steps=2 + seed, height=64 if seed % 3 else 96)
        for seed, request in enumerate([*with_lora, CAT] * 2)
    ]
    with Engine(loaded) as engine:
        spy = hold(engine)
        futures = [engine.submit(request) for request in requests]
        spy.gate.set()
        pictures = [future.result(SECONDS).images[0] for future in futures]
    wanted = [draw_alone(request) for request in requests]
    assert all(psnr(picture, other) >= 50 for picture, other in zip(pictures, wanted, strict=True))
    assert psnr(wanted[3], draw_alone(replace(requests[3], lora=with_lora[0].lora))) < 30
    assert engine.components.adapters.switches <= 8 + 8


def test_without_an_adapter_the_picture_is_the_same_to_the_byte_after_one(loaded, with_lora, components):
    before = {name: value.clone() for name, value in loaded.unet.unet.named_parameters()}
    with Engine(loaded) as engine:
        for request in with_lora:
            engine.submit(request).result(SECONDS)
        assert engine.submit(CAT).result(SECONDS).images[0].tobytes() == alone(components, CAT).tobytes()
    assert all(torch.equal(value, before[name]) for name, value in loaded.unet.unet.named_parameters())


def test_an_adapter_stays_for_some_steps_and_then_it_is_the_turn_of_another(loaded, with_lora):
    steps = []
    with Engine(loaded, max_batch_rows=16) as engine:
        spy = hold(engine)
        futures = [
            engine.submit(replace(request, num_inference_steps=3 * STAY), progress=lambda *_, i=i: steps.append(i))
            for i, request in enumerate([*with_lora, with_lora[0]])
        ]
        spy.gate.set()
        [future.result(SECONDS) for future in futures]
    turns = [(number, len(list(turn))) for number, turn in groupby(0 if step == 3 else step for step in steps)]
    # The first request began alone, so its turn and its steps are out of step with those of the last.
    assert [number for number, _ in turns[:9]] == [0, 1, 2] * 3
    assert [length for _, length in turns[3:6]] == [2 * STAY, STAY, STAY]
    assert max(spy.calls) == 4  # the two of one adapter share calls


def test_a_request_of_another_size_shares_the_turn_of_its_adapter(loaded, with_lora):
    steps = []
    with Engine(loaded, max_batch_rows=16) as engine:
        spy = hold(engine)
        futures = [
            engine.submit(
                replace(MANY, num_inference_steps=20, height=height, lora=lora),
                progress=lambda *_, n=n: steps.append(n),
            )
            for n, (height, lora) in enumerate([(64, None), (128, None), (64, with_lora[0].lora)])
        ]
        spy.gate.set()
        [future.result(SECONDS) for future in futures]
    adapters = [number == 2 for number in steps]
    assert max(len(list(turn)) for _, turn in groupby(adapters[: adapters.index(True) + 40])) == STAY
    assert 0.3 < steps[:40].count(1) / steps[:40].count(0) < 3


def test_a_request_that_is_cancelled_among_others_with_adapters_changes_none(loaded, with_lora, draw_alone):
    with Engine(loaded) as engine:
        spy = hold(engine)
        victim = engine.submit(
            replace(MANY, lora=with_lora[0].lora), progress=lambda done, _: done == 3 and victim.cancel()
        )
        others = [replace(request, num_inference_steps=12) for request in with_lora[1:]]
        futures = [engine.submit(request) for request in [*others, TWELVE]]
        spy.gate.set()
        with pytest.raises(CancelledError):
            victim.result(SECONDS)
        for future, request in zip(futures, [*others, TWELVE], strict=True):
            assert psnr(future.result(SECONDS).images[0], draw_alone(request)) >= 50


@pytest.mark.parametrize("part", ["lora_unet", "lora_te"])
def test_an_adapter_that_is_too_strong_fails_only_its_own_requests(loaded, with_lora, components, part):
    tensors = kohya(components)
    for key in tensors:
        if key.startswith(part) and not key.endswith(".alpha"):
            tensors[key] *= 1e30
    with Engine(loaded) as engine:
        spy = hold(engine)
        futures = [engine.submit(request) for request in (CAT, replace(CAT, lora=save(tensors)), with_lora[0])]
        spy.gate.set()
        with pytest.raises(InputError, match="lora: .*: not finite in torch.float32 .*lower its scale"):
            futures[1].result(SECONDS)
        assert psnr(futures[0].result(SECONDS).images[0], alone(components, CAT)) >= 50
        assert len(futures[2].result(SECONDS).images) == 1


def test_an_adapter_is_dropped_when_nobody_needs_it_without_the_collector(loaded, components, monkeypatch):
    monkeypatch.setattr(adapters, "MOST_BYTES", loaded.adapters.read(adapter(components)).size * 7 // 2)
    gc.disable()
    try:
        with Engine(loaded) as engine:
            drawn = [engine.submit(replace(CAT, lora=adapter(components, i))).result(SECONDS).seeds for i in range(6)]
    finally:
        gc.enable()
    assert drawn == [[CAT.seed]] * 6
