"""A program that speaks to the page in place of a browser gets at no file of the server, and sees no traceback."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.adapters import adapter

pytestmark = pytest.mark.slow  # the page takes seconds to start


def draw(address, lora, **values):
    """Send what the first tab sends at a click, with any value for the field of the adapter. Returns the answer."""
    config = httpx.get(f"{address}config").json()
    parts = {part["id"]: part["props"] for part in config["components"]}

    def name(number):
        return next((c[6:] for c in parts[number].get("elem_classes") or () if c.startswith("field-")), None)

    event = next(event for event in config["dependencies"] if "lora" in map(name, event["inputs"]))
    values = {"prompt": "猫", "num_inference_steps": 1, "lora": lora, **values}
    data = [values.get(name(number), parts[number].get("value")) for number in event["inputs"]]
    body = {"data": data, "fn_index": event["id"], "session_hash": "someone"}
    httpx.post(f"{address}gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{address}gradio_api/queue/data", params={"session_hash": "someone"}) as answer:
        lines = (line.removeprefix("data: ") for line in answer.iter_lines())
        return next(line for line in lines if "process_completed" in line or "figure" in line)


@pytest.mark.parametrize("kind", ["file", "address", "nonsense"])
def test_a_file_that_was_not_uploaded_is_not_read(address, components, tmp_path, kind):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(adapter(components))
    path = {"file": str(file), "address": "http://127.0.0.1:9/mine.safetensors", "nonsense": "\0"}[kind]
    answer = json.loads(draw(address, {"path": path, "meta": {"_type": "gradio.FileData"}}))
    assert (answer["success"], answer["output"]["error"]) == (False, None)


@pytest.mark.parametrize("values", [{"num_outputs": [1]}, {"scheduler": {"a": 1}}, {"prompt": 5}, {"seed": "\0"}])
def test_a_value_of_a_wrong_type_is_answered_with_a_sentence(address, values):
    answer = draw(address, None, **values)
    assert "role=" in answer
    assert "Traceback" not in answer
    assert "Something went wrong" not in answer


def test_what_is_right_is_drawn(address):
    assert "figure" in draw(address, None)


def test_the_editor_makes_no_room_for_a_layer_that_no_editor_has(address):
    config = httpx.get(f"{address}config").json()
    number = next(part["id"] for part in config["components"] if part["type"] == "imageeditor")
    form = {"component_id": number, "session_hash": "someone", "fn_name": "accept_blobs"}
    for kind, index in (("layer", "3000000000"), ("layer", "0"), ("background", "null")):
        sent = {**form, "type": kind, "index": index, "id": "mine"}  # 3e9 layers would take 24 GB
        answer = httpx.post(f"{address}gradio_api/component_server", data=sent, files={"file": b"x"}, timeout=20)
        assert answer.status_code == 200
    assert "figure" in draw(address, None)
