"""Folders of captioned pictures are read in the layouts that people have. What is not read is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jsd import cli
from jsd.errors import TrainingError
from jsd.train.folder import Captioned, find_pictures
from tests.train.shards import picture


def fill(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder: a name's content is text, and that of a .png or .jpg a picture."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture() if file.suffix.lower() in (".png", ".jpg") else content.encode())
    return folder


def read(folder: Path) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """Return file name -> (caption, repeats), and the names of what is not read."""
    found, left = find_pictures(folder)
    pictures = {entry.file.relative_to(folder).as_posix(): (entry.caption, entry.repeats) for entry in found}
    return pictures, [path.name for path in left]


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_captions_lie_beside_the_pictures_whatever_their_suffix(tmp_path):
    files = {"a.png": "", "a.txt": "猫", "b.PNG": "", "b.CAPTION": "犬", "c.jpg": "", "c.json": '{"caption": "鳥"}'}
    assert read(fill(tmp_path, files)) == ({"a.png": ("猫", 1), "b.PNG": ("犬", 1), "c.jpg": ("鳥", 1)}, [])


def test_metadata_of_an_imagefolder_names_the_captions(tmp_path):
    rows = lines({"file_name": "a.png", "text": "猫"}, {"file_name": "more/b.png", "text": "犬"})
    files = {"metadata.jsonl": f"\ufeff{rows}\n", "a.png": "", "more/b.png": "", "more/c.png": ""}
    assert read(fill(tmp_path, files))[0] == {"a.png": ("猫", 1), "more/b.png": ("犬", 1)}


def test_folders_of_kohya_say_how_often_their_pictures_are_shown(tmp_path):
    files = {"10_うちの猫/a.png": "", "10_うちの猫/b.png": "", "10_うちの猫/b.caption": "眠る猫", "2_犬/a.png": ""}
    pictures, left = read(fill(tmp_path, files | {"0_鳥/a.png": "", "old/a.png": ""}))
    assert pictures == {
        "10_うちの猫/a.png": ("うちの猫", 10),
        "10_うちの猫/b.png": ("眠る猫", 10),
        "2_犬/a.png": ("犬", 2),
    }
    assert left == ["0_鳥", "old"]


def test_hidden_files_are_passed_over_and_others_are_named(tmp_path):
    hidden = {"._a.png": "", "._a.txt": "", ".DS_Store": "", ".thumbnails/a.png": ""}
    others = {"cat.gif": "", "dog.txt": "犬", "10_old/a.png": ""}
    pictures, left = read(fill(tmp_path, {"a.png": "", "a.txt": "猫", **hidden, **others}))
    assert (pictures, left) == ({"a.png": ("猫", 1)}, ["10_old", "cat.gif", "dog.txt"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no pictures (.jpg, .jpeg, .png, .webp) here, nor in folders with a name like 10_cat"),
        ({"a.png": ""}, "a.png: no caption; each picture needs a caption: a .txt or .caption file of the same name"),
        ({"a.png": "", "a.txt": " "}, "a.png: caption empty"),
        ({"10_/a.png": ""}, "a.png: no caption"),
        ({"a.png": "", "metadata.jsonl": '{"file_name": "b.png", "text": "猫"}'}, "a.png: no caption"),
        ({"a.png": "", "metadata.jsonl": '{"file_name": "a.png"}'}, "a.png: caption empty"),
        ({"a.png": "", "metadata.jsonl": '\n{"text": "猫"}'}, "metadata.jsonl: line 2 is unreadable (KeyError"),
        ({"a.png": "", "metadata.jsonl": "{"}, "metadata.jsonl: line 1 is unreadable"),
        ({"a.png": "", "metadata.jsonl": "[]"}, "metadata.jsonl: line 1 is unreadable"),
        ({"metadata.jsonl": '{"file_name": "../a.png", "text": "猫"}'}, "outside of the folder"),
        ({"metadata.jsonl": '{"file_name": "/a.png", "text": "猫"}'}, "outside of the folder"),
    ],
)
def test_a_folder_that_can_not_be_trained_on(tmp_path, files, message):
    with pytest.raises(TrainingError) as caught:
        find_pictures(fill(tmp_path, files))
    assert message in str(caught.value)


def test_the_command_trains_on_the_pictures_of_kohya_and_says_what_it_leaves(tmp_path, tiny_folder, capsys):
    files = {"3_うちの猫/a.png": "", "1_犬/a.png": "", "readme.md": "", "1_犬/a.npz": ""}
    folder = fill(tmp_path / "pictures", files)
    words = ["--model", tiny_folder, "--images", folder, "--to", tmp_path / "a.safetensors", "--steps", 1, "--cpu"]
    assert cli.main(["train", "lora", *map(str, words)]) == 0
    out = capsys.readouterr().out
    assert "2 pictures, 4 with repeats" in out
    assert "not read: 'readme.md', 'a.npz'" in out
    (folder / "1_犬" / "a.png").write_bytes(b"no picture")
    assert cli.main(["train", "lora", *map(str, words)]) == 2
    assert "1_犬/a.png: picture: not a png, jpeg or webp file; a whole" in capsys.readouterr().err


def test_a_picture_is_shown_as_often_as_its_folder_says(tmp_path, tiny_folder, monkeypatch):
    from jsd.train import lora

    shown = []

    def train_denoiser(name, model, source, *arguments):
        shown.extend(key.split()[1] for step in range(300) for key in source(step, lora.np.random.default_rng(step))[2])
        raise KeyboardInterrupt

    monkeypatch.setattr(lora, "train_denoiser", train_denoiser)
    folder = fill(tmp_path / "pictures", {"3_猫/a.png": "", "1_犬/a.png": ""})
    words = ["--model", tiny_folder, "--images", folder, "--to", tmp_path / "a.safetensors", "--cpu"]
    with pytest.raises(KeyboardInterrupt):
        cli.main(["train", "lora", *map(str, words)])
    assert len(shown) == 1200
    assert shown.count("3_猫/a.png") / shown.count("1_犬/a.png") == pytest.approx(3, rel=0.2)


def test_captions_of_metadata_do_not_replace_files(tmp_path):
    rows = lines({"file_name": "a.png", "text": "犬"})
    folder = fill(tmp_path, {"a.png": "", "a.txt": "猫", "metadata.jsonl": rows})
    assert find_pictures(folder)[0] == [Captioned(folder / "a.png", "猫")]
