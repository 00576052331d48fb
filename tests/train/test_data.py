"""Shards are streamed in an order that depends only on the seed, resumed anywhere, and bad samples are reported."""

import json
import os
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from jsd.errors import TrainingError
from jsd.train.data import Shards, Stream
from jsd.train.shards import find_shards
from tests.train.shards import good, picture, write


def read(urls, count, batch=4, shuffle=3, **settings):
    return list(islice(Shards(urls, size=16, batch=batch, shuffle=shuffle, **settings), count))


def keys(batches):
    return [key for batch in batches for key in batch.keys]


def test_every_epoch_holds_each_sample_once_in_a_new_order(tmp_path):
    urls = good(tmp_path, shards=3, each=8)
    seen = keys(read(urls, 12))
    first, second = seen[:24], seen[24:]
    assert sorted(first) == sorted(second) == sorted(f"{s}-{i}" for s in range(3) for i in range(8))
    assert first != second != sorted(second)
    assert keys(read(urls, 6)) == first
    assert keys(read(urls, 6, seed=1)) != first


def test_pixels_and_captions_belong_together(tmp_path):
    for batch in read(good(tmp_path, 2, 6), 3):
        assert batch.pixels.shape == (4, 3, 16, 16)
        for pixels, caption, key in zip(batch.pixels, batch.captions, batch.keys, strict=True):
            s, i = map(int, key.split("-"))
            assert caption == key
            wanted = torch.tensor([s * 20, i * 5, 90.0]) / 127.5 - 1
            assert torch.allclose(pixels.mean((1, 2)), wanted, atol=0.01)


def test_processes_and_workers_share_the_shards(tmp_path):
    urls = good(tmp_path, shards=4, each=4)
    parts = [keys(read(urls, 2, rank=rank, processes=2)) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(f"{s}-{i}" for s in range(4) for i in range(4))
    stream = Stream(Shards(urls, size=16, batch=4), workers=2)
    assert sorted(keys(next(stream) for _ in range(4))) == sorted(parts[0] + parts[1])


def test_more_readers_than_shards_are_refused(tmp_path):
    urls = good(tmp_path, 2, 2)
    with pytest.raises(TrainingError, match="2 shards for 4 readers"):
        read(urls, 1, processes=4)
    with pytest.raises(TrainingError, match="2 shards for 6 readers"):
        Stream(Shards(urls, size=16, batch=1, processes=2), workers=3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 5, 6, 11])
def test_a_stream_continues_from_a_stored_place(tmp_path, workers, stop):
    urls = good(tmp_path, shards=3, each=8)

    def stream():
        return Stream(Shards(urls, size=16, batch=2, shuffle=3, random_crop=True), workers)

    whole = stream()
    expected = [next(whole) for _ in range(stop + 8)][stop:]
    killed = stream()
    for _ in range(stop):
        next(killed)
    resumed = stream()
    resumed.go_to([killed.place()])
    for batch in expected:
        again = next(resumed)
        assert again.keys == batch.keys
        assert torch.equal(again.pixels, batch.pixels)


def test_two_processes_resume_twice_from_their_own_places(tmp_path):
    urls = good(tmp_path, shards=4, each=8)

    def streams():
        return [Stream(Shards(urls, size=16, batch=2, rank=rank, processes=2)) for rank in range(2)]

    whole = streams()
    expected = [[next(stream).keys for stream in whole] for _ in range(6)]
    places, seen = None, []
    for _ in range(3):  # three runs of two steps
        processes = streams()
        for stream in processes:
            if places:
                stream.go_to(places)
        seen += [[next(stream).keys for stream in processes] for _ in range(2)]
        places = [stream.place() for stream in processes]
    assert seen == expected


def test_another_number_of_readers_can_not_resume(tmp_path):
    urls = good(tmp_path, shards=3, each=8)
    stream = Stream(Shards(urls, size=16, batch=2))
    next(stream)
    with pytest.raises(TrainingError, match="with 1 readers.*now there are 2"):
        Stream(Shards(urls, size=16, batch=2), workers=2).go_to([stream.place()])


def test_bad_samples_are_left_out_counted_and_logged(tmp_path):
    whole = picture(size=(200, 200), kind="JPEG")
    bad = {
        "cut": (
            {"jpg": whole[: len(whole) // 2], "txt": "途中まで"},
            "picture: a jpeg file that is broken, cut off or of a rare kind",
        ),
        "sjis": ({"png": picture(), "txt": "猫の絵".encode("shift_jis")}, "caption not UTF-8"),
        "alone": ({"txt": "絵がない"}, "picture: none"),
        "mute": ({"png": picture()}, "no caption"),
        "json": ({"png": picture(), "json": b"{"}, "json unreadable"),
        "gif": ({"png": picture(kind="GIF"), "txt": "動く"}, "picture: not a png, jpeg or webp file"),
    }
    samples = {key: members for key, (members, _) in bad.items()}
    samples |= {f"good{i}": {"png": picture(), "txt": "良い"} for i in range(4)}
    url = str(write(tmp_path / "a.tar", samples))
    log = tmp_path / "skipped.jsonl"
    stream = Stream(Shards([url], size=16, batch=4), log=log)
    for _ in range(5):  # epochs; each bad sample is reported in the first one only
        assert sorted(next(stream).keys) == [f"good{i}" for i in range(4)]
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert sorted((row["key"], row["reason"]) for row in rows) == sorted(
        (key, reason) for key, (_, reason) in bad.items()
    )
    assert stream.skipped == Counter(reason for _, reason in bad.values())
    again = Stream(Shards([url], size=16, batch=4))
    again.go_to([stream.place()])
    next(again)
    assert again.skipped == stream.skipped


def test_a_reader_with_only_a_bad_shard_continues_with_the_next_epoch(tmp_path):
    urls = good(tmp_path, shards=4, each=4)
    Path(urls[2]).write_bytes(b"")
    streams = [Stream(Shards(urls, size=16, batch=1, rank=rank, processes=4)) for rank in range(4)]
    keys = {next(stream).keys[0] for _ in range(30) for stream in streams}
    assert len(keys) == 12


def test_a_truncated_shard_is_read_up_to_its_end(tmp_path):
    urls = good(tmp_path, shards=2, each=6)
    os.truncate(urls[0], 9 * 1024 + 700)  # within the tenth of its twelve members
    stream = Stream(Shards(urls, size=16, batch=1))
    assert Counter(next(stream).keys[0][0] for _ in range(11)) == {"0": 5, "1": 6}
    for _ in range(6):
        next(stream)
    ((reason, count),) = stream.skipped.items()
    assert "rest of the shard unreadable" in reason
    assert count == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_without_a_good_sample_are_an_error_in_one_line(tmp_path, workers):
    url = str(write(tmp_path / "a.tar", {"a": {"png": picture(), "txt": ""}}))
    with pytest.raises(TrainingError, match="^not one good sample in 3 shards.*a.tar a: caption empty$"):
        next(Stream(Shards([url], size=16, batch=1), workers))


def test_shards_are_found_by_folder_and_by_pattern(tmp_path):
    urls = good(tmp_path / "data", 3, 1)
    assert find_shards(str(tmp_path / "data")) == urls
    assert find_shards(f"{tmp_path}/data/{{00000..00002}}.tar") == urls
    with pytest.raises(TrainingError, match="no \\*.tar in this folder"):
        find_shards(str(tmp_path))
