"""What a public endpoint meets. After every one of these, an ordinary prediction gives the picture it gave before."""

import json
import socket
import threading

import pytest
from PIL import Image

from tests.e2e.conftest import CAT, as_uri, to_uri, told

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
        ("seed", 2**63),
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


@pytest.mark.parametrize("name", ["image", "mask", "guidance_scale", "steps", "scheduler", "width", "seed"])
def test_null_is_refused_by_name(server, name):
    """By Cog 0.23.1, though its document says nullable: the README tells to leave the input out."""
    code, answer = server.call("POST", "/predictions", {"input": CAT | {name: None}})
    assert code == 422
    assert {tuple(error["loc"]) for error in answer["detail"]} == {("body", "input", name)}


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


def test_an_unknown_key_is_dropped_by_cog_and_told_in_the_log(server):
    """Cog's own doing, for clients of other models; the model never sees the key, so it can't refuse it."""
    assert server.predict(**CAT, tiling=True)["status"] == "succeeded"
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
def test_a_broken_envelope_is_a_4xx(server, body):
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
def test_odd_prompts_are_only_text(server, prompt):
    prediction = server.predict(**CAT | {"prompt": prompt})
    assert prediction["status"] == "succeeded", prediction["error"]
    assert told(prediction)["prompt"] == prompt
    assert (prediction["metrics"]["truncated_tokens"] > 0) == (prompt == "猫" * 500)


@pytest.mark.parametrize(("one", "other"), [("ﾈｺ", "ネコ"), ("Ｆｕｊｉ　１", "fuji 1"), ("CAT", "cat")])
def test_width_and_case_of_characters_make_no_difference(server, one, other):
    first, second = (server.draw(**CAT | {"prompt": prompt})[0] for prompt in (one, other))
    assert first.tobytes() == second.tobytes()


def test_a_control_character_never_reaches_the_log(server):
    """From a prompt, an unknown key, an id, or a refused value."""
    nasty = "猫\x1b[2J\x07\x9b\r"
    server.predict(**CAT | {"prompt": nasty, "negative_prompt": nasty, nasty: nasty})
    server.call("POST", "/predictions", {"input": CAT | {"scheduler": nasty}})
    server.call("PUT", "/predictions/%1b%5b2J%07", {"input": CAT})
    server.predict(**CAT | {"image": nasty})
    log = server.log_file.read_bytes().decode()
    assert not [c for c in log if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f"]


def test_an_address_in_a_prompt_is_not_fetched(server):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        address = f"http://127.0.0.1:{trap.getsockname()[1]}/cat.png"
        trap.settimeout(1)
        server.draw(**CAT | {"prompt": address, "negative_prompt": address})
        with pytest.raises(TimeoutError):
            trap.accept()


def test_more_than_a_hundred_megabytes_are_refused(server):
    body = json.dumps({"input": CAT | {"unknown": "a" * 110_000_000}}).encode()
    try:
        code, _ = server.call("POST", "/predictions", body)
    except OSError:  # it hung up before all of it was sent
        return
    assert code == 413


def test_an_id_in_the_body_must_be_that_of_the_path(server):
    """What the proxy of deploy/ builds on: a body can't bring in an id that names a folder elsewhere."""
    code, answer = server.call("PUT", "/predictions/mine", {"id": "../../elsewhere", "input": CAT})
    assert code == 422
    assert "must match" in str(answer)


def test_a_body_that_never_ends_holds_up_nobody(server):
    host, port = server.url.removeprefix("http://").split(":")
    head = "POST /predictions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(head.encode() + b'{"input": ')
        assert len(server.draw(**CAT)) == 1


@pytest.mark.parametrize(
    "inputs",
    [
        {
            "image": as_uri(
                Image.new("RGB", (8, 8)), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
            )
        },
        {"image": to_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>")},
        {"image": "data:image/png;base64,not base64!"},
        {"image": "data:"},
        {"image": "../../etc/passwd"},
        {"image": "file:///etc/passwd"},
        {"image": "http://127.0.0.1:1/cat.png"},
    ],
)
def test_no_picture_is_a_failure_that_says_why(server, inputs):
    code, prediction = server.call("POST", "/predictions", {"input": CAT | inputs})
    if code == 200:
        assert prediction["status"] == "failed"
        assert prediction["error"]
    else:
        assert code == 422
    assert "root:" not in json.dumps(prediction)


def test_a_mask_of_another_size_is_fitted(server):
    mask = Image.new("L", (31, 17))
    mask.paste(255, (0, 0, 15, 17))
    (image,) = server.draw(
        **CAT | {"image": as_uri(Image.new("RGB", (300, 200), "orange")), "mask": as_uri(mask), "prompt_strength": 1}
    )
    assert image.size == (256, 256)


def test_a_burst_beyond_the_limit_is_told_to_come_again(server):
    """Every answer is a picture or a 409, and then the server is as before."""
    answers = []

    def ask(seed: int) -> None:
        answers.append(server.call("POST", "/predictions", {"input": CAT | {"seed": seed}}))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = [code for code, _ in answers]
    assert set(codes) <= {200, 409}
    assert codes.count(200) >= 16
    assert all(prediction["status"] == "succeeded" for code, prediction in answers if code == 200)
