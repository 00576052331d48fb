"""Random requests, made by schemathesis from a server's own OpenAPI document, always the same ones."""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from tests.server import Server

MOST = {"num_inference_steps": 3, "steps": 3, "num_outputs": 2, "width": 256, "height": 256}
NOWHERE = "http://127.0.0.1:1/cat.png"
ALLOWED_CODES = {200, 400, 415, 422}


def ask_randomly(server: Server, mode: GenerationMode, cases: int) -> int:
    """Make up to `cases` requests, allowed ones or others by `mode`. Returns how many there were.

    Raises `AssertionError` for an answer that is not as the document says.
    """
    document = server.call("GET", "/openapi.json")[1]
    properties = document["components"]["schemas"]["Input"]["properties"]
    # The error of a failed prediction names an input, or numbers that overflowed.
    reasons = [*(f"{name}: " for name in properties), "NaN"]
    operation = schemathesis.openapi.from_dict(document)["/predictions"]["POST"]
    codes = []

    @settings(
        max_examples=cases,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        body = case.body
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if name not in ("webhook", "id")}
            body["input"] = _small(body.get("input"), properties)
        sent = (
            b"" if isinstance(body, NotSet) else json.dumps(body, default=lambda data: data.decode("latin-1")).encode()
        )
        code, answer = server.call("POST", "/predictions", sent)
        assert code in ALLOWED_CODES, answer
        codes.append(code)
        if code == 200 and answer["status"] == "failed":
            assert [reason for reason in reasons if reason in answer["error"]], answer
        elif code == 200:
            assert answer["status"] == "succeeded", answer

    ask()
    return len(codes)


def _small(inputs: object, properties: dict[str, Any]) -> object:
    """The same inputs without real addresses, large pictures and many steps, as far as the document allows them."""
    if not isinstance(inputs, dict):
        return inputs
    inputs = {
        name: NOWHERE if name in ("image", "mask", "lora") and isinstance(value, str) and "://" in value else value
        for name, value in inputs.items()
    }
    return {
        name: min(value, MOST[name])
        if name in MOST and type(value) is int and properties[name]["minimum"] <= value <= properties[name]["maximum"]
        else value
        for name, value in inputs.items()
    }
