"""Requests that a public endpoint has to survive. After each of them an ordinary prediction is what it was before."""

import contextlib
import json
import re
import socket
import threading

import pytest
from PIL import Image

from tests.alike import assert_same
from tests.e2e.conftest import SMALL, metadata_of
from tests.server import Server, as_uri, to_uri

pytestmark = pytest.mark.usefixtures("still_serving")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", "猫" * 2001),
        ("prompt", "猫" * 1_000_000),
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
        ("guidance_scale", 0.99),
        ("guidance_scale", -1e308),
        ("guidance_scale", 1e308),
        ("guidance_scale", "high"),
        ("scheduler", "EULER"),
        ("seed", -1),
        ("seed", 2**53),
        ("seed", 2**64),
        ("seed", 1.5),
        ("width", 0),
        ("width", 10**9),
        ("num_outputs", 9),
        ("output_format", "gif"),
        ("output_quality", 101),
        ("prompt_strength", 2),
    ],
)
def test_a_value_outside_the_schema_is_a_422_that_names_the_input(server, name, value):
    code, answer = server.call("POST", "/predictions", {"input": SMALL | {name: value}})
    assert code == 422
    assert [error["loc"] for error in answer["detail"]] == [["body", "input", name]]


@pytest.mark.parametrize("name", ["image", "mask", "guidance_scale", "steps", "scheduler", "width", "seed"])
def test_null_is_refused_by_name(server, name):
    """Cog 0.23.1 does so whatever the document says, so the document says so too. Leave the input out instead."""
    code, answer = server.call("POST", "/predictions", {"input": SMALL | {name: None}})
    assert code == 422
    assert {tuple(error["loc"]) for error in answer["detail"]} == {("body", "input", name)}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"prompt": " \u3000\n"}, "prompt: "),
        ({"prompt": "猫\0犬"}, "prompt: "),
        ({"prompt": "--ar 16:9"}, "prompt: it was all syntax"),
        ({"width": 513}, "width: 513 was given"),
        ({"seed": 2**53 - 1, "num_outputs": 2}, "seed: "),
        ({"image": "data:image/png;base64,AAAA"}, "image: not a png, jpeg or webp file"),
        ({"prompt_strength": 0.5}, "prompt_strength: given without an image"),
    ],
)
def test_a_value_that_only_the_model_can_refuse_fails_by_name(server, inputs, message):
    prediction = server.predict(**SMALL | inputs)
    assert prediction["status"] == "failed"
    assert message in prediction["error"]
    assert "output" not in prediction


def test_cog_drops_an_unknown_key_and_logs_it(server):
    """Cog does so for clients of other models. The model never sees the key, so it can't refuse it."""
    assert server.predict(**SMALL, tiling=True)["status"] == "succeeded"
    assert "Stripped unknown input fields" in server.log()
    assert '[\\"tiling\\"]' in server.log()


@pytest.mark.parametrize(
    "body",
    [
        b'{"input": {"prompt": ',
        b"",
        b"[]",
        b'{"input": []}',
        b'{"input": 5}',
        b'{"input": {"guidance_scale": NaN}}',
        b'{"input": {"guidance_scale": 1e999}}',
        b'{"input": {"seed": 1' + b"0" * 400 + b"}}",
        b'{"input": {"prompt": "a"}, "input": {"prompt": "b"}}',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"input": {"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
    ],
)
def test_a_broken_body_is_a_4xx(server, body):
    code, _ = server.call("POST", "/predictions", body)
    assert 400 <= code < 500


@pytest.mark.parametrize(
    "prompt",
    [
        "猫",
        "</s> <unk> [PAD] <s>",
        "http://127.0.0.1/cat.png",
        "file:///etc/passwd",
        "‮猫‍😺\ufdfa",
        "ネコ",
        "ねこ\r\n\t\x1b[31m赤\x07\x7f\x85\u2028",
        "猫" * 500,
    ],
)
def test_an_odd_prompt_is_only_text(server, prompt):
    prediction = server.predict(**SMALL | {"prompt": prompt})
    assert prediction["status"] == "succeeded", prediction["error"]
    assert metadata_of(prediction)["prompt"] == prompt
    assert (prediction["metrics"]["truncated_tokens"] > 0) == (prompt == "猫" * 500)


@pytest.mark.parametrize(("one", "other"), [("ﾈｺ", "ネコ"), ("Ｆｕｊｉ　１", "fuji 1"), ("CAT", "cat")])
def test_width_and_case_of_characters_make_no_difference(server, one, other):
    first, second = (server.draw(**SMALL | {"prompt": prompt})[0] for prompt in (one, other))
    assert_same(first, second)


def test_a_control_character_never_reaches_the_log(server):
    """Clients could send one in a prompt, an unknown key, an id or a refused value."""
    nasty = "猫\x1b[2J\x07\x9b\r"
    server.predict(**SMALL | {"prompt": nasty, "negative_prompt": nasty, nasty: nasty})
    server.call("POST", "/predictions", {"input": SMALL | {"scheduler": nasty}})
    server.call("PUT", "/predictions/%1b%5b2J%07", {"input": SMALL})
    server.predict(**SMALL | {"image": nasty})
    log = server.log_file.read_bytes().decode()
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", log) == []  # all of them but the line feed


def test_an_address_in_a_prompt_is_not_fetched(server):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/cat.png"
        trap.settimeout(1)
        server.draw(**SMALL | {"prompt": address, "negative_prompt": address})
        with pytest.raises(TimeoutError):
            trap.accept()


def test_a_body_of_more_than_a_hundred_megabytes_is_refused(server):
    with connect(server, content_length=110_000_000) as client:
        with contextlib.suppress(OSError):  # the server may answer and hang up before it has got everything
            for _ in range(110):
                client.sendall(b" " * 1_000_000)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_an_id_in_the_body_must_match_the_path(server):
    """The proxy of deploy/ relies on this: a body can't bring in an id that names a folder elsewhere."""
    code, answer = server.call("PUT", "/predictions/mine", {"id": "../../elsewhere", "input": SMALL})
    assert code == 422
    assert "must match" in str(answer)


def test_a_body_that_never_ends_delays_no_other_request(server):
    with connect(server, content_length=1000) as slow:
        slow.sendall(b'{"input": ')
        assert len(server.draw(**SMALL)) == 1


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            as_uri(Image.new("RGB", (8, 8)), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
            "image: not a png, jpeg or webp file",
        ),
        (to_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "image: not a png, jpeg or webp file"),
        ("data:image/png;base64,not base64!", "image: its base64 is broken"),
        ("data:", "image: 'data:' is no data URI"),
        ("../../etc/passwd", "image: '../../etc/passwd' was given; a data URI or the address of a file is wanted"),
        ("file:///etc/passwd", "image: 'file:///etc/passwd' was given; a data URI"),
        ("http://127.0.0.1:1/cat.png", "image: 'http://127.0.0.1:1/cat.png' can't be fetched"),
    ],
)
def test_an_image_that_is_no_picture_fails_with_the_reason(server, image, reason):
    prediction = server.predict(**SMALL | {"image": image})
    assert prediction["status"] == "failed"
    assert reason in prediction["error"]
    assert "root:" not in json.dumps(prediction)


def test_a_mask_of_another_size_is_resized(server):
    mask = Image.new("L", (31, 17))
    mask.paste(255, (0, 0, 15, 17))
    (image,) = server.draw(
        **SMALL | {"image": as_uri(Image.new("RGB", (300, 200), "orange")), "mask": as_uri(mask), "prompt_strength": 1}
    )
    assert image.size == (128, 128)


def test_a_burst_beyond_the_limit_is_answered_with_pictures_and_409(server):
    answers = []

    def ask(seed: int) -> None:
        answers.append(server.call("POST", "/predictions", {"input": SMALL | {"seed": seed}}))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [code for code, _ in answers]
    assert codes.count(200) + codes.count(409) == 60
    assert codes.count(200) >= 16
    assert all(prediction["status"] == "succeeded" for code, prediction in answers if code == 200)


def connect(server: Server, content_length: int) -> socket.socket:
    """A connection over which the head of a POST to /predictions has been sent, but nothing of its body."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = "POST /predictions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json"
    connection.sendall(f"{head}\r\nContent-Length: {content_length}\r\n\r\n".encode())
    return connection
