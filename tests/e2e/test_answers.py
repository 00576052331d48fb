"""The server's answers are those of its OpenAPI document: no other code, content type, key or type."""

import copy
from typing import Any

import jsonschema_rs
import pytest

from tests.adapters import adapter
from tests.e2e.conftest import SMALL
from tests.server import Server, to_uri

LONG = SMALL | {"num_inference_steps": 500}
ASYNC = {"prefer": "respond-async"}
PREDICTIONS = ("/predictions", "post")
CANCEL = ("/predictions/{prediction_id}/cancel", "post")


class Documented:
    """A server and its document. `call` is the server's, and checks the answer against the document."""

    def __init__(self, server: Server):
        self.server = server
        _, self.document = server.call("GET", "/openapi.json")

    def call(self, operation: tuple[str, str], path: str, *request: Any) -> tuple[int, Any]:
        code, answer = self.server.call(operation[1].upper(), path, *request)
        content = self.document["paths"][operation[0]][operation[1]]["responses"][str(code)]["content"]
        kind = "text/plain" if isinstance(answer, str) else "application/json"
        schema = content[kind]["schema"]
        strict = {"components": closed(self.document["components"])} | schema
        jsonschema_rs.validator_for(strict).validate(answer)
        return code, answer


def closed(schema: Any) -> Any:
    """The same schema, but an object may have no other properties than those the document names."""
    schema = copy.deepcopy(schema)
    pending = [schema]
    while pending:
        part = pending.pop()
        pending += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
        if isinstance(part, dict) and part.get("type") == "object" and "properties" in part:
            part.setdefault("additionalProperties", False)
    return schema


@pytest.fixture
def documented(server) -> Documented:
    return Documented(server)


@pytest.mark.parametrize("missing", [set(), {"lora", "lora_scale"}], ids=["with an adapter", "without one"])
def test_a_picture_comes_with_every_metric_that_the_document_names(tiny_server, components, missing):
    documented, inputs = Documented(tiny_server), {} if missing else {"lora": to_uri(adapter(components))}
    code, answer = documented.call(PREDICTIONS, "/predictions", {"input": SMALL | inputs})
    assert (code, answer["status"]) == (200, "succeeded")
    named = documented.document["components"]["schemas"]["PredictionResponse"]["properties"]["metrics"]
    assert set(answer["metrics"]) == named["properties"].keys() - missing
    assert named["additionalProperties"] is True


@pytest.mark.parametrize(
    ("code", "path", "body", "headers"),
    [
        (200, "/predictions", {"input": SMALL | {"width": 100}}, {}),
        (400, "/predictions", b"{", {}),
        (406, "/predictions", {"input": SMALL}, {"accept": "text/event-stream"}),
        (413, "/predictions", b" " * 104_857_601, {}),
        (415, "/predictions", b"{}", {"content-type": "text/plain"}),
        (422, "/predictions", {"input": SMALL | {"width": 1}}, {}),
        (422, "/predictions", {"id": 5}, {}),
    ],
)
def test_a_refusal_is_as_documented(documented, code, path, body, headers):
    assert documented.call(PREDICTIONS, path, body, headers)[0] == code


def test_a_prediction_that_is_begun_repeated_and_cancelled_is_answered_as_documented(documented):
    put, path = ("/predictions/{prediction_id}", "put"), "/predictions/documented"
    running = documented.server.begin(**LONG)
    running.wait_for("/500")  # two requests at the same instant may be refused
    assert documented.call(put, path, {"input": LONG}, ASYNC) == (202, {"id": "documented", "status": "starting"})
    code, answer = documented.call(put, path, {"input": SMALL})
    assert (code, answer["input"]) == (202, LONG)
    assert documented.call(put, path, {"id": "another", "input": SMALL})[0] == 422
    assert documented.call(CANCEL, f"{path}/cancel") == (200, {})
    documented.server.wait("the end", lambda: documented.call(CANCEL, f"{path}/cancel") == (404, {}))
    running.cancel()
    assert set(running.result()) == {"id", "status", "logs", "metrics"}


def test_the_health_check_is_as_documented(documented, start):
    health = ("/health-check", "get")
    assert documented.call(health, "/health-check")[1]["status"] == "READY"
    failed = start(JSD_DTYPE="fp8")
    documented.server = failed
    assert documented.call(health, "/health-check")[1]["status"] == "SETUP_FAILED"
    assert documented.call(PREDICTIONS, "/predictions", {"input": SMALL})[0] == 503


def test_every_slot_busy_is_as_documented(documented, tiny_folder, start):
    server = documented.server = start(JSD_WEIGHTS=str(tiny_folder))
    names = [f"busy-{i}" for i in range(33)]
    put = ("/predictions/{prediction_id}", "put")
    codes = [documented.call(put, f"/predictions/{name}", {"input": LONG}, ASYNC)[0] for name in names]
    assert codes[-1] == 409
    for name in names:
        server.call("POST", f"/predictions/{name}/cancel")
    server.wait("free slots", lambda: server.status() == "READY")


def test_no_input_is_nullable(documented):
    """For Cog's server refuses null: see test_hostile.py."""
    inputs = documented.document["components"]["schemas"]["Input"]["properties"]
    assert [name for name, schema in inputs.items() if "nullable" in schema or schema.get("default", 0) is None] == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "", '"" is not of type "integer"'),
        ("width", "", '"" is not of type "integer"'),
        ("guidance_scale", "", '"" is not of type "number"'),
        ("scheduler", "", '"" is not one of ["DDIM",'),
        ("prompt", "", '"" is shorter than 1 character'),
    ],
)
def test_what_a_form_sends_for_an_empty_field_is_refused_with_what_is_wanted(documented, name, value, message):
    code, answer = documented.call(PREDICTIONS, "/predictions", {"input": SMALL | {name: value}})
    assert code == 422
    assert answer["detail"][0]["loc"] == ["body", "input", name]
    assert answer["detail"][0]["msg"].startswith(message)


def test_a_form_that_sends_the_first_choices_gets_a_picture(documented):
    schemas = documented.document["components"]["schemas"]
    first = {name: schemas[name]["enum"][0] for name in ("scheduler", "output_format")}
    inputs = SMALL | {"negative_prompt": "", "image": "", "mask": ""} | first
    assert len(documented.server.draw(**inputs)) == 1
