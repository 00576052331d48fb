"""Requests made up from the served OpenAPI document: each is answered as the document says, none breaks the server."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from jsd.request import MAX_STEPS

MOST = {"num_inference_steps": 3, "steps": 3, "num_outputs": 2, "width": 256, "height": 256}

NOWHERE = "http://127.0.0.1:1/cat.png"  # Cog fetches what it is given, and tells in its own words that it can't


@pytest.fixture(scope="module")
def tiny_server(start, tiny_folder):
    """With a model whose pictures take milliseconds."""
    server = start(JSD_WEIGHTS=str(tiny_folder))
    assert server.status() == "READY", server.health()
    yield server
    server.stop()


def small(inputs: object, properties: dict) -> object:
    """The same inputs, but for addresses, large pictures and many steps, where those are allowed."""
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
def test_every_prediction_the_document_allows_or_not_is_answered_as_it_says(tiny_server, mode):
    code, document = tiny_server.call("GET", "/openapi.json")
    assert code == 200
    properties = document["components"]["schemas"]["Input"]["properties"]
    assert properties["steps"]["maximum"] == MAX_STEPS
    operation = schemathesis.openapi.from_dict(document)["/predictions"]["POST"]
    answers = []

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
        answers.append(code)
        assert code in (200, 400, 415, 422), answer
        if code == 200:
            assert answer["status"] in ("succeeded", "failed")
            named = [name for name in properties if f"{name}: " in (answer.get("error") or "")]
            assert (
                answer["status"] == "succeeded" or named or "NaN" in answer["error"] or "127.0.0.1" in answer["error"]
            )

    ask()
    assert len(answers) >= 30
    assert tiny_server.status() == "READY"
    assert len(tiny_server.draw(prompt="猫", seed=1)) == 1
