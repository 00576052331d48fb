"""The Cog adapter in this process: its inputs reach the picture, and its errors name the input or the file."""

import asyncio
import errno
import inspect
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from jsd import errors, images
from serving.slots import ServerEndsError
from tests.server import as_uri, to_uri


@pytest.fixture
def predictor(tiny_folder, monkeypatch):
    """The Predictor after its setup, with the tiny model."""
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    predictor = predict.Predictor()
    predictor.setup()
    yield predictor
    predictor.engine.close()
    predictor.folders.close()
    predictor.slots.close()


def defaults() -> dict:
    parameters = inspect.signature(predict.Predictor.predict).parameters
    return {name: parameter.default.default for name, parameter in parameters.items() if name != "self"}


def draw(predictor, **inputs) -> list[Path]:
    return [Path(path) for path in asyncio.run(predictor.predict(**defaults() | inputs))]


def test_every_input_reaches_the_file(predictor):
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
        metadata = images.read_metadata(path)
        assert {name: metadata[name] for name in asked} == asked | {"seed": 11 + i}
        assert Image.open(path).size == (96, 128)


def test_metrics_and_log_say_what_was_drawn(predictor, monkeypatch, capsys):
    metrics = {}
    monkeypatch.setattr(predictor, "record_metric", metrics.__setitem__)
    draw(predictor, prompt="(貓:1.3)" + "猫 " * 500, seed=3.0)
    assert metrics["seeds"] == [3]
    assert metrics["model"] == "tiny"
    assert metrics["num_inference_steps"] == 4
    assert metrics["flagged"] == 0
    assert metrics["truncated_tokens"] > 0
    assert metrics["unknown_characters"] == 1
    assert metrics["removed_syntax"] == ["(…:1.3)"]
    assert set(metrics["timings"]) == {"queue", "text", "denoise", "decode", "safety", "encode"}
    log = capsys.readouterr().out
    assert "100%|" in log
    assert "4/4 [" in log
    assert "seeds [3]" in log
    assert "syntax of other tools was taken out: (…:1.3)" in log
    assert "1 character unknown: 貓" in log
    assert f"last {metrics['truncated_tokens']} tokens were left out" in log


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": "\u3000"}, "prompt: .* blank"),
        ({"prompt": "--ar 16:9"}, "prompt: .*syntax of other tools: '--ar 16:9'"),
        ({"width": 100}, "width: 100 .* multiples of 16"),
        ({"seed": 2**53}, "seed: .* leave seed out"),
        ({"steps": 1.5}, "num_inference_steps: an integer is wanted, 1.5 was given"),
        ({"num_inference_steps": 999}, "num_inference_steps: 999 .* 1 to 500"),
        ({"steps": 999}, "num_inference_steps: 999 .* 1 to 500"),
        ({"steps": 5, "num_inference_steps": 5}, "steps: is another name for num_inference_steps"),
        ({"image": "data:,text"}, "image: not a png, jpeg or webp file"),
        ({"mask": "data:,text"}, "mask: not a png, jpeg or webp file"),
        ({"image": __file__}, "image: .* was given; a data URI or the address of a file is wanted"),
        ({"prompt_strength": 0.5}, "prompt_strength: given without an image"),
        ({"lora": "data:,text"}, "lora: no .safetensors file"),
        ({"lora": "my-cat.safetensors"}, "lora: .* was given; a data URI or the address of a file is wanted"),
        ({"lora_scale": 0.5}, "lora_scale: given without lora"),
    ],
)
def test_a_bad_input_raises_an_error_that_names_it(predictor, inputs, message):
    with pytest.raises(errors.InputError, match=message):
        draw(predictor, **inputs)


def test_inpainting_repaints_only_the_white_part_of_the_mask(predictor):
    (first,) = draw(predictor, prompt="猫", seed=5)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    given = {"image": to_uri(first.read_bytes()), "mask": as_uri(mask), "prompt_strength": 1}
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


def test_no_picture_is_shown_if_the_safety_checker_fails(predictor, monkeypatch):
    def fail(*_):
        raise RuntimeError("the checker broke")

    monkeypatch.setattr("jsd.safety.check", fail)
    with pytest.raises(RuntimeError, match="the checker broke"):
        draw(predictor, prompt="猫")


def test_a_cancelled_prediction_is_not_drawn_to_its_end(predictor, capsys):
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


def test_a_prediction_without_pictures_does_not_wait_for_pictures_of_others(predictor):
    go_on = threading.Event()
    for _ in range(4):
        predictor.readers.submit(go_on.wait, 30)
    try:
        assert len(draw(predictor, prompt="猫")) == 1
    finally:
        go_on.set()


def test_an_empty_string_is_no_file(predictor):
    """Forms send one for what was left empty."""
    assert len(draw(predictor, prompt="猫", image="", mask="", lora="")) == 1


def test_null_means_the_default(predictor):
    """Cog's server lets none through where it has the inputs' schema."""
    nulls = dict.fromkeys(defaults())
    (path,) = draw(predictor, **nulls | {"prompt": "猫"})
    assert path.suffix == ".png"


def test_addresses_of_pictures_can_be_switched_off(predictor):
    predictor.addresses = False
    with pytest.raises(errors.InputError, match="image: this server fetches no addresses .*JSD_INPUT_URLS=off"):
        draw(predictor, image="http://127.0.0.1:1/cat.png")


def test_no_two_files_share_a_name(predictor):
    """Cog uploads files by their names alone."""
    names = [path.name for _ in range(2) for path in draw(predictor, prompt="猫", num_outputs=2)]
    assert len(set(names)) == 4


def test_nothing_is_left_of_pictures_that_can_not_all_be_written(predictor, monkeypatch):
    save = images.save

    def fill_the_disk(image, path, *arguments):
        if path.name.endswith("-1.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(image, path, *arguments)

    monkeypatch.setattr(images, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        draw(predictor, prompt="猫", num_outputs=2)
    assert list(predictor.folders.root.iterdir()) == []


def test_a_prediction_that_is_cancelled_while_its_pictures_are_resized_is_not_drawn(predictor, monkeypatch):
    """The thread that resizes the pictures can't be stopped, so it ends after the prediction."""
    resolve, submitted, resolved = predictor.engine.resolve, [], threading.Event()
    inputs = defaults() | {"prompt": "猫", "num_inference_steps": 500, "image": as_uri(Image.new("RGB", (64, 64)))}

    def slow(request):
        time.sleep(0.3)
        resolved.set()
        return resolve(request)

    async def cancel_early():
        task = asyncio.ensure_future(predictor.predict(**inputs))
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


def test_each_prediction_has_a_folder_which_is_removed_when_it_is_old(predictor):
    (old,) = draw(predictor, prompt="猫")
    (young,) = draw(predictor, prompt="猫")
    assert old.parent != young.parent
    long_ago = time.time() - 2 * predictor.folders.keep_seconds
    os.utime(old.parent, (long_ago, long_ago))
    predictor.folders.remove_old()
    assert not old.parent.exists()
    assert young.exists()


def test_the_predictor_is_healthy_until_nothing_can_be_drawn(predictor, monkeypatch, capsys):
    def fail(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    assert predictor.healthcheck()
    monkeypatch.setattr("jsd.sampling.step", fail)
    with pytest.raises(errors.EngineLostError, match="illegal memory access.*started again"):
        draw(predictor, prompt="猫")
    predictor.engine.close()
    for call in (predictor.healthcheck, lambda: draw(predictor, prompt="猫")):
        with pytest.raises(ServerEndsError, match="illegal memory access.*this server ends by itself"):
            call()
    assert "this server ends" in capsys.readouterr().out
