"""The main job over real HTTP, and what must not break it: after every bad request, an ordinary one succeeds."""

import io
import json
import shutil
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from e2e.conftest import WEIGHTS, data, picture
from jsd import images, watermark
from jsd.request import SCHEDULER_NAMES

CAT = {"prompt": "猫の肖像画 油絵", "width": 256, "height": 256, "num_inference_steps": 4, "seed": 7}
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
    "output_format",
    "output_quality",
]


@pytest.fixture(scope="module")
def cat(server) -> bytes:
    """The pixels of `CAT`."""
    return server.draw(**CAT)[0].tobytes()


@pytest.fixture
def still_serving(server, cat):
    """After the test, the server is ready and draws what it drew before."""
    yield
    assert server.status() == "READY"
    assert server.draw(**CAT)[0].tobytes() == cat


def told(prediction: dict, index: int = 0) -> dict:
    return images.read_metadata(io.BytesIO(data(prediction["output"][index])))


def test_a_prompt_becomes_a_picture(server):
    prediction = server.predict(prompt="富士山 水彩画", num_inference_steps=4)
    assert prediction["status"] == "succeeded"
    (uri,) = prediction["output"]
    assert uri.startswith("data:image/png;base64,")
    image = picture(uri)
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.size == (prediction["metrics"]["width"], prediction["metrics"]["height"])
    assert any(low < high for low, high in image.getextrema())


def test_the_picture_and_the_answer_tell_how_it_was_made(server):
    prediction = server.predict(**CAT, guidance_scale=2.5, scheduler="DDIM", negative_prompt="白黒")
    metadata, metrics = told(prediction), prediction["metrics"]
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


@pytest.mark.parametrize(("name", "format", "mime"), [("jpg", "JPEG", "jpeg"), ("webp", "WEBP", "webp")])
def test_other_formats(server, name, format, mime):
    prediction = server.predict(**CAT, output_format=name, output_quality=95)
    assert prediction["output"][0].startswith(f"data:image/{mime};base64,")
    assert picture(prediction["output"][0]).format == format
    assert told(prediction)["seed"] == 7


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
def test_every_scheduler_draws(server, scheduler):
    (image,) = server.draw(**CAT | {"scheduler": scheduler})
    assert image.size == (256, 256)


def test_the_same_seed_is_the_same_picture(server, cat):
    assert server.draw(**CAT)[0].tobytes() == cat
    assert server.draw(**CAT | {"seed": 8})[0].tobytes() != cat


def test_image_two_of_a_request_with_the_seed_before_is_the_same_picture(server, cat):
    prediction = server.predict(**CAT | {"seed": 6, "num_outputs": 2})
    assert prediction["metrics"]["seeds"] == [6, 7]
    first, second = (picture(uri) for uri in prediction["output"])
    assert_alike(second, cat)
    assert first.tobytes() != second.tobytes()
    assert told(prediction, 1)["seed"] == 7


MIXED = [
    {"prompt": "犬 水彩画", "seed": 1, "num_inference_steps": 9, "scheduler": "PNDM"},
    {"prompt": "富士山", "seed": 2, "num_inference_steps": 5, "scheduler": "K_HEUN", "guidance_scale": 3},
    {"prompt": "赤い背景の寿司", "seed": 3, "num_outputs": 3},
    {"prompt": "鳥居", "seed": 4, "guidance_scale": 1, "scheduler": "LCM"},
    {"prompt": "桜", "seed": 5, "width": 128, "height": 192},
    {"prompt": "猫 ドット絵", "seed": 6, "scheduler": "K_EULER_ANCESTRAL", "num_inference_steps": 12},
    {"prompt": "東京タワー", "seed": 7, "scheduler": "UNI_PC", "negative_prompt": "油絵"},
    {"prompt": "ラーメン", "seed": 8, "scheduler": "DPM_SOLVER_PP_2M_KARRAS", "output_format": "jpg"},
]


def test_eight_clients_of_every_kind_get_the_pictures_they_would_get_alone(server):
    alone = [server.draw(**inputs) for inputs in MIXED]
    with ThreadPoolExecutor(len(MIXED)) as clients:
        predictions = list(clients.map(lambda inputs: server.predict(**inputs), MIXED))
    for inputs, prediction, expected in zip(MIXED, predictions, alone, strict=True):
        drawn = [picture(uri) for uri in prediction["output"]]
        assert len(drawn) == inputs.get("num_outputs", 1)
        for ours, theirs in zip(drawn, expected, strict=True):
            assert_alike(ours, theirs.tobytes())
    # They were not served one after another.
    assert max(prediction["metrics"]["batch_rows"] for prediction in predictions) > 6


def test_the_same_seed_is_the_same_picture_after_a_restart(start, server, cat):
    again = start()
    assert again.draw(**CAT)[0].tobytes() == cat
    again.stop()


def test_without_a_seed_one_is_drawn_and_told(server):
    seeds = [server.predict(**CAT | {"seed": 0})["metrics"]["seeds"]]
    random = {name: value for name, value in CAT.items() if name != "seed"}
    seeds += [server.predict(**random)["metrics"]["seeds"] for _ in range(2)]
    assert len({tuple(s) for s in seeds}) == 3


def test_the_schema_lists_every_input(server):
    code, document = server.call("GET", "/openapi.json")
    assert code == 200
    properties = document["components"]["schemas"]["Input"]["properties"]
    assert sorted(properties, key=lambda name: properties[name]["x-order"]) == INPUTS
    assert document["components"]["schemas"]["scheduler"]["enum"] == list(SCHEDULER_NAMES)


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", "猫" * 2001),
        ("prompt", 5),
        ("prompt", None),
        ("negative_prompt", "猫" * 2001),
        ("num_inference_steps", 999),
        ("steps", 999),
        ("num_inference_steps", 0),
        ("num_inference_steps", -1),
        ("num_inference_steps", "5"),
        ("num_inference_steps", 1.5),
        ("guidance_scale", 0),
        ("guidance_scale", 1e308),
        ("guidance_scale", "high"),
        ("scheduler", "EULER"),
        ("seed", -1),
        ("seed", 2**64),
        ("width", 0),
        ("width", 10**9),
        ("num_outputs", 9),
        ("output_format", "gif"),
        ("output_quality", 101),
        ("prompt_strength", 2),
    ],
)
def test_what_the_schema_forbids_is_a_422_that_names_the_input(server, name, value):
    code, answer = server.call("POST", "/predictions", {"input": CAT | {name: value}})
    assert code == 422
    assert [error["loc"] for error in answer["detail"]] == [["body", "input", name]]


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": " \u3000\n"}, "prompt: "),
        ({"prompt": "猫\0犬"}, "prompt: "),
        ({"width": 513}, "width: 513 was given"),
        ({"seed": 2**63 - 1, "num_outputs": 2}, "seed: "),
        ({"image": "data:image/png;base64,AAAA"}, "image: not a png, jpeg or webp file"),
        ({"prompt_strength": 0.5}, "prompt_strength: given without an image"),
    ],
)
def test_what_only_the_model_can_refuse_fails_with_a_message_that_names_the_input(server, inputs, message):
    prediction = server.predict(**CAT | inputs)
    assert prediction["status"] == "failed"
    assert message in prediction["error"]
    assert "output" not in prediction


@pytest.mark.usefixtures("still_serving")
def test_an_unknown_key_is_dropped_by_cog_and_told_in_the_log(server):
    """Cog's own doing, for clients of other models; the model never sees the key, so it can't refuse it."""
    assert server.predict(**CAT, tiling=True)["status"] == "succeeded"
    assert "Stripped unknown input fields" in server.log()
    assert '[\\"tiling\\"]' in server.log()


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize(
    "body", [b'{"input": {"prompt": ', b"[]", b'{"input": []}', b'{"input": 5}', b"\xff\xfe", b"[" * 10_000]
)
def test_a_broken_envelope_is_a_4xx(server, body):
    code, _ = server.call("POST", "/predictions", body)
    assert 400 <= code < 500


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize(
    "prompt",
    ["</s> <unk> [PAD] <s>", "http://127.0.0.1/cat.png", "file:///etc/passwd", "‮猫‍😺\ufdfa", "ネコ", "猫" * 500],
)
def test_odd_prompts_are_only_text(server, prompt):
    prediction = server.predict(**CAT | {"prompt": prompt})
    assert prediction["status"] == "succeeded", prediction["error"]
    assert told(prediction)["prompt"] == prompt
    assert (prediction["metrics"]["truncated_tokens"] > 0) == (prompt == "猫" * 500)


@pytest.mark.usefixtures("still_serving")
def test_a_running_prediction_can_be_cancelled(server):
    identifier = f"cancel-{uuid.uuid4()}"
    answers = []

    def run() -> None:
        inputs = CAT | {"num_inference_steps": 500, "num_outputs": 2}
        answers.append(server.call("PUT", f"/predictions/{identifier}", {"input": inputs}))

    thread = threading.Thread(target=run)
    thread.start()
    server.wait("progress", lambda: any(identifier in line and "2/500 [" in line for line in server.log().splitlines()))
    for _ in range(3):  # cancelling again does no harm
        assert server.call("POST", f"/predictions/{identifier}/cancel")[0] in (200, 404)
    thread.join()
    ((code, prediction),) = answers
    assert code == 200
    assert prediction["status"] == "canceled"
    assert "500/500" not in prediction["logs"]


def test_a_client_that_leaves_frees_its_rows(server):
    body = json.dumps({"input": CAT | {"num_inference_steps": 480, "num_outputs": 4}}).encode()
    head = f"POST /predictions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection((server.url.split("/")[-1].split(":")[0], int(server.url.split(":")[-1]))) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        server.wait("progress", lambda: "2/480 [" in server.log())
    server.wait("the end of it", lambda: server.predict(**CAT)["metrics"]["batch_rows"] == 2, seconds=60)
    assert "480/480" not in server.log()


@pytest.mark.usefixtures("still_serving")
def test_cancelling_what_is_not_there_is_a_404(server):
    assert server.call("POST", "/predictions/nobody/cancel")[0] == 404


def test_altered_weights_fail_the_setup_and_are_named(start, tmp_path):
    folder = Path(shutil.copytree(WEIGHTS, tmp_path / "altered"))
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    server = start(JSD_WEIGHTS=str(folder))
    assert server.status() == "SETUP_FAILED"
    assert str(file) in server.health()["setup"]["logs"]
    server.stop()


def test_missing_weights_fail_the_setup_and_are_named(start, tmp_path):
    server = start(JSD_WEIGHTS=str(tmp_path / "nowhere"))
    assert server.status() == "SETUP_FAILED"
    assert str(tmp_path / "nowhere") in server.health()["setup"]["logs"]
    server.stop()


def assert_alike(image: Image.Image, pixels: bytes) -> None:
    """The same picture but for the last bits: other batch sizes may add floats in another order."""
    other = Image.frombytes("RGB", image.size, pixels)
    differences = [abs(a - b) for a, b in zip(image.tobytes(), other.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 0.5
