"""Write .cog/openapi_schema.json from the inputs of `Predictor.predict`, as `cog build` does for the container.

Cog's server validates inputs by this file and serves it as /openapi.json. Without the file it accepts any input.
script/serve runs this on every start.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import types
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TYPES = {
    str: {"type": "string"},
    bool: {"type": "boolean"},  # before int, which it is a kind of
    int: {"type": "integer"},
    float: {"type": "number"},
    os.PathLike: {"type": "string", "format": "uri"},
}
LIMITS = {"ge": "minimum", "le": "maximum", "min_length": "minLength", "max_length": "maxLength"}


def input_schemas(predict: typing.Callable) -> dict[str, Any]:
    """Return JSON schemas by name: `Input` with all inputs of `predict`, and one for each input that has choices.

    Raises `TypeError` for an input whose type is neither in TYPES nor derived from one of them.
    """
    properties, enums = {}, {}
    hints = typing.get_type_hints(predict)
    parameters = [p for p in inspect.signature(predict).parameters.values() if p.name != "self"]
    for order, parameter in enumerate(parameters):
        name, field = parameter.name, parameter.default
        kind, nullable = _unwrap(hints[name])
        prop = {"x-order": order, "description": field.description}
        if field.choices:
            enums[name] = {"title": name, "description": "An enumeration.", "enum": field.choices, **_json_type(kind)}
            prop["allOf"] = [{"$ref": f"#/components/schemas/{name}"}]
        else:
            prop |= {"title": name.replace("_", " ").title(), **_json_type(kind)}
        prop |= {
            keyword: getattr(field, limit) for limit, keyword in LIMITS.items() if getattr(field, limit) is not None
        }
        if field.default is not None:
            prop["default"] = field.default
        if nullable:
            prop["nullable"] = True
        properties[name] = prop
    # Every input has a default, so none is required.
    return {"Input": {"title": "Input", "type": "object", "properties": properties}, **enums}


def document(predict: typing.Callable) -> dict[str, Any]:
    """Return the OpenAPI document, a dict: the inputs of `predict`, and the paths of Cog's server with answers."""
    file = {"type": "string", "format": "uri"}
    text = {"type": "string"}
    response = {
        "id": text,
        "input": {"$ref": "#/components/schemas/Input"},
        "output": {"$ref": "#/components/schemas/Output"},
        "status": {"$ref": "#/components/schemas/Status"},
        "error": text,
        "logs": text,
        "metrics": {"type": "object"},
    }
    request = {"id": text, "input": {"$ref": "#/components/schemas/Input"}, "webhook": file}
    schemas = {
        **input_schemas(predict),
        "Output": {"title": "Output", "type": "array", "items": file},
        "Status": {"type": "string", "enum": ["starting", "processing", "succeeded", "canceled", "failed"]},
        "PredictionRequest": {"title": "PredictionRequest", "type": "object", "properties": request},
        "PredictionResponse": {"title": "PredictionResponse", "type": "object", "properties": response},
    }
    identifier = {"name": "prediction_id", "in": "path", "required": True, "schema": text}
    paths = {
        "/health-check": {"get": {"summary": "Health check", "responses": _responses()}},
        "/predictions": {"post": _predict_operation("Predict")},
        "/predictions/{prediction_id}": {"put": _predict_operation("Predict, under an id", identifier)},
        "/predictions/{prediction_id}/cancel": {
            "post": {"summary": "Cancel", "parameters": [identifier], "responses": _responses()}
        },
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def write(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON to `path`, whole or not at all. Makes the folder of `path`."""
    from jsd.atomic import write_text

    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1))


def _unwrap(hint: Any) -> tuple[type, bool]:
    """Return the type of a hint and whether it allows None: `int | None` gives (int, True), `int` (int, False)."""
    if not isinstance(hint, types.UnionType):
        return hint, False
    (kind,) = (argument for argument in hint.__args__ if argument is not types.NoneType)
    return kind, True


def _json_type(kind: type) -> dict[str, str]:
    for known, schema in TYPES.items():
        if issubclass(kind, known):
            return schema
    raise TypeError(f"predict(): inputs of type {kind.__name__} are not known here; add it to {Path(__file__).name}")


def _predict_operation(summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}}}
    answers = _responses("PredictionResponse") | {"422": {"description": "An input is not allowed"}}
    return {"summary": summary, "parameters": list(parameters), "requestBody": body, "responses": answers}


def _responses(schema: str | None = None) -> dict[str, Any]:
    content = {"$ref": f"#/components/schemas/{schema}"} if schema else {}
    return {"200": {"description": "Successful response", "content": {"application/json": {"schema": content}}}}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from predict import Predictor

    write(ROOT / ".cog" / "openapi_schema.json", document(Predictor.predict))
