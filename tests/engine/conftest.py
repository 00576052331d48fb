"""What the tests of the engine share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jsd import sampling
from jsd.engine import Engine
from jsd.request import Request

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


def watch_decode(monkeypatch, log, before=lambda jobs: None):
    """Note the name "decode" in `log` at every call of the VAE."""
    original = sampling.decode

    def decode(components, x_0):
        log.append(("decode", len(x_0)))
        before(x_0)
        return original(components, x_0)

    monkeypatch.setattr(sampling, "decode", decode)
