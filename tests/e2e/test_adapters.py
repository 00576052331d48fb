"""Clients with different adapters ask the real server at once, and each gets the picture that it gets alone."""

from __future__ import annotations

import hashlib

import pytest

from jsd.model import Components
from tests.adapters import adapter
from tests.e2e.conftest import metadata_of
from tests.fakes import psnr
from tests.server import Server, data, picture, to_uri

CAT = {"prompt": "猫", "num_inference_steps": 30}


@pytest.fixture(scope="module")
def with_lora(components: Components) -> list[dict]:
    """Inputs with three adapters and with none, twice, each with another seed."""
    files = [{"lora": to_uri(adapter(components, i)), "lora_scale": 0.8} for i in range(3)]
    return [CAT | {"seed": seed} | inputs for seed, inputs in enumerate([*files, {}] * 2)]


def test_eight_clients_with_three_adapters_and_none_draw_as_if_alone(tiny_server: Server, with_lora: list[dict]):
    wanted = [tiny_server.draw(**inputs)[0] for inputs in with_lora]
    victim = tiny_server.begin(**with_lora[1] | {"num_inference_steps": 500})
    running = [tiny_server.begin(**inputs) for inputs in with_lora]
    victim.wait_for("it/s]")
    assert victim.cancel() == 200
    for other, prediction in zip(wanted, running, strict=True):
        assert psnr(picture(prediction.result()["output"][0]), other) >= 50
    assert victim.result()["status"] == "canceled"


def test_an_adapter_is_in_the_metadata_the_metrics_and_the_log_by_its_hash(tiny_server: Server, with_lora: list[dict]):
    prediction = tiny_server.predict(**with_lora[0])
    known = {"lora": hashlib.sha256(data(with_lora[0]["lora"])).hexdigest()[:12], "lora_scale": 0.8}
    assert metadata_of(prediction).items() >= known.items()
    assert prediction["metrics"].items() >= known.items()
    assert f"lora {known['lora']}, lora_scale 0.8" in prediction["logs"]
    assert "lora" not in tiny_server.predict(**with_lora[3])["metrics"]


def test_a_file_that_is_no_adapter_fails_with_the_reason(tiny_server: Server, with_lora: list[dict]):
    before = tiny_server.draw(**with_lora[0])[0]
    prediction = tiny_server.predict(**CAT, lora=to_uri(b"\x80\x04\x95 a pickle"))
    assert prediction["status"] == "failed"
    assert "lora: no .safetensors file" in prediction["error"]
    assert tiny_server.draw(**with_lora[0])[0].tobytes() == before.tobytes()
