"""The inputs that predict.py declares to Cog: limits, choices and defaults are those of `jsd.request`."""

import ast
import inspect
import json
import subprocess
import sys

import pytest

import predict
from jsd import cli, request
from tests.server import ROOT

PREDICT = (ROOT / "predict.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def declared(schema):
    """The schema of each input by its name, and the choices of all inputs with choices as `choices`."""
    schemas = schema.input_schemas(PREDICT)
    return schemas["Input"]["properties"] | {"choices": {name: s["enum"] for name, s in schemas.items() if "enum" in s}}


def defaults() -> dict:
    parameters = inspect.signature(predict.Predictor.predict).parameters
    return {name: parameter.default.default for name, parameter in parameters.items() if name != "self"}


def test_the_limits_are_those_of_a_request(declared):
    limits = {
        name: (declared[name].get("minimum"), declared[name].get("maximum")) for name in declared if name != "choices"
    }
    size = (request.MIN_SIZE, request.MAX_SIZE)
    assert limits == {
        "prompt": (None, None),
        "negative_prompt": (None, None),
        "image": (None, None),
        "mask": (None, None),
        "prompt_strength": (0, 1),
        "width": size,
        "height": size,
        "num_outputs": (1, request.MAX_OUTPUTS),
        "num_inference_steps": (1, request.MAX_STEPS),
        "steps": (1, request.MAX_STEPS),
        "guidance_scale": (request.MIN_GUIDANCE, request.MAX_GUIDANCE),
        "scheduler": (None, None),
        "seed": (0, request.MAX_SEED),
        "lora": (None, None),
        "lora_scale": (request.MIN_LORA_SCALE, request.MAX_LORA_SCALE),
        "output_format": (None, None),
        "output_quality": (1, 100),
    }
    assert (declared["prompt"]["minLength"], declared["prompt"]["maxLength"]) == (1, request.MAX_PROMPT)
    assert declared["negative_prompt"]["maxLength"] == request.MAX_PROMPT


def test_the_choices_and_defaults_are_those_of_a_request(declared):
    assert declared["choices"] == {
        "scheduler": list(request.SCHEDULER_NAMES),
        "output_format": ["png", "jpg", "jpeg", "webp"],
    }
    own = request.Request(cli.PROMPT)
    for name, value in defaults().items():
        if name != "steps":
            assert value == getattr(own, name), name


def test_every_input_is_declared_with_literals():
    """Cog reads the inputs from the text of the file. For a name or an expression it would silently lose a limit."""
    tree = ast.parse(PREDICT)
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef))
    assert function.name == "predict"
    assert len(function.args.defaults) == len(function.args.args) - 1
    for call in function.args.defaults:
        assert ast.unparse(call.func) == "Input"
        for keyword in call.keywords:
            ast.literal_eval(keyword.value)
    (decorator,) = function.decorator_list
    assert ast.unparse(decorator) == f"cog.concurrent(max={predict.Predictor.predict.__cog_concurrent_max__})"


def test_the_server_has_as_many_slots_as_predict_allows():
    slots = predict.Predictor.predict.__cog_concurrent_max__
    assert f"COG_MAX_CONCURRENCY:-{slots}}}" in (ROOT / "script" / "serve").read_text()


def test_the_schema_file_lists_every_input(tmp_path):
    path = tmp_path / ".cog" / "openapi_schema.json"
    subprocess.run([sys.executable, ROOT / "script" / "schema.py", path], check=True)
    assert [file.name for file in path.parent.iterdir()] == ["openapi_schema.json"]
    document = json.loads(path.read_text(encoding="utf-8"))
    assert list(document["components"]["schemas"]["Input"]["properties"]) == list(defaults())


def predictor(parameter: str) -> str:
    return f"class Predictor:\n    async def predict(self, {parameter}): ..."


@pytest.mark.parametrize(
    ("parameter", "expected", "required"),
    [
        ("x: int | None = Input(default=None, ge=1)", {"type": "integer", "minimum": 1}, None),
        ("x: Optional[float] = Input(default=None)", {"type": "number"}, None),
        ("x: Path | None = Input(default=None)", {"type": "string", "format": "uri"}, None),
        ("x: int = Input(default=0, le=9)", {"type": "integer", "maximum": 9, "default": 0}, None),
        ("x: int = Input(default=None)", {"type": "integer"}, ["x"]),
        ("x: Path = Input()", {"type": "string", "format": "uri"}, ["x"]),
    ],
)
def test_an_input_is_read_as_cog_reads_it(schema, parameter, expected, required):
    """Except that Cog calls the first three nullable: see test_cog_schema.py."""
    described = schema.input_schemas(predictor(parameter))["Input"]
    assert described["properties"]["x"] == {"title": "X", "x-order": 0, "description": ""} | expected
    assert described.get("required") == required


@pytest.mark.parametrize("parameter", ["x: complex = Input(default=1)", "x: str = Input(default='', regex='a')"])
def test_an_input_that_the_schema_could_not_tell_the_truth_about_is_an_error(schema, parameter):
    with pytest.raises(TypeError, match=r"predict\(\): x: .* is not known here"):
        schema.input_schemas(predictor(parameter))
