"""Many requests share one UNet, within its limit and in the order they came. Each is drawn as if it were alone."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

from jsd.engine import Engine
from jsd.request import SCHEDULER_NAMES
from tests.engine.conftest import CAT, MANY, SECONDS, alone, hold
from tests.fakes import psnr


def test_the_engine_draws_the_same_picture_as_generate(engine, components):
    result = engine.submit(CAT).result(SECONDS)
    assert result.images[0].tobytes() == alone(components, CAT).tobytes()
    assert result.request == CAT.resolve(components.defaults)


def test_requests_share_unet_calls_and_draw_as_if_alone(engine, components):
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
    assert max(spy.calls) == 8  # the three requests that came during the first call joined the second
    assert sum(spy.calls) == 2 * (4 + 5 + 6 + 8)  # PNDM takes one call more than its 7 steps
    for request, result in zip(requests, results, strict=True):
        assert psnr(result.images[0], alone(components, request)) >= 50


def test_jobs_of_every_scheduler_share_one_unet_call(spied, components):
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


def test_a_small_request_does_not_overtake_a_large_one(spied):
    with Engine(spied, max_batch_rows=4) as engine:
        hold(engine)
        order = []
        futures = [
            engine.submit(replace(CAT, num_outputs=n), progress=lambda done, _, n=n: order.append(n)) for n in (2, 3, 1)
        ]
        spied.unet.gate.set()
        [future.result(SECONDS) for future in futures]
    assert order == [2] * 4 + [3] * 4 + [1] * 4


def test_jobs_of_different_sizes_take_turns(engine):
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


def test_a_large_picture_counts_as_several_rows(spied):
    with Engine(spied, max_batch_rows=8) as engine:
        spy = hold(engine)
        futures = [engine.submit(CAT)]
        assert spy.inside.wait(SECONDS)
        futures += [engine.submit(replace(CAT, width=128, height=128, seed=i)) for i in (1, 2)]
        spy.gate.set()
        assert [len(future.result(SECONDS).images) for future in futures] == [1, 1, 1]
    assert max(size for size in spy.calls) == 2


def test_a_result_says_how_many_rows_its_calls_had_on_average(engine):
    spy = hold(engine)
    futures = [engine.submit(CAT)]
    assert spy.inside.wait(SECONDS)
    futures.append(engine.submit(replace(CAT, seed=2)))
    spy.gate.set()
    # The first step of the first job ran alone, and the last step of the second job too.
    assert [future.result(SECONDS).batch_rows for future in futures] == [(2 + 3 * 4) / 4, (3 * 4 + 2) / 4]


def test_progress_and_queue_time_are_reported(engine):
    spy = hold(engine)
    first, seen = engine.submit(replace(CAT, num_outputs=4)), []
    assert spy.inside.wait(SECONDS)
    second = engine.submit(CAT, progress=lambda done, total: seen.append((done, total)))
    time.sleep(0.05)
    spy.gate.set()
    assert second.result(SECONDS).timings["queue"] >= 0.05
    assert first.result(SECONDS).timings["queue"] < second.result().timings["queue"]
    assert seen == [(i, 4) for i in (1, 2, 3, 4)]
