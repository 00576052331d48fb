"""Random requests, made from the served OpenAPI document, are answered as the document says. None breaks the server."""

import pytest
from schemathesis import GenerationMode

from jsd.request import MAX_STEPS
from tests.e2e.random_requests import ask_randomly


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_random_requests_are_answered_as_the_document_says(tiny_server, mode):
    _, document = tiny_server.call("GET", "/openapi.json")
    assert document["components"]["schemas"]["Input"]["properties"]["steps"]["maximum"] == MAX_STEPS
    assert ask_randomly(tiny_server, mode, 60) >= 30
    assert tiny_server.status() == "READY"
    assert len(tiny_server.draw(prompt="猫", seed=1)) == 1
