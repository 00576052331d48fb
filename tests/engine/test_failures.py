"""A failing request fails alone. A call that does not fit into memory is split."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch

from jsd import sampling
from jsd.errors import InputError, MemoryShortError, NSFWError
from tests.engine.conftest import CAT, MANY, SECONDS, TWELVE, alone, hold
from tests.fakes import psnr


def test_a_bad_request_is_refused_when_it_is_submitted(engine):
    with pytest.raises(InputError, match="width"):
        engine.submit(replace(CAT, width=72))
    assert engine.components.unet.calls == []


def test_only_the_job_that_breaks_a_shared_call_fails(engine, components):
    guilty_request = replace(CAT, seed=2)
    x_start = sampling.prepare(components, guilty_request).x_t[0]
    spy = hold(engine)
    spy.broken = lambda x: any(torch.equal(row, x_start) for row in x)
    first = engine.submit(MANY)
    assert spy.inside.wait(SECONDS)
    guilty = engine.submit(guilty_request)
    innocent = engine.submit(TWELVE)
    spy.gate.set()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        guilty.result(SECONDS)
    assert 6 in spy.calls  # all three shared the call that broke
    for future, request in ((first, MANY), (innocent, TWELVE)):
        assert psnr(future.result(SECONDS).images[0], alone(components, request)) >= 50


@pytest.mark.parametrize("stage", ["prepare", "step", "judge", "seal"])
def test_a_failure_in_one_stage_fails_only_its_own_request(engine, monkeypatch, stage):
    original = getattr(sampling, stage)

    def fail(*args):
        subjects = args[1] if isinstance(args[1], list) else [args[1]]
        if any(getattr(subject, "request", subject).seed == 666 for subject in subjects):
            raise NSFWError("NSFW content detected")
        return original(*args)

    monkeypatch.setattr(sampling, stage, fail)
    spy = hold(engine)
    good, bad = engine.submit(CAT), engine.submit(replace(CAT, seed=666))
    spy.gate.set()
    with pytest.raises(NSFWError):
        bad.result(SECONDS)
    assert len(good.result(SECONDS).images) == 1
    assert len(engine.submit(CAT).result(SECONDS).images) == 1


def test_an_error_of_a_progress_callback_fails_only_its_own_request(engine):
    def fail(done, total):
        raise OSError("the log is gone")

    with pytest.raises(OSError, match="the log is gone"):
        engine.submit(CAT, progress=fail).result(SECONDS)
    assert engine.submit(CAT).result(SECONDS)


@pytest.mark.parametrize("fits", [8, 4, 2, 1])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_a_call_that_does_not_fit_into_memory_is_split(engine, components, fits, error):
    spy = engine.components.unet

    def broken(x):
        if len(x) > fits:
            raise error
        return False

    spy.broken = broken
    hold(engine)
    requests = [replace(CAT, seed=i, num_outputs=n) for i, n in ((1, 1), (10, 2), (20, 1))]
    futures = [engine.submit(request) for request in requests]
    spy.gate.set()
    for future, request in zip(futures, requests, strict=True):
        assert psnr(future.result(SECONDS).images[0], alone(components, request)) >= 50
    assert max(size for size in spy.calls if size <= fits) == fits


def test_a_request_that_does_not_fit_alone_fails_and_says_what_to_do(engine):
    spy = engine.components.unet

    def broken(x):
        if x.shape[-2] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return False

    spy.broken = broken
    large, small = engine.submit(replace(CAT, height=128)), engine.submit(CAT)
    with pytest.raises(MemoryShortError, match="take a smaller width and height"):
        large.result(SECONDS)
    assert len(small.result(SECONDS).images) == 1


def test_a_size_that_did_not_fit_is_not_tried_again_at_every_step(engine):
    spy = engine.components.unet

    def broken(x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return False

    spy.broken = broken
    assert len(engine.submit(replace(TWELVE, num_outputs=2)).result(SECONDS).images) == 2
    assert [size for size in spy.calls if size > 2] == [4]


def test_the_tensors_of_a_failed_call_are_released_before_the_next_call(engine):
    spy, held = engine.components.unet, []

    def broken(x):
        if len(x) > 2:
            tensor = torch.zeros(3)
            held.append(weakref.ref(tensor))
            raise ValueError("too many")
        assert not [ref for ref in held if ref() is not None]
        return False

    spy.broken = broken
    hold(engine)
    futures = [engine.submit(replace(CAT, seed=i)) for i in range(3)]
    spy.gate.set()
    assert [len(future.result(SECONDS).images) for future in futures] == [1, 1, 1]
    assert held
