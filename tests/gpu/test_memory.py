"""Memory that runs short at each stage: calls are split, or one request fails and says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from jsd import sampling
from jsd.batch import Batch, Ticket
from jsd.errors import MemoryShortError
from jsd.sampling import generate, seal
from jsd.source import at_size
from tests.engine.conftest import CAT
from tests.fakes import psnr
from tests.gpu.conftest import ALIKE, MB, ON_GPU, scarce

ROOM = 512 * MB
PER_SAMPLE = 200 * MB  # two samples fit into ROOM, and the tiny model beside them


class Driver:
    """Runs a `Batch` in this thread, as the engine does in its own: `scarce` concerns the thread that enters it."""

    def __init__(self, components, **limits):
        self.components, self.batch = components, Batch(components, **limits)

    def draw(self, *requests):
        """Draw requests together. Returns the result of each, or its error."""
        requests = [at_size(request.resolve(self.components.defaults)) for request in requests]
        tickets = [Ticket(request, None, self.components.defaults) for request in requests]
        self.batch.active += tickets
        self.batch.prepare()
        while self.batch.tickets:
            if self.batch.active:
                self.batch.tick()
            if self.batch.decoding:
                self.batch.decode(lambda ticket: ticket.settle(seal(self.components, ticket.job)))
        return [ticket.future.exception(0) or ticket.future.result(0) for ticket in tickets]


def stage(components, name):
    """Return the module that computes in a stage, and a request that gets there."""
    request = replace(CAT, image=Image.new("RGB", (64, 64), "green"), prompt_strength=0.5) if name == "encode" else CAT
    modules = {
        "prepare": components.text_encoder,
        "encode": components.vae.encoder,
        "step": components.unet,
        "decode": components.vae.decoder,
        "judge": components.safety_checker.vision_model,
    }
    return modules[name], request


@pytest.mark.parametrize("name", ["prepare", "encode", "step", "decode", "judge"])
def test_a_request_for_which_memory_is_short_fails_alone_and_the_next_one_is_drawn(components, hungry, name):
    module, request = stage(components, name)
    driver = Driver(components, max_rows=8)
    driver.draw(CAT)
    hungry(module, 2 * ROOM)
    with scarce(ROOM):
        (error,) = driver.draw(request)
        assert isinstance(error, MemoryShortError), error
        assert "take a smaller width and height, or fewer users" in str(error)
    (result,) = driver.draw(request)
    assert psnr(result.images[0], generate(components, request).images[0]) >= ALIKE[components.dtype]


@pytest.mark.parametrize("name", ["step", "decode"])
def test_a_call_that_does_not_fit_is_split(components, hungry, name):
    module, _ = stage(components, name)
    requests = [replace(CAT, seed=seed, num_outputs=2) for seed in (1, 11)]
    driver = Driver(components, max_rows=8, decode_batch=4)
    sizes = []
    hook = module.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    hungry(module, PER_SAMPLE)
    try:
        with scarce(ROOM):
            results = driver.draw(*requests)
    finally:
        hook.remove()
    assert (max(sizes), sizes[-1]) == (8 if name == "step" else 4, 2)
    for request, result in zip(requests, results, strict=True):
        assert not isinstance(result, Exception), result
        for ours, alone in zip(result.images, generate(components, request).images, strict=True):
            assert psnr(ours, alone) >= ALIKE[components.dtype]


def test_a_call_that_can_not_be_recorded_for_want_of_memory_runs_without_a_graph(graphed, components, hungry, capsys):
    """Five rows fit into ROOM. A graph for them has six."""
    request = replace(CAT, num_outputs=5, guidance_scale=1)
    driver = Driver(graphed, max_rows=5)
    hungry(graphed.unet.unet, 95 * MB)
    with scarce(ROOM):
        (result,) = driver.draw(request)
    assert not isinstance(result, Exception), result
    assert "no CUDA graph of 6 rows" in capsys.readouterr().err
    for ours, alone in zip(result.images, generate(components, request).images, strict=True):
        assert psnr(ours, alone) >= ALIKE[components.dtype]


def test_large_pictures_are_decoded_one_by_one(components, graphed, monkeypatch):
    """Four pictures of 1024 x 1024, which are 256 times as large as the tiny model's own."""
    if not ON_GPU and components.dtype.itemsize == 2:
        pytest.skip("takes a minute on a CPU")
    decoded = []
    original = sampling.decode
    monkeypatch.setattr(sampling, "decode", lambda components, z: decoded.append(len(z)) or original(components, z))
    request = replace(CAT, width=1024, height=1024, num_outputs=4, num_inference_steps=1, guidance_scale=1)
    (result,) = Driver(graphed, max_rows=64, decode_batch=4).draw(request)
    assert not isinstance(result, Exception), result
    assert [image.size for image in result.images] == [(1024, 1024)] * 4
    assert decoded == [1] * 4
    assert result.batch_rows == 1
