"""An engine from its start to its end. No request waits for ever, however the engine ends."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from dataclasses import replace

import pytest
import torch

from jsd import device, sampling
from jsd.engine import Engine
from jsd.errors import EngineLostError, WeightsError
from jsd.request import Request
from tests.engine.conftest import CAT, MANY, SECONDS, hold

LOST = torch.AcceleratorError("CUDA error: unspecified launch failure")


def test_impossible_limits_are_refused(components):
    with pytest.raises(ValueError, match="max_batch_rows"):
        Engine(components, max_batch_rows=0)


def test_the_model_is_loaded_by_the_thread_that_runs_it(components):
    loaded = []

    def load():
        loaded.append(threading.current_thread().name)
        return components

    with Engine(load) as engine:
        assert loaded == ["jsd-engine"]
        assert engine.components is components
        assert engine.max_batch_rows == device.CPU_ROWS
        assert len(engine.submit(CAT).result(SECONDS).images) == 1


def test_an_error_of_the_loading_is_raised():
    def load():
        raise WeightsError("unet: altered")

    with pytest.raises(WeightsError, match="unet: altered"):
        Engine(load)


def test_closing_cancels_every_request(spied):
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


def test_a_lost_device_leaves_a_finished_request_its_result(spied, monkeypatch):
    judge = sampling.judge

    def fail_for_the_second(components, job):
        if job.request.seed == 2:
            raise LOST
        judge(components, job)

    monkeypatch.setattr(sampling, "judge", fail_for_the_second)
    engine = Engine(spied, max_batch_rows=8, decode_batch=2)
    spy = hold(engine)
    first, second = (engine.submit(replace(CAT, seed=seed)) for seed in (1, 2))
    spy.gate.set()
    assert len(first.result(SECONDS).images) == 1
    with pytest.raises(EngineLostError):
        second.result(SECONDS)
    engine.close()


@pytest.mark.parametrize("stage", ["prepare", "step", "decode_next", "judge"])
def test_a_lost_device_fails_every_request_and_is_reported(spied, monkeypatch, stage):
    reported = []
    original = getattr(sampling, stage)

    def fail(*args):
        subjects = args[1] if isinstance(args[1], list) else [args[1]]
        if any(getattr(subject, "request", subject).seed == 666 for subject in subjects):
            raise LOST
        return original(*args)

    monkeypatch.setattr(sampling, stage, fail)
    engine = Engine(spied, max_batch_rows=4, on_lost=reported.append)
    spy = hold(engine)
    requests = [replace(MANY, seed=1), replace(CAT, seed=666), replace(CAT, seed=3)]
    futures = [engine.submit(request) for request in requests]
    spy.gate.set()
    for future in futures:
        with pytest.raises(EngineLostError, match="unspecified launch failure.*started again"):
            future.result(SECONDS)
    engine.close()
    assert reported == [LOST]
    assert engine.lost is LOST
    with pytest.raises(EngineLostError):
        engine.submit(CAT)


class Defective(Request):
    """A request that breaks the engine's loop itself, because its number of rows can't be computed."""

    @property
    def rows(self) -> int:
        raise ZeroDivisionError("no rows")


def test_a_defect_of_the_loop_fails_every_request_and_is_reported(spied):
    reported = []
    engine = Engine(spied, on_lost=reported.append)
    spy = hold(engine)
    futures = [engine.submit(MANY)]
    assert spy.inside.wait(SECONDS)
    futures += [engine.submit(Defective("猫")), engine.submit(CAT)]
    spy.gate.set()
    for future in futures:
        with pytest.raises(EngineLostError, match="no rows"):
            future.result(SECONDS)
    engine.close()
    assert [type(error) for error in reported] == [ZeroDivisionError]
