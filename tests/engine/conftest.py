"""Requests, and helpers to stop and to watch an engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jsd import sampling
from jsd.engine import Engine
from jsd.request import Request

CAT = Request("猫", seed=1)
TWELVE = replace(CAT, num_inference_steps=12)
MANY = replace(CAT, num_inference_steps=40)
SECONDS = 30  # longer than any request takes here


@pytest.fixture
def engine(spied):
    with Engine(spied, max_batch_rows=8) as engine:
        yield engine


def hold(engine):
    """Stop the engine inside its next UNet call. `gate.set()` of the spy that is returned lets it go on."""
    spy = engine.components.unet
    spy.gate.clear()
    spy.inside.clear()
    return spy


def alone(components, request):
    """The first picture of a request that is served without others."""
    return sampling.generate(components, request).images[0]


def watch_decode(monkeypatch, log, before=lambda x_0: None):
    """Append ("decode", number of pictures) to `log` and call `before(latents)` whenever pictures are decoded."""
    original = sampling.decode

    def decode(components, x_0):
        log.append(("decode", len(x_0)))
        before(x_0)
        return original(components, x_0)

    monkeypatch.setattr(sampling, "decode", decode)
