"""The training data of the embedded model: tokenizers, rendered scenes with captions, and their latents."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embedded import networks, training_data, workers
from embedded.scenes import load_assets
from embedded.training_data import Bucket, Scenes
from jsd.errors import TrainingError
from tests.embedded.icons import short_table, write_icons


class Here:
    """An executor that computes at once, in this process."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future:
        done: Future = Future()
        done.set_result(call(*arguments))
        return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with icons, a table of four concepts, two tokenizers, and two shards of three scenes."""
    folder = tmp_path_factory.mktemp("data")
    icons, table = write_icons(folder / "icons"), short_table(folder / "table.tsv", ("cat", "dog", "car", "apple"))
    assets = load_assets(icons, table, folder / "sprites", 1)
    tokenizers = {code: folder / code for code in ("ja", "en")}
    for code, path in tokenizers.items():
        training_data.make_tokenizer(path, assets, code, scenes=200)
    workers.open_assets(icons, table, folder / "sprites")
    Scenes(folder / "scenes", 3).start(Here(), 2, tokenizers)
    return folder


@pytest.fixture
def scenes(folder):
    """The scenes of `folder`, opened anew."""
    found = Scenes(folder / "scenes", 3)
    found.start(Here(), 2, {code: folder / code for code in ("ja", "en")})
    found.stop()
    return found


def test_the_tokenizers_know_the_names_and_english_falls_back_to_bytes(folder):
    japanese, english = (training_data.make_tokenizer(folder / code, None, code, 0) for code in ("ja", "en"))
    assert japanese.max_length == english.max_length == training_data.LENGTH
    for text in ("猫", "ねこ", "ネコ"):
        assert japanese.pieces.unk_id() not in japanese.pieces.encode(text)
    assert english("猫").used > 3


def test_no_token_of_a_tokenizer_spans_a_name_and_a_style(folder):
    pieces = training_data.make_tokenizer(folder / "ja", None, "ja", 0).pieces
    assert not [k for k in range(len(pieces)) if "猫の" in pieces.id_to_piece(k) and "画" in pieces.id_to_piece(k)]


def test_scenes_are_rendered_once_with_captions_in_both_languages(folder, scenes):
    written = {file: file.stat().st_mtime_ns for file in (folder / "scenes").iterdir()}
    assert len(scenes) == 6
    for (pictures, ids), (width, height) in zip(scenes.shards(), training_data.SIZES, strict=False):
        assert (pictures.dtype, pictures.shape) == (np.uint8, (3, height, width, 3))
        assert {code: value.shape for code, value in ids.items()} == {"ja": (3, 10, 40), "en": (3, 6, 40)}
        assert len({tuple(row) for row in ids["ja"][0].tolist()}) > 1
    assert {file: file.stat().st_mtime_ns for file in (folder / "scenes").iterdir()} == written


def test_a_batch_holds_square_pictures_that_are_there(scenes):
    (known,) = (pictures for pictures, _ in scenes.shards() if pictures.shape[1:3] == (256, 256))
    for seed in range(6):
        batch = ((scenes.batch(4, np.random.default_rng(seed)) + 1) * 127.5).round().byte().movedim(1, 3).numpy()
        for picture in batch:
            assert any((known == one).all((1, 2, 3)).any() for one in (picture, picture[:, ::-1]))


def test_a_disk_holds_what_is_there_and_what_its_room_is_enough_for(scenes, monkeypatch):
    for free, room in ((training_data.RESERVE + 3 * (3 * 3 * 256 * 256), 3), (0, 0)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(training_data.shutil, "disk_usage", lambda folder, usage=usage: usage)
        assert scenes.affordable() == 2 + room


def test_on_a_full_disk_one_shard_is_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(training_data.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    assert Scenes(tmp_path / "scenes", 3).affordable() == 1


def test_a_broken_file_of_pictures_is_named(folder):
    tokenizers = {code: folder / code for code in ("ja", "en")}
    broken = Scenes(folder / "broken", 1)
    broken.start(Here(), 1, tokenizers)
    (folder / "broken" / "pictures-00000.npy").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"pictures-00000.npy: unreadable .* delete"):
        broken.wait(0)


def test_pictures_are_encoded_into_a_bucket_for_each_size():
    wide = np.zeros((2, 16, 32, 3), np.uint8)
    square = np.full((1, 16, 16, 3), 255, np.uint8)
    shards = [(wide, {"ja": np.zeros((2, 1, 4), np.int16)}), (square, {"ja": np.ones((1, 1, 4), np.int16)})]
    fake = type("Shards", (), {"ready": [0, 1, 2], "shards": lambda self: iter([*shards, shards[0]])})()
    vae = networks.make_vae(networks.TINY).eval()
    first, second = training_data.encode_all(fake, vae, nullcontext, batch=1)
    assert (first.latents.shape, second.latents.shape) == ((4, 8, 2, 4), (1, 8, 2, 2))
    assert second.ids["ja"].tolist() == [[[1, 1, 1, 1]]]
    vae.register_to_config(scaling_factor=0.5)
    assert torch.equal(training_data.encode_all(fake, vae, nullcontext, batch=1)[1].latents, second.latents / 2)


def test_a_training_batch_comes_from_one_bucket_with_the_captions_of_its_pictures():
    buckets = [
        Bucket(torch.full((n, 1, side, 2), float(n)), {"ja": torch.full((n, 3, 4), n, dtype=torch.int16)})
        for n, side in ((2, 2), (6, 4))
    ]
    draw, seen = training_data.source(buckets, "ja", 5), []
    for step in range(200):
        x_0, ids, keys = draw(step, np.random.default_rng(step))
        assert keys is None
        assert (ids == int(x_0[0, 0, 0, 0])).all()
        assert ids.shape == (5, 4)
        seen.append(x_0.shape[2])
    assert 0.6 < np.mean(np.array(seen) == 4) < 0.9  # by their numbers of pictures
