"""Random requests, made from the served OpenAPI document, are answered as the document says. None breaks the server."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from jsd.request import MAX_STEPS
from tests.server import Server

MOST = {"num_inference_steps": 3, "steps": 3, "num_outputs": 2, "width": 256, "height": 256}
NOWHERE = "http://127.0.0.1:1/cat.png"  # Cog fetches the pictures itself, so the error for this one is Cog's own
ALLOWED_CODES = {200, 400, 415, 422}


@pytest.fixture
def tiny_server(start, tiny_folder) -> Server:
    """A server with a model that draws a picture in milliseconds."""
    server = start(JSD_WEIGHTS=str(tiny_folder))
    assert server.status() == "READY", server.health()
    return server


def small(inputs: object, properties: dict) -> object:
    """The same inputs without real addresses, large pictures and many steps, as far as the document allows them."""
    if not isinstance(inputs, dict):
        return inputs
    inputs = {
        name: NOWHERE if name in ("image", "mask") and isinstance(value, str) and "://" in value else value
        for name, value in inputs.items()
    }
    return {
        name: min(value, MOST[name])
        if name in MOST and type(value) is int and properties[name]["minimum"] <= value <= properties[name]["maximum"]
        else value
        for name, value in inputs.items()
    }


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_random_requests_are_answered_as_the_document_says(tiny_server, mode):
    code, document = tiny_server.call("GET", "/openapi.json")
    assert code == 200
    properties = document["components"]["schemas"]["Input"]["properties"]
    assert properties["steps"]["maximum"] == MAX_STEPS
    # The error of a failed prediction names an input, the address above, or numbers that overflowed.
    reasons = [*(f"{name}: " for name in properties), "127.0.0.1", "NaN"]
    operation = schemathesis.openapi.from_dict(document)["/predictions"]["POST"]
    codes = []

    @settings(
        max_examples=60,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        body = case.body
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if name not in ("webhook", "id")}
            body["input"] = small(body.get("input"), properties)
        sent = (
            b"" if isinstance(body, NotSet) else json.dumps(body, default=lambda data: data.decode("latin-1")).encode()
        )
        code, answer = tiny_server.call("POST", "/predictions", sent)
        assert code in ALLOWED_CODES, answer
        codes.append(code)
        if code == 200 and answer["status"] == "failed":
            assert [reason for reason in reasons if reason in answer["error"]]
        elif code == 200:
            assert answer["status"] == "succeeded"

    ask()
    assert len(codes) >= 30
    assert tiny_server.status() == "READY"
    assert len(tiny_server.draw(prompt="猫", seed=1)) == 1
