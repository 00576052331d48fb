"""The Cog adapter: what it declares is what `jsd.request` allows, and what it is given reaches the picture."""

import ast
import asyncio
import importlib.util
import inspect
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from jsd import cli, errors, images, request

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def schema():
    spec = importlib.util.spec_from_file_location("schema", ROOT / "script" / "schema.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def declared(schema):
    schemas = schema.input_schemas(predict.Predictor.predict)
    return schemas["Input"]["properties"] | {"choices": {name: s["enum"] for name, s in schemas.items() if "enum" in s}}


@pytest.fixture
def predictor(tiny_folder, monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    predictor = predict.Predictor()
    predictor.setup()
    yield predictor
    predictor.engine.close()
    predictor.folders.close()


def defaults() -> dict:
    parameters = inspect.signature(predict.Predictor.predict).parameters
    return {name: parameter.default.default for name, parameter in parameters.items() if name != "self"}


def draw(predictor, **inputs) -> list[Path]:
    return [Path(path) for path in asyncio.run(predictor.predict(**defaults() | inputs))]


def test_limits_are_those_of_request(declared):
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
        "output_format": (None, None),
        "output_quality": (1, 100),
    }
    assert (declared["prompt"]["minLength"], declared["prompt"]["maxLength"]) == (1, request.MAX_PROMPT)
    assert declared["negative_prompt"]["maxLength"] == request.MAX_PROMPT


def test_choices_and_defaults_are_those_of_request(declared):
    assert declared["choices"] == {
        "scheduler": list(request.SCHEDULER_NAMES),
        "output_format": list(request.OUTPUT_FORMATS),
    }
    own = request.Request(cli.PROMPT)
    for name, value in defaults().items():
        if name != "steps":
            assert value == getattr(own, name), name


def test_cog_can_read_every_input_from_the_text_of_the_file():
    """Its reader takes literals only: a name or an expression would silently lose a limit."""
    tree = ast.parse((ROOT / "predict.py").read_text(encoding="utf-8"))
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


def test_the_schema_is_written_whole(schema, tmp_path):
    path = tmp_path / ".cog" / "openapi_schema.json"
    schema.write(path, schema.document(predict.Predictor.predict))
    assert [file.name for file in path.parent.iterdir()] == ["openapi_schema.json"]
    document = json.loads(path.read_text(encoding="utf-8"))
    assert list(document["components"]["schemas"]["Input"]["properties"]) == list(defaults())


def test_everything_asked_for_reaches_the_file(predictor):
    asked = {
        "prompt": "青い背景の富士山",
        "negative_prompt": "白黒",
        "width": 96,
        "height": 128,
        "num_inference_steps": 3,
        "guidance_scale": 3.5,
        "scheduler": "K_EULER",
        "seed": 11,
    }
    paths = draw(predictor, **asked, num_outputs=2, output_format="webp", output_quality=80)
    assert [path.suffix for path in paths] == [".webp"] * 2
    for i, path in enumerate(paths):
        told = images.read_metadata(path)
        assert {name: told[name] for name in asked} == asked | {"seed": 11 + i}
        assert Image.open(path).size == (96, 128)


def test_what_was_drawn_is_recorded(predictor, monkeypatch, capsys):
    metrics = {}
    monkeypatch.setattr(predictor, "record_metric", metrics.__setitem__)
    draw(predictor, prompt="猫 " * 500, seed=3)
    assert metrics["seeds"] == [3]
    assert metrics["model"] == "tiny"
    assert metrics["num_inference_steps"] == 4
    assert metrics["flagged"] == 0
    assert metrics["truncated_tokens"] > 0
    assert set(metrics["timings"]) == {"queue", "text", "denoise", "decode", "safety", "encode"}
    log = capsys.readouterr().out
    assert "100%|" in log
    assert "4/4 [" in log
    assert "seeds [3]" in log
    assert f"last {metrics['truncated_tokens']} tokens were left out" in log


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"prompt": "\u3000"}, "prompt: .* blank"),
        ({"width": 100}, "width: 100 .* multiples of 16"),
        ({"seed": 2**63}, "seed: "),
        ({"num_inference_steps": 999}, "num_inference_steps: 999 .* 1 to 500"),
        ({"steps": 999}, "num_inference_steps: 999 .* 1 to 500"),
        ({"steps": 5, "num_inference_steps": 5}, "steps: is another name for num_inference_steps"),
        ({"image": Path(__file__)}, "image: not a png, jpeg or webp file"),
        ({"mask": Path(__file__)}, "mask: not a png, jpeg or webp file"),
        ({"image": __file__}, "image: .* was given; a data URI or the address of a picture is wanted"),
        ({"prompt_strength": 0.5}, "prompt_strength: given without an image"),
    ],
)
def test_bad_input_raises_an_error_that_names_it(predictor, inputs, told):
    with pytest.raises(errors.InputError, match=told):
        draw(predictor, **inputs)


def test_only_the_white_part_of_a_picture_is_repainted(predictor, tmp_path):
    (first,) = draw(predictor, prompt="猫", seed=5)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    mask.save(tmp_path / "mask.png")
    given = {"image": first, "mask": tmp_path / "mask.png", "prompt_strength": 1}
    one, other = (
        np.asarray(Image.open(draw(predictor, prompt=prompt, **given)[0]), int) for prompt in ("犬 油絵", "富士山")
    )
    assert (one == other)[:, :32].all()
    assert np.abs(one - other)[:, 32:].mean() > 3


def test_flagged_pictures_are_left_out_and_counted(predictor, monkeypatch, capsys):
    monkeypatch.setattr("jsd.safety.check", lambda *_: [True, False])
    (path,) = draw(predictor, prompt="猫", seed=5, num_outputs=2)
    assert images.read_metadata(path)["seed"] == 6
    assert "1 of 2 pictures were left out" in capsys.readouterr().out
    monkeypatch.setattr("jsd.safety.check", lambda *_: [True, True])
    with pytest.raises(errors.NSFWError, match="NSFW content detected"):
        draw(predictor, prompt="猫", num_outputs=2)


def test_a_failing_checker_shows_nothing(predictor, monkeypatch):
    def fail(*_):
        raise RuntimeError("the checker broke")

    monkeypatch.setattr("jsd.safety.check", fail)
    with pytest.raises(RuntimeError, match="the checker broke"):
        draw(predictor, prompt="猫")


def test_cancelling_ends_the_work(predictor, capsys):
    async def cancel_midway():
        task = asyncio.ensure_future(predictor.predict(**defaults() | {"prompt": "猫", "num_inference_steps": 500}))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_midway())
    assert len(draw(predictor, prompt="猫")) == 1
    assert "500/500" not in capsys.readouterr().out
    assert predictor.engine.running == 0


def test_one_cancelled_while_its_pictures_are_resized_is_not_drawn(predictor, monkeypatch):
    """The thread that resizes them can't be stopped."""
    resolve, submitted, resolved = predictor.engine.resolve, [], threading.Event()

    def slow(request):
        time.sleep(0.3)
        resolved.set()
        return resolve(request)

    async def cancel_early():
        task = asyncio.ensure_future(predictor.predict(**defaults() | {"prompt": "猫", "num_inference_steps": 500}))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(resolved.wait, 30)
        await asyncio.sleep(0.05)

    monkeypatch.setattr(predictor.engine, "resolve", slow)
    monkeypatch.setattr(predictor.engine, "submit", lambda *arguments: submitted.append(arguments))
    asyncio.run(cancel_early())
    assert submitted == []


def test_files_are_apart_and_do_not_pile_up(predictor):
    (old,) = draw(predictor, prompt="猫")
    (young,) = draw(predictor, prompt="猫")
    assert old.parent != young.parent
    long_ago = time.time() - 2 * predictor.folders.keep_seconds
    os.utime(old.parent, (long_ago, long_ago))
    predictor.folders.remove_old()
    assert not old.parent.exists()
    assert young.exists()


def test_it_is_healthy_until_nothing_can_be_drawn(predictor, monkeypatch, capsys):
    def fail(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    assert predictor.healthcheck()
    monkeypatch.setattr("jsd.sampling.predict", fail)
    with pytest.raises(errors.EngineLostError, match="illegal memory access.*started again"):
        draw(predictor, prompt="猫")
    predictor.engine.close()
    assert not predictor.healthcheck()
    assert "this server ends" in capsys.readouterr().out
    with pytest.raises(errors.EngineLostError, match="started again"):
        draw(predictor, prompt="猫")
