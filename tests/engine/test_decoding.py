"""Pictures are decoded between the ticks. They get their watermark on another thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from dataclasses import replace

import pytest
import torch

from jsd import sampling
from jsd.engine import Engine
from jsd.errors import NaNError
from jsd.request import Request
from tests.engine.conftest import CAT, MANY, SECONDS, hold, watch_decode
from tests.fakes import psnr


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


def test_several_pictures_are_decoded_in_one_call_if_the_engine_may(spied, components, monkeypatch):
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


def test_fewer_large_pictures_are_decoded_in_one_call(spied, monkeypatch):
    log = []
    watch_decode(monkeypatch, log)
    with Engine(spied, max_batch_rows=64, decode_batch=8) as engine:
        large = replace(CAT, width=128, height=128, num_outputs=5, num_inference_steps=1)  # four times the model's own
        assert len(engine.submit(large).result(SECONDS).images) == 5
    assert [size for _, size in log] == [2, 2, 1]


def test_pictures_are_decoded_in_the_order_their_requests_came(engine):
    ended = []
    spy = hold(engine)
    futures = [engine.submit(replace(CAT, seed=i, num_outputs=2, guidance_scale=1)) for i in range(4)]
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: ended.append(i))
    spy.gate.set()
    wait(futures, SECONDS)
    assert ended == [0, 1, 2, 3]


def test_no_request_is_admitted_while_too_many_pictures_wait_for_decoding(spied, monkeypatch):
    backlog = []
    with Engine(spied, max_batch_rows=8, max_queue=200) as engine:
        watch_decode(monkeypatch, [], lambda x_0: backlog.append(engine.undecoded))
        requests = [Request("猫", seed=i, num_outputs=4, num_inference_steps=1, guidance_scale=1) for i in range(12)]
        for future in [engine.submit(request) for request in requests]:
            assert len(future.result(SECONDS).images) == 4
    assert max(backlog) <= 8


@pytest.mark.parametrize("decode_batch", [1, 4])
def test_a_picture_that_can_not_be_decoded_fails_only_its_own_request(spied, components, monkeypatch, decode_batch):
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


def test_fewer_pictures_are_decoded_in_one_call_when_memory_is_short(spied, monkeypatch):
    log = []

    def before(x_0):
        if len(x_0) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    watch_decode(monkeypatch, log, before)
    with Engine(spied, decode_batch=8) as engine:
        assert len(engine.submit(replace(CAT, num_outputs=8)).result(SECONDS).images) == 8
    assert [size for _, size in log] == [8, 4, 2, 2, 2, 2]  # that only 2 fit is remembered


def test_ticks_go_on_while_a_watermark_is_written(engine, monkeypatch):
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
