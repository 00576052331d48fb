"""A cancelled request frees its rows and its place in the queue, and the rest of its work is not done."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, wait
from dataclasses import replace

import pytest
from PIL import Image

from jsd import sampling
from jsd.engine import Engine
from jsd.errors import QueueFullError
from tests.engine.conftest import CAT, MANY, SECONDS, TWELVE, alone, hold, watch_decode
from tests.fakes import psnr


def test_a_full_queue_refuses_requests_until_one_is_cancelled(spied):
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
    """It is cancelled during the tick of each step. The picture of the job beside it does not change."""
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
    assert wait([victim], SECONDS).done  # waiters are notified
    assert engine.submit(CAT).result(SECONDS).images[0].tobytes() == alone(components, CAT).tobytes()


def test_a_cancelled_coroutine_frees_its_rows(engine):
    spy = hold(engine)

    async def submit_and_cancel():
        task = asyncio.wrap_future(engine.submit(MANY))
        while not spy.inside.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(submit_and_cancel())
    spy.gate.set()
    engine.submit(CAT).result(SECONDS)
    assert len(spy.calls) == 1 + 4


def test_no_more_pictures_of_a_job_are_decoded_after_it_was_cancelled(engine, monkeypatch):
    log = []
    watch_decode(monkeypatch, log, before=lambda x_0: len(log) == 2 and victim.cancel())
    spy = hold(engine)
    victim = engine.submit(replace(CAT, num_outputs=4))
    spy.gate.set()
    assert wait([victim], SECONDS).done
    assert victim.cancelled()
    engine.submit(CAT).result(SECONDS)
    assert len(log) == 2 + 1


def test_a_job_that_is_cancelled_while_its_image_is_encoded_does_no_harm(engine, monkeypatch):
    """With prompt_strength 0 it has no steps, so it is finished as soon as it is prepared."""
    cancelled = []
    original = sampling.prepare

    def prepare(components, request):
        job = original(components, request)
        if request.image is not None:
            cancelled.append(futures[0].cancel())
        return job

    monkeypatch.setattr(sampling, "prepare", prepare)
    spy = hold(engine)
    running = engine.submit(TWELVE)
    assert spy.inside.wait(SECONDS)
    futures = [engine.submit(replace(CAT, image=Image.new("RGB", (64, 64)), prompt_strength=0))]
    spy.gate.set()
    assert len(running.result(SECONDS).images) == 1
    assert cancelled == [True]
    assert len(engine.submit(CAT).result(SECONDS).images) == 1


def test_a_cancelled_job_gets_no_watermark(engine, monkeypatch):
    sealed, go_on = [], threading.Event()
    original = sampling.seal

    def seal(components, job):
        sealed.append(job.request.seed)
        assert go_on.wait(SECONDS)
        return original(components, job)

    monkeypatch.setattr(sampling, "seal", seal)
    first, second = engine.submit(CAT), engine.submit(replace(CAT, seed=2))
    deadline = time.monotonic() + SECONDS
    while engine.running:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert second.cancel()
    go_on.set()
    assert first.result(SECONDS)
    assert wait([second], SECONDS).done
    engine.close()
    assert sealed == [1]
