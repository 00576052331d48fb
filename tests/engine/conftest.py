"""Requests for the tests of the engine, and helpers to stop the engine and to watch it."""

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
    """Make the engine wait inside its next UNet call. Returns its `SpyUNet`, whose `gate.set()` lets it go on."""
    spy = engine.components.unet
    spy.gate.clear()
    spy.inside.clear()
    return spy


def alone(components, request):
    """Return the first picture of a request that is drawn without the engine, and so without other requests."""
    return sampling.generate(components, request).images[0]


def watch_decode(monkeypatch, log, before=lambda x_0: None):
    """Patch `sampling.decode`, which decodes latents into pictures.

    From now on each call first appends ("decode", number of pictures) to the list `log`, and calls `before(latents)`.
    """
    original = sampling.decode

    def decode(components, x_0):
        log.append(("decode", len(x_0)))
        before(x_0)
        return original(components, x_0)

    monkeypatch.setattr(sampling, "decode", decode)
