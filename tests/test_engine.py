"""Many requests at once: together where they fit, each as if alone, and cancelled or broken without harm to others."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from fakes import psnr
from PIL import Image

from jsd import capacity, sampling
from jsd.engine import Engine
from jsd.request import (
    SCHEDULER_NAMES,
    InputError,
    MemoryShortError,
    NaNError,
    NSFWError,
    QueueFullError,
    Request,
    WeightsError,
)

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


def test_jobs_of_every_scheduler_draw_together_as_alone(spied, components):
    requests = [
        replace(CAT, seed=i, prompt=f"猫 {i}", scheduler=name, num_inference_steps=3 + i % 4)
        for i, name in enumerate(SCHEDULER_NAMES)
    ]
    with Engine(spied, max_batch_rows=2 * len(requests)) as engine:
        spy = hold(engine)
        futures = [engine.submit(requests[0])]
        assert spy.inside.wait(SECONDS)
        futures += [engine.submit(request) for request in requests[1:]]
        spy.gate.set()
        results = [future.result(SECONDS) for future in futures]
    assert max(spy.calls) == 2 * len(requests)
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


@pytest.mark.parametrize("stage", ["prepare", "advance", "judge", "seal"])
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


@pytest.mark.parametrize("fits", [8, 4, 2, 1])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_what_does_not_fit_the_memory_is_split(engine, components, fits, error):
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


def test_what_does_not_fit_even_alone_fails_and_says_so(engine):
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


def watch_decode(monkeypatch, log, before=lambda jobs: None):
    """Note the name "decode" in `log` at every call of the VAE."""
    original = sampling.decode

    def decode(components, x_0):
        log.append(("decode", len(x_0)))
        before(x_0)
        return original(components, x_0)

    monkeypatch.setattr(sampling, "decode", decode)


def test_ticks_go_on_between_the_pictures_of_a_large_request(engine, monkeypatch):
    log = []
    watch_decode(monkeypatch, log)
    hold(engine)
    large = engine.submit(replace(CAT, num_outputs=3))
    other = engine.submit(MANY, progress=lambda done, total: log.append(("tick", done)))
    engine.components.unet.gate.set()
    large.result(SECONDS)
    other.result(SECONDS)
    kinds = [kind for kind, _ in log]
    first = kinds.index("decode")
    assert kinds[first : first + 6] == ["decode", "tick"] * 3
    assert {size for kind, size in log if kind == "decode"} == {1}


def test_pictures_are_decoded_together_where_that_is_allowed(spied, components, monkeypatch):
    log = []
    watch_decode(monkeypatch, log)
    with Engine(spied, decode_batch=4) as engine:
        hold(engine)
        requests = [replace(CAT, seed=i, num_outputs=n) for i, n in ((1, 1), (10, 2), (20, 2))]
        futures = [engine.submit(request) for request in requests]
        spied.unet.gate.set()
        results = [future.result(SECONDS) for future in futures]
    assert [size for _, size in log] == [4, 1]
    for request, result in zip(requests, results, strict=True):
        assert psnr(result.images[-1], sampling.generate(components, request).images[-1]) >= 50


@pytest.mark.parametrize("decode_batch", [1, 4])
def test_a_picture_that_can_not_be_decoded_fails_its_own_request(spied, components, monkeypatch, decode_batch):
    bad_request = replace(CAT, seed=2)
    bad = sampling.prepare(components, bad_request)
    while not bad.finished:
        sampling.step(components, [bad])

    def before(x_0):
        if any(torch.allclose(row, bad.x_t[0], atol=1e-3) for row in x_0):
            raise NaNError("not finite")

    watch_decode(monkeypatch, [], before)
    with Engine(spied, decode_batch=decode_batch) as engine:
        hold(engine)
        futures = [engine.submit(request) for request in (CAT, bad_request, replace(CAT, seed=3))]
        spied.unet.gate.set()
        with pytest.raises(NaNError):
            futures[1].result(SECONDS)
        assert [len(futures[i].result(SECONDS).images) for i in (0, 2)] == [1, 1]


def test_decoding_in_halves_when_the_memory_is_short(spied, monkeypatch):
    log = []

    def before(x_0):
        if len(x_0) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    watch_decode(monkeypatch, log, before)
    with Engine(spied, decode_batch=8) as engine:
        assert len(engine.submit(replace(CAT, num_outputs=4)).result(SECONDS).images) == 4
    assert [size for _, size in log] == [4, 2, 4, 2] or [size for _, size in log] == [4, 4, 2, 2]


def test_a_job_cancelled_while_it_is_decoded_ends_there(engine, monkeypatch):
    log = []
    watch_decode(monkeypatch, log, before=lambda x_0: len(log) == 2 and victim.cancel())
    spy = hold(engine)
    victim = engine.submit(replace(CAT, num_outputs=4))
    spy.gate.set()
    assert wait([victim], SECONDS).done
    assert victim.cancelled()
    engine.submit(CAT).result(SECONDS)
    assert len(log) == 2 + 1


def test_one_cancelled_while_its_image_is_encoded_harms_nobody(engine, monkeypatch):
    """With prompt_strength 0 it has no steps: it is done as soon as it is prepared."""
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


def test_pictures_are_decoded_in_the_order_their_requests_came(engine):
    ended = []
    spy = hold(engine)
    futures = [engine.submit(replace(CAT, seed=i, num_outputs=2, guidance_scale=1)) for i in range(4)]
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: ended.append(i))
    spy.gate.set()
    wait(futures, SECONDS)
    assert ended == [0, 1, 2, 3]


def test_nobody_is_let_in_while_too_many_pictures_wait_for_their_decoding(spied, monkeypatch):
    backlog = []
    with Engine(spied, max_batch_rows=8, max_queue=200) as engine:
        watch_decode(monkeypatch, [], lambda x_0: backlog.append(sum(t.job.undecoded for t in engine._decoding)))
        requests = [Request("猫", seed=i, num_outputs=4, num_inference_steps=1, guidance_scale=1) for i in range(12)]
        for future in [engine.submit(request) for request in requests]:
            assert len(future.result(SECONDS).images) == 4
    assert max(backlog) <= 8


def test_what_a_failed_call_held_is_let_go_before_the_next(engine):
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


def test_what_did_not_fit_once_is_not_tried_at_every_step(engine):
    spy = engine.components.unet

    def broken(x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return False

    spy.broken = broken
    assert len(engine.submit(replace(TWELVE, num_outputs=2)).result(SECONDS).images) == 2
    assert [size for size in spy.calls if size > 2] == [4]


def test_a_large_picture_takes_the_rows_of_as_many_small_ones(spied):
    with Engine(spied, max_batch_rows=8) as engine:
        spy = hold(engine)
        futures = [engine.submit(CAT)]
        assert spy.inside.wait(SECONDS)
        futures += [engine.submit(replace(CAT, width=128, height=128, seed=i)) for i in (1, 2)]
        spy.gate.set()
        assert all(future.result(SECONDS) for future in futures)
    assert max(size for size in spy.calls) == 2


def test_what_was_cancelled_is_not_marked(engine, monkeypatch):
    sealed, go_on = [], threading.Event()
    original = sampling.seal

    def seal(components, job):
        sealed.append(job.request.seed)
        assert go_on.wait(SECONDS)
        return original(components, job)

    monkeypatch.setattr(sampling, "seal", seal)
    first, second = engine.submit(CAT), engine.submit(replace(CAT, seed=2))
    deadline = time.monotonic() + SECONDS
    while engine._sealer._work_queue.qsize() < 1:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert second.cancel()
    go_on.set()
    assert first.result(SECONDS)
    assert wait([second], SECONDS).done
    engine.close()
    assert sealed == [1]


def test_marking_does_not_hold_up_the_ticks(engine, monkeypatch):
    sealing, go_on = threading.Event(), threading.Event()
    original = sampling.seal

    def seal(components, job):
        if job.request.seed == 5:
            sealing.set()
            assert go_on.wait(SECONDS)
        return original(components, job)

    monkeypatch.setattr(sampling, "seal", seal)
    first = engine.submit(replace(CAT, seed=5))
    assert sealing.wait(SECONDS)
    ticks = []
    second = engine.submit(CAT, progress=lambda done, total: ticks.append(done))
    deadline = time.monotonic() + SECONDS
    while len(ticks) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not first.done()
    go_on.set()
    assert first.result(SECONDS)
    assert second.result(SECONDS)


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


def test_the_model_is_loaded_by_the_thread_that_runs_it(components):
    loaded = []

    def load():
        loaded.append(threading.current_thread().name)
        return components

    with Engine(load) as engine:
        assert loaded == ["jsd-engine"]
        assert engine.components is components
        assert engine.max_batch_rows == capacity.CPU_ROWS
        assert len(engine.submit(CAT).result(SECONDS).images) == 1


def test_what_loading_raises_is_raised():
    def load():
        raise WeightsError("unet: altered")

    with pytest.raises(WeightsError, match="unet: altered"):
        Engine(load)


def test_a_result_tells_how_full_its_calls_were(engine):
    spy = hold(engine)
    futures = [engine.submit(CAT)]
    assert spy.inside.wait(SECONDS)
    futures.append(engine.submit(replace(CAT, seed=2)))
    spy.gate.set()
    # Of four steps the first ran alone, and the last of the other one too.
    assert [future.result(SECONDS).batch_rows for future in futures] == [(2 + 3 * 4) / 4, (3 * 4 + 2) / 4]


def test_impossible_limits_are_refused(components):
    with pytest.raises(ValueError, match="max_batch_rows"):
        Engine(components, max_batch_rows=0)
