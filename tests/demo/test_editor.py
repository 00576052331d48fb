"""What a stranger's program sends to the editor takes no more memory than it may, and is decoded by nobody at once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

gradio = pytest.importorskip("gradio")

from gradio.components.image_editor import EditorData  # noqa: E402
from gradio.data_classes import DataWithFiles, FileData  # noqa: E402

from demo import editor, inputs  # noqa: E402
from demo.editor import Editor  # noqa: E402


def send(editor, kind, content, index="null", id="someone"):
    editor.accept_blobs(DataWithFiles(data={"type": kind, "index": index, "id": id}, files=[("blob", content)]))


def png(size, colour):
    file = io.BytesIO()
    Image.new("RGBA", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return Editor(type="filepath", format="png")


def test_a_painting_becomes_a_picture_and_a_mask(desk):
    for kind, content, index in (("background", png((4, 3), "red"), "null"), ("layer", png((4, 3), "blue"), "0")):
        send(desk, kind, content, index)
    send(desk, "composite", b"not even a picture")
    made = inputs.painted(desk.files(EditorData(id="someone")))
    assert (made["image"].getpixel((0, 0)), made["mask"].getpixel((3, 2))) == ((255, 0, 0), 255)
    assert desk.files(EditorData(id="someone"))["background"] is None  # it is drawn


def test_uploaded_files_stay_where_they_are(desk, tmp_path):
    picture, layers = str(tmp_path / "a.png"), [FileData(path=str(tmp_path / f"{i}.png")) for i in range(50)]
    found = desk.files(EditorData(background=FileData(path=picture), layers=layers))
    assert found["background"] == picture
    assert len(found["layers"]) == len(editor.LAYERS)
    assert desk.files(None) is None


@pytest.mark.parametrize("index", ["10000000", "-1", "4", "null", "1.5", ""])
def test_a_layer_that_no_editor_has_takes_no_room(desk, index):
    send(desk, "layer", b"x", index)
    assert desk.files(EditorData(id="someone"))["layers"] == []


def test_the_oldest_paintings_go(desk, monkeypatch):
    monkeypatch.setattr(editor, "MOST_HELD", 3)
    monkeypatch.setattr(editor, "MOST_BYTES", 1000)
    for name in "abcd":
        send(desk, "background", name.encode(), id=name)
    kept = {name: desk.files(EditorData(id=name))["background"] for name in "abcd"}
    assert [name for name, file in kept.items() if file] == ["b", "c", "d"]
    assert Path(kept["d"]).read_bytes() == b"d"
    for name in "ab":
        send(desk, "background", bytes(600), id=name)
    assert [bool(desk.files(EditorData(id=name))["background"]) for name in "ab"] == [False, True]
    send(desk, "background", bytes(1001), id="a")
    assert desk.files(EditorData(id="a"))["background"] is None
