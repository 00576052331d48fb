"""Text to image over real HTTP."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from jsd import watermark
from jsd.request import SCHEDULER_NAMES
from tests.alike import assert_alike, assert_same
from tests.e2e.conftest import CAT, SMALL, metadata_of
from tests.fakes import psnr
from tests.server import picture

INPUTS = [
    "prompt",
    "negative_prompt",
    "image",
    "mask",
    "prompt_strength",
    "width",
    "height",
    "num_outputs",
    "num_inference_steps",
    "steps",
    "guidance_scale",
    "scheduler",
    "seed",
    "lora",
    "lora_scale",
    "output_format",
    "output_quality",
]


def test_a_prompt_is_drawn(server):
    prediction = server.predict(prompt="富士山 水彩画", num_inference_steps=4, seed=1)
    assert prediction["status"] == "succeeded"
    (uri,) = prediction["output"]
    assert uri.startswith("data:image/png;base64,")
    image = picture(uri)
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.size == (prediction["metrics"]["width"], prediction["metrics"]["height"])
    assert any(low < high for low, high in image.getextrema())


def test_the_metadata_and_the_metrics_say_how_the_picture_was_made(server):
    prediction = server.predict(**CAT, guidance_scale=2.5, scheduler="DDIM", negative_prompt="白黒")
    metadata, metrics = metadata_of(prediction), prediction["metrics"]
    assert metadata["prompt"] == CAT["prompt"]
    assert metadata["negative_prompt"] == "白黒"
    assert metadata["generated_by"].startswith("Japanese Stable Diffusion")
    for name, value in {"num_inference_steps": 4, "guidance_scale": 2.5, "scheduler": "DDIM"}.items():
        assert metadata[name] == metrics[name] == value
    assert metadata["model"] == metrics["model"]
    assert [metadata["seed"]] == metrics["seeds"] == [7]
    assert set(metrics["timings"]) == {"queue", "text", "denoise", "decode", "safety", "encode"}
    assert "4/4 [" in prediction["logs"]
    assert "seeds [7]" in prediction["logs"]


def test_the_picture_carries_the_watermark(server):
    (image,) = server.draw(**CAT)
    assert watermark.detect(image).marked


@pytest.mark.parametrize(
    ("name", "format", "mime"), [("jpg", "JPEG", "jpeg"), ("jpeg", "JPEG", "jpeg"), ("webp", "WEBP", "webp")]
)
def test_jpeg_and_webp_are_written_when_asked_for(server, name, format, mime):
    prediction = server.predict(**CAT, output_format=name, output_quality=95)
    assert prediction["output"][0].startswith(f"data:image/{mime};base64,")
    assert picture(prediction["output"][0]).format == format
    assert metadata_of(prediction)["seed"] == 7


def test_integers_may_be_written_with_a_fraction_of_zero(server):
    """JSON Schema says that 1.0 is an integer."""
    sent = {name: float(value) if isinstance(value, int) else value for name, value in CAT.items()}
    prediction = server.predict(**sent, num_outputs=1.0, output_quality=90.0)
    assert prediction["status"] == "succeeded", prediction["error"]
    assert {name: metadata_of(prediction)[name] for name in CAT} == CAT
    assert prediction["metrics"]["seeds"] == [CAT["seed"]]


def test_the_log_says_what_of_a_prompt_was_not_used(server):
    prediction = server.predict(**CAT | {"prompt": "(猫:1.3) 龖 --ar 16:9"})
    assert "syntax of other tools was taken out: --ar 16:9 (…:1.3)" in prediction["logs"]
    assert "1 character unknown: 龖" in prediction["logs"]
    assert prediction["metrics"]["unknown_characters"] == 1
    assert prediction["metrics"]["removed_syntax"] == ["--ar 16:9", "(…:1.3)"]


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
def test_every_scheduler_draws_a_picture(server, scheduler):
    (image,) = server.draw(**SMALL | {"scheduler": scheduler})
    assert image.size == (128, 128)


def test_the_same_seed_gives_the_same_picture(server, cat):
    assert_same(server.draw(**CAT)[0], cat)
    assert psnr(server.draw(**CAT | {"seed": 8})[0], cat) < 30


def test_picture_i_of_a_request_is_the_picture_of_seed_plus_i(server, cat):
    prediction = server.predict(**CAT | {"seed": 6, "num_outputs": 2})
    assert prediction["metrics"]["seeds"] == [6, 7]
    first, second = (picture(uri) for uri in prediction["output"])
    assert_alike(second, cat)
    assert psnr(first, second) < 30
    assert metadata_of(prediction, 1)["seed"] == 7


MIXED = [
    {"prompt": "犬 水彩画", "seed": 1, "num_inference_steps": 9, "scheduler": "PNDM"},
    {"prompt": "富士山", "seed": 2, "num_inference_steps": 5, "scheduler": "K_HEUN", "guidance_scale": 3},
    {"prompt": "赤い背景の寿司", "seed": 3, "num_outputs": 3},
    {"prompt": "鳥居", "seed": 4, "guidance_scale": 1, "scheduler": "LCM"},
    {"prompt": "桜", "seed": 5, "width": 256, "height": 192},
    {"prompt": "猫 ドット絵", "seed": 6, "scheduler": "K_EULER_ANCESTRAL", "num_inference_steps": 12},
    {"prompt": "東京タワー", "seed": 7, "scheduler": "UNI_PC", "negative_prompt": "油絵"},
    {"prompt": "ラーメン", "seed": 8, "scheduler": "DPM_SOLVER_PP_2M_KARRAS", "output_format": "jpg"},
]


def test_eight_different_clients_at_once_get_the_pictures_they_would_get_alone(server):
    asked = [{"width": 128, "height": 128} | inputs for inputs in MIXED]
    alone = [server.draw(**inputs) for inputs in asked]
    with ThreadPoolExecutor(len(asked)) as clients:
        predictions = list(clients.map(lambda inputs: server.predict(**inputs), asked))
    for inputs, prediction, expected in zip(asked, predictions, alone, strict=True):
        drawn = [picture(uri) for uri in prediction["output"]]
        assert len(drawn) == inputs.get("num_outputs", 1)
        for ours, theirs in zip(drawn, expected, strict=True):
            assert_alike(ours, theirs)
    # They were served together.
    assert max(prediction["metrics"]["batch_rows"] for prediction in predictions) > 6


def test_without_a_seed_a_random_one_is_recorded(server):
    seeds = [server.predict(**SMALL | {"seed": 0})["metrics"]["seeds"]]
    random = {name: value for name, value in SMALL.items() if name != "seed"}
    seeds += [server.predict(**random)["metrics"]["seeds"] for _ in range(2)]
    assert len({tuple(s) for s in seeds}) == 3


def test_the_schema_lists_every_input(server):
    code, document = server.call("GET", "/openapi.json")
    assert code == 200
    properties = document["components"]["schemas"]["Input"]["properties"]
    assert sorted(properties, key=lambda name: properties[name]["x-order"]) == INPUTS
    assert document["components"]["schemas"]["scheduler"]["enum"] == list(SCHEDULER_NAMES)
