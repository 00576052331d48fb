"""Write the OpenAPI document that Cog's server validates inputs by and serves as /openapi.json.

    python script/schema.py [FILE]    FILE is .cog/openapi_schema.json unless given; script/serve writes that one

Without the document the server accepts any input. `cog build` writes one of its own into the image, from the text of
predict.py: the same inputs, types and limits, so the same requests are refused. This one says more, and is true where
Cog's is not: Cog calls optional inputs nullable, but its server answers null with 422. (tests/test_cog_schema.py names
every difference.) To build an image with this one:

    python script/schema.py openapi.json && cog build --openapi-schema openapi.json
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PREDICT = ROOT / "predict.py"
TYPES = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "Path": {"type": "string", "format": "uri"},
}
LIMITS = {"ge": "minimum", "le": "maximum", "min_length": "minLength", "max_length": "maxLength"}
HEALTH = ["UNKNOWN", "STARTING", "READY", "BUSY", "SETUP_FAILED", "DEFUNCT", "UNHEALTHY"]


def input_schemas(source: str) -> dict[str, Any]:
    """Return JSON schemas by name: `Input` with all inputs, and one for each input that has choices.

    `source` is the text of predict.py. As in Cog's parser (pkg/schema), an input without a default is required, unless
    its annotation allows None. Raises `TypeError` for a type or a keyword of `Input` that is not known here.
    """
    properties, enums, required = {}, {}, []
    for order, (name, annotation, field) in enumerate(_inputs(source)):
        json_type, optional = _json_type(name, annotation)
        prop = {"x-order": order, "description": field.get("description", "")}
        if "choices" in field:
            enums[name] = {"title": name, "description": "An enumeration.", "enum": field["choices"], **json_type}
            prop["allOf"] = [_ref(name)]
        else:
            prop |= {"title": name.replace("_", " ").title(), **json_type}
        prop |= {keyword: field[limit] for limit, keyword in LIMITS.items() if limit in field}
        if field.get("default") is not None:
            prop["default"] = field["default"]
        elif not optional:
            required.append(name)
        properties[name] = prop
    return {"Input": _object(required, **properties) | {"title": "Input"}, **enums}


def document(source: str) -> dict[str, Any]:
    """Return the OpenAPI document, a dict. `source` is the text of predict.py."""
    predict = {
        "200": _answer("Ended: read `status`, since a failed prediction comes with 200 as well", "PredictionResponse"),
        "202": _answer("Begun with `Prefer: respond-async`, or running already", "PredictionAccepted"),
        "400": _text("The body is not JSON"),
        "406": _answer("`Accept: text/event-stream`: this model streams nothing", "Refusal"),
        "409": _answer("Busy: ask again", "Refusal"),
        "413": _text("The body has more than 100 MiB"),
        "415": _text("The content type is not application/json"),
        "422": _answer("A value that is not allowed (JSON), or a body of another form (text)", "HTTPValidationError")
        | {"content": _json("HTTPValidationError") | _plain()},
        "503": _answer("Setup has not succeeded", "Refusal"),
    }
    cancel = {"200": _answer("Will be cancelled"), "404": _answer("No prediction with this id runs")}
    prefer = {"name": "Prefer", "in": "header", "schema": {"type": "string", "enum": ["respond-async"]}}
    by_id = {"name": "prediction_id", "in": "path", "required": True, "schema": {"type": "string"}}
    body = {"required": True, "content": _json("PredictionRequest")}
    health = {"200": _answer("Read `status`: the code is always 200", "HealthCheck")}
    paths = {
        "/health-check": {"get": _operation("Healthcheck", "healthcheck_health_check_get", health)},
        "/predictions": {
            "post": _operation("Predict", "predict_predictions_post", predict, prefer) | {"requestBody": body}
        },
        "/predictions/{prediction_id}": {
            "put": _operation("Predict, under an id", "predict_predictions__prediction_id__put", predict, by_id, prefer)
            | {"requestBody": body}
        },
        "/predictions/{prediction_id}/cancel": {
            "post": _operation("Cancel", "cancel_predictions__prediction_id__cancel_post", cancel, by_id)
        },
    }
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": paths,
        "components": {"schemas": input_schemas(source) | _answer_schemas()},
    }


def write(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON to `path`, whole or not at all. Makes the folder of `path`."""
    from jsd.atomic import write_text

    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1))


def _inputs(source: str) -> list[tuple[str, ast.expr, dict[str, Any]]]:
    """Return each input's name, its annotation, and the keywords of its `Input`, from the text of predict.py.

    Cog reads the text as well. What the annotations are when the program runs makes no difference.
    """
    (predictor,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Predictor")
    (predict,) = (n for n in predictor.body if getattr(n, "name", None) == "predict")
    inputs = []
    for argument, call in zip(predict.args.args[1:], predict.args.defaults, strict=True):
        field = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if unknown := set(field) - {"default", "description", "choices", *LIMITS}:
            raise TypeError(f"predict(): {argument.arg}: {', '.join(unknown)} is not known here; add it to {__file__}")
        inputs.append((argument.arg, argument.annotation, field))
    return inputs


def _json_type(name: str, annotation: ast.expr) -> tuple[dict[str, str], bool]:
    """Return the JSON type of an annotation, and whether it allows None: `int | None` or `Optional[int]` does."""
    kind = annotation
    if isinstance(kind, ast.BinOp) and ast.unparse(kind.right) == "None":
        kind = kind.left
    elif isinstance(kind, ast.Subscript) and ast.unparse(kind.value) in ("Optional", "typing.Optional"):
        kind = kind.slice
    if ast.unparse(kind) not in TYPES:
        raise TypeError(f"predict(): {name}: {ast.unparse(annotation)} is not known here; add it to {__file__}")
    return TYPES[ast.unparse(kind)], kind is not annotation


def _answer_schemas() -> dict[str, Any]:
    """Return the schemas of what the server is sent and answers, by name. The inputs are not among them.

    They are what the server of Cog 0.23.1 does. Tests hold them against it.
    """
    text, integer, number = TYPES["str"], TYPES["int"], TYPES["float"]
    file, time = TYPES["Path"], {"type": "string", "format": "date-time"}
    # What `jsd.result.Result.metrics` returns, and Cog's predict_time. One that failed has predict_time only.
    metrics = _object(
        predict_time=number,
        seeds=_list(integer),
        model=text,
        width=integer,
        height=integer,
        num_inference_steps=integer,
        guidance_scale=number,
        guidance_interval=_list(number),
        scheduler=text,
        lora=text,
        lora_scale=number,
        batch_rows=number,
        tokens=integer,
        truncated_tokens=integer,
        unknown_characters=integer,
        removed_syntax=_list(text),
        flagged=integer,
        timings={"type": "object", "additionalProperties": number},
    ) | {"additionalProperties": True}
    ended = {"output": _ref("Output"), "error": text}
    always = {"id": text, "status": _ref("Status"), "logs": text, "metrics": metrics}
    events = _list({"type": "string", "enum": ["start", "output", "logs", "completed"]})
    setup = _object(
        ["started_at", "status"],
        started_at=time,
        completed_at=time,
        status={"type": "string", "enum": ["starting", "succeeded", "failed"]},
        logs=text,
    )
    version = _object(["coglet"], coglet=text, git_sha=text, build_time=text, python_sdk=text, python=text)
    schemas = {
        "Output": _list(file),
        "Status": {"type": "string", "enum": ["starting", "processing", "succeeded", "canceled", "failed"]},
        "PredictionRequest": _object(id=text, input=_ref("Input"), webhook=file, webhook_events_filter=events),
        "PredictionResponse": _object(list(always), **always, **ended),
        "PredictionAccepted": _object(["id", "status"], **always, **ended, input=_ref("Input")),
        "Refusal": _object(["error"], error=text, status=_ref("Status")),
        "HealthCheck": _object(
            ["status", "version"],
            status={"type": "string", "enum": HEALTH},
            setup=setup,
            version=version,
            user_healthcheck_error=text,
        ),
        "HTTPValidationError": _object(["detail"], detail=_list(_ref("ValidationError"))),
        "ValidationError": _object(["loc", "msg", "type"], loc=_list(text), msg=text, type=text),
    }
    return {name: {"title": name, **schema} for name, schema in schemas.items()}


def _object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str | None) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(name) if name else {"type": "object"}}}


def _plain() -> dict[str, Any]:
    return {"text/plain": {"schema": TYPES["str"]}}


def _answer(description: str, schema: str | None = None) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": _plain()}


def _operation(summary: str, name: str, responses: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "operationId": name, "parameters": list(parameters), "responses": responses}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / ".cog" / "openapi_schema.json", metavar="FILE")
    sys.path.insert(0, str(ROOT))
    write(parser.parse_args().file, document(PREDICT.read_text(encoding="utf-8")))
