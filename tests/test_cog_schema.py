"""What script/schema.py writes is what Cog's own parser writes for predict.py, but for the differences named here.

tests/cog_schema.json is what Cog 0.23 writes (`cog build`, pkg/schema), without the descriptions of the inputs. It was
derived from Cog's source, since its command line needs Docker. Whoever changes an input of predict.py changes it there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import ROOT

PREDICT = (ROOT / "predict.py").read_text(encoding="utf-8")
OPTIONAL = ["image", "mask", "width", "height", "num_inference_steps", "steps", "guidance_scale", "scheduler", "seed"]
OPTIONAL += ["lora"]
# What Cog's document says and ours does not, by the reason.
TIMES = ("created_at", "started_at", "completed_at")
CANCEL = "paths /predictions/{prediction_id}/cancel post responses 422"
LEFT_OUT = {
    "the server refuses null, and clients generated from the document would send it": [
        f"Input properties {name} {keyword}" for name in OPTIONAL for keyword in ("default", "nullable")
    ],
    "the server never sends it": [
        *(f"PredictionResponse properties {name}" for name in ("input", "version", *TIMES)),
        CANCEL,
    ],
    "it is told more exactly": [
        "PredictionResponse properties status type",  # one of those in Status
        "ValidationError properties loc items anyOf",  # strings, never a number
        "paths /health-check get responses 200 content application/json schema",
        "paths /predictions/{prediction_id}/cancel post responses 200 content application/json schema",
    ],
    "it is of no use to clients": ["paths /"],
}


@pytest.fixture(scope="module")
def cogs() -> dict[str, Any]:
    return json.loads((ROOT / "tests" / "cog_schema.json").read_text(encoding="utf-8"))


def left_out(cogs: Any, ours: Any, place: str = "") -> Iterator[str]:
    """Yield each place of Cog's document that ours lacks or has another value at, but for words to read."""
    if isinstance(cogs, dict) and isinstance(ours, dict) and cogs:
        for key in cogs.keys() - {"title", "description", "summary"}:
            here = f"{place} {key}".strip()
            if key in ours:
                yield from left_out(cogs[key], ours[key], here)
            else:
                yield here
    elif isinstance(cogs, list) and isinstance(ours, list) and len(cogs) == len(ours):
        for cog, our in zip(cogs, ours, strict=True):
            yield from left_out(cog, our, place)
    elif cogs != ours:
        yield place


def test_the_document_says_all_that_cogs_does_but_for_the_differences_named(schema, cogs):
    ours = schema.document(PREDICT)
    found = [*left_out(cogs["components"]["schemas"], ours["components"]["schemas"])]
    found += [*left_out({"paths": cogs["paths"], "openapi": cogs["openapi"], "info": cogs["info"]}, ours)]
    assert sorted(found) == sorted(place for places in LEFT_OUT.values() for place in places)


def test_the_inputs_say_nothing_that_cogs_document_does_not(schema, cogs):
    ours, theirs = schema.input_schemas(PREDICT), cogs["components"]["schemas"]
    assert list(ours["Input"]["properties"]) == list(theirs["Input"]["properties"])
    for name, field in ours["Input"]["properties"].items():
        assert field.pop("description")
        assert field.get("title") == theirs["Input"]["properties"][name].get("title")
    for name, described in ours.items():
        assert [*left_out(described, theirs[name])] == []
        assert described["title"] == theirs[name]["title"]


def test_every_text_is_written_as_cog_reads_it():
    """Cog takes what stands between the quotation marks: no escape is decoded, no two parts are joined."""
    (function,) = (node for node in ast.walk(ast.parse(PREDICT)) if getattr(node, "name", "") == "predict")
    fields = [keyword.value for call in function.args.defaults for keyword in call.keywords]
    texts = [node for field in fields for node in ast.walk(field) if isinstance(getattr(node, "value", None), str)]
    assert len(texts) > len(fields) / 2
    for node in texts:
        assert ast.get_source_segment(PREDICT, node) == f'"{node.value}"'


def test_every_input_is_described_in_english_and_in_japanese(schema):
    """In one line: Replicate shows it as it is, whatever the visitor's language."""
    for name, field in schema.input_schemas(PREDICT)["Input"]["properties"].items():
        english, japanese = field["description"].split(" / ")
        assert re.match("[A-Z][a-z]* ", english), name
        assert re.search("[ぁ-ん].*。$", japanese), name
        assert "\n" not in field["description"], name


def test_every_limit_is_one_that_cog_can_write(schema):
    """Cog keeps limits as floats: 2**63 - 1 would become 2**63, and the first integer that is no seed would pass."""
    fields = schema.input_schemas(PREDICT)["Input"]["properties"].values()
    limits = [field[keyword] for field in fields for keyword in ("minimum", "maximum") if keyword in field]
    assert max(limits) == 2**53 - 1
    assert all(abs(limit) < 2**53 for limit in limits)
