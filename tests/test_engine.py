"""Many requests at once: together where they fit, each as if alone, and cancelled or broken without harm to others."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import CancelledError, wait
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from fakes import psnr

from jsd import sampling
from jsd.engine import Engine
from jsd.request import InputError, NSFWError, QueueFullError, Request

CAT = Request("猫", seed=1)
TWELVE = replace(CAT, num_inference_steps=12)
MANY = replace(CAT, num_inference_steps=40)
SECONDS = 30  # longer than anything here takes, shorter than patience


@pytest.fixture
def engine(spied):
    with Engine(spied, max_batch_rows=8) as engine:
        yield engine


def hold(engine):
    """Stop the engine inside its next UNet call; returns the spy, whose `gate.set()` lets it go on."""
    spy = engine.components.unet
    spy.gate.clear()
    spy.inside.clear()
    return spy


def alone(components, request):
    """The first picture of a request served by itself."""
    return sampling.generate(components, request).images[0]


def test_a_request_becomes_the_picture_it_becomes_alone(engine, components):
    result = engine.submit(CAT).result(SECONDS)
    assert result.images[0].tobytes() == alone(components, CAT).tobytes()
    assert result.request == CAT.resolve(components.defaults)


def test_requests_share_unet_calls_and_draw_as_alone(engine, components):
    spy = hold(engine)
    requests = [
        replace(CAT, seed=i, prompt=f"猫 {i}", scheduler=name, num_inference_steps=4 + i)
        for i, name in enumerate(("DDIM", "K_LMS", "K_EULER_ANCESTRAL", "PNDM"))
    ]
    first = engine.submit(requests[0])
    assert spy.inside.wait(SECONDS)
    futures = [first, *(engine.submit(request) for request in requests[1:])]
    spy.gate.set()
    results = [future.result(SECONDS) for future in futures]
    assert max(spy.calls) == 8  # the three that came during the first call joined at the next
    assert sum(spy.calls) == 2 * (4 + 5 + 6 + 8)  # PNDM takes one call more than its 7 steps
    for request, result in zip(requests, results, strict=True):
        assert psnr(result.images[0], alone(components, request)) >= 50


def test_no_call_is_larger_than_the_limit(engine):
    requests = [replace(CAT, num_outputs=n, seed=n) for n in (1, 2, 3, 8, 2)]
    results = [future.result(SECONDS) for future in [engine.submit(request) for request in requests]]
    assert [len(result.images) for result in results] == [1, 2, 3, 8, 2]
    assert max(engine.components.unet.calls) == 8


def test_what_does_not_fit_waits_its_turn(spied):
    """In the order they came: the small third does not overtake the large second."""
    with Engine(spied, max_batch_rows=4) as engine:
        hold(engine)
        order = []
        futures = [
            engine.submit(replace(CAT, num_outputs=n), progress=lambda done, _, n=n: order.append(n)) for n in (2, 3, 1)
        ]
        spied.unet.gate.set()
        [future.result(SECONDS) for future in futures]
    assert order == [2] * 4 + [3] * 4 + [1] * 4


def test_sizes_take_turns(engine):
    done = []
    tall = replace(MANY, height=128)
    futures = [
        engine.submit(request, progress=lambda step, _, name=name: done.append(name))
        for name, request in (("square", MANY), ("tall", tall))
    ]
    [future.result(SECONDS) for future in futures]
    together = done[done.index("tall") : len(done) - done[::-1].index("square")]
    assert all(a != b for a, b in pairwise(together))
    assert len(together) > 40


def test_a_bad_request_fails_when_submitted(engine):
    with pytest.raises(InputError, match="width"):
        engine.submit(replace(CAT, width=72))
    assert engine.components.unet.calls == []


def test_a_full_queue_refuses_and_a_cancelled_place_is_free_again(spied):
    with Engine(spied, max_batch_rows=2, max_queue=2) as engine:
        spy = hold(engine)
        futures = [engine.submit(MANY)]
        assert spy.inside.wait(SECONDS)
        futures += [engine.submit(CAT), engine.submit(CAT)]
        with pytest.raises(QueueFullError):
            engine.submit(CAT)
        assert futures[1].cancel()
        futures.append(engine.submit(CAT))
        spy.gate.set()
        assert futures[3].result(SECONDS).timings["queue"] > 0


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_cancelled_job_frees_its_rows_by_the_next_tick(engine, components, step):
    """Cancelled at each step, from within the tick, beside another job: that one's picture does not change."""
    spy = hold(engine)
    calls_when_cancelled = []

    def cancel(done, total):
        if done == step:
            calls_when_cancelled.append(len(spy.calls))
            assert victim.cancel()

    other = engine.submit(TWELVE)
    victim = engine.submit(replace(CAT, num_outputs=2), progress=cancel)
    spy.gate.set()
    assert psnr(other.result(SECONDS).images[0], alone(components, TWELVE)) >= 50
    assert set(spy.calls[calls_when_cancelled[0] :]) == {2}
    with pytest.raises(CancelledError):
        victim.result(SECONDS)
    assert wait([victim], SECONDS).done  # whoever waits is told
    assert engine.submit(CAT).result(SECONDS).images[0].tobytes() == alone(components, CAT).tobytes()


def test_a_cancelled_coroutine_frees_its_rows(engine):
    spy = hold(engine)

    async def ask_and_leave():
        task = asyncio.wrap_future(engine.submit(MANY))
        while not spy.inside.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask_and_leave())
    spy.gate.set()
    engine.submit(CAT).result(SECONDS)
    assert len(spy.calls) == 1 + 4


def test_only_the_guilty_job_of_a_shared_call_fails(engine, components):
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
    assert 6 in spy.calls  # they did share the call that broke
    for future, request in ((first, MANY), (innocent, TWELVE)):
        assert psnr(future.result(SECONDS).images[0], alone(components, request)) >= 50


@pytest.mark.parametrize("stage", ["prepare", "advance", "finish"])
def test_a_failure_of_one_jobs_own_is_its_own(engine, monkeypatch, stage):
    original = getattr(sampling, stage)

    def fail(*args):
        subject = next(a for a in args if hasattr(a, "request") or hasattr(a, "prompt"))
        if getattr(subject, "request", subject).seed == 666:
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


def test_a_progress_callback_that_fails_fails_its_own_request(engine):
    def fail(done, total):
        raise OSError("the log is gone")

    with pytest.raises(OSError, match="the log is gone"):
        engine.submit(CAT, progress=fail).result(SECONDS)
    assert engine.submit(CAT).result(SECONDS)


def test_progress_and_queue_time_are_told(engine):
    spy = hold(engine)
    first, seen = engine.submit(replace(CAT, num_outputs=4)), []
    assert spy.inside.wait(SECONDS)
    second = engine.submit(CAT, progress=lambda done, total: seen.append((done, total)))
    time.sleep(0.05)
    spy.gate.set()
    assert second.result(SECONDS).timings["queue"] >= 0.05
    assert first.result(SECONDS).timings["queue"] < second.result().timings["queue"]
    assert seen == [(i, 4) for i in (1, 2, 3, 4)]


def test_closing_leaves_nobody_waiting(spied):
    engine = Engine(spied, max_batch_rows=2)
    spy = hold(engine)
    futures = [engine.submit(MANY), engine.submit(CAT)]
    assert spy.inside.wait(SECONDS)
    spy.gate.set()
    engine.close()
    assert all(future.cancelled() for future in futures)
    assert wait(futures, SECONDS).not_done == set()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(CAT)


def test_impossible_limits_are_refused(components):
    with pytest.raises(ValueError, match="max_batch_rows"):
        Engine(components, max_batch_rows=0)
