"""A result says how each picture was made, and what the user should know about it."""

from pathlib import Path

import pytest
from PIL import Image

from jsd.request import Request
from jsd.result import Result


@pytest.fixture
def result():
    """The result of a request for three pictures. The safety checker held back the one with seed 8."""
    request = Request(
        "猫",
        width=64,
        height=64,
        num_outputs=3,
        num_inference_steps=4,
        guidance_scale=2.0,
        guidance_interval=(0, 1),
        scheduler="DDIM",
        seed=7,
    )
    pictures = [Image.new("RGB", (64, 64))] * 2
    unread = {"truncated": 5, "unknown": "貓龘貓", "removed": ["--ar 16:9", "(…:1.3)"]}
    return Result(pictures, [7, 9], 1, request, "tiny", {"text": 0.123456}, tokens=3, batch_rows=7.123, **unread)


def test_the_metadata_say_how_a_picture_was_made(result):
    metadata = result.metadata(1)
    assert (metadata["prompt"], metadata["seed"], metadata["scheduler"], metadata["model"]) == ("猫", 9, "DDIM", "tiny")
    assert (metadata["width"], metadata["height"], metadata["truncated_tokens"]) == (64, 64, 5)
    assert (metadata["unknown_characters"], metadata["removed_syntax"]) == (3, ["--ar 16:9", "(…:1.3)"])
    assert metadata["watermark"] is False
    assert metadata["timings"] == {"text": 0.1235}
    assert metadata["generated_by"].startswith("Japanese Stable Diffusion")
    assert "start" not in metadata


def test_the_metadata_say_how_the_start_latents_were_made(result):
    picture = Image.new("RGB", (64, 64))
    for inputs, start in (({"image": picture}, "image to image"), ({"image": picture, "mask": picture}, "inpainting")):
        request = Request("猫", seed=1, guidance_interval=(0, 1), prompt_strength=0.5, **inputs)
        metadata = Result([picture], [1], 0, request, "tiny").metadata(0)
        assert (metadata["start"], metadata["prompt_strength"]) == (start, 0.5)


def test_the_metrics_and_the_log_line_have_the_same_figures(result):
    metrics = result.metrics(encode=0.5)
    assert metrics["seeds"] == [7, 9]
    assert metrics["flagged"] == 1
    assert (metrics["unknown_characters"], metrics["removed_syntax"]) == (3, ["--ar 16:9", "(…:1.3)"])
    assert metrics["batch_rows"] == 7.12
    assert metrics["timings"] == {"text": 0.1235, "encode": 0.5}
    assert all(f"{name} {value}" in result.log_line(encode=0.5) for name, value in metrics.items())


def test_the_report_names_every_file_with_its_seed(result):
    lines = result.report([Path("a.0.png"), Path("a.2.png")], encode=0.5)
    assert lines == [
        "a.0.png: seed 7, 4 steps of DDIM",
        "a.2.png: seed 9, 4 steps of DDIM",
        "text 0.12 s, encode 0.50 s",
    ]


def test_the_notes_mention_what_was_not_used_and_held_back_pictures(result):
    foreign, unknown, cut, held_back = result.notes()
    assert foreign.endswith("syntax of other tools was taken out: --ar 16:9 (…:1.3)")
    assert unknown.endswith("3 characters unknown: 貓 龘")
    assert "last 5 tokens were left out" in cut
    assert "1 of 3 pictures were left out" in held_back
    assert Result([], [], 0, result.request, "tiny").notes() == []


def test_notes_are_short_and_escape_what_a_log_must_not_hold(result):
    unread = {"unknown": "".join(map(chr, range(0x4E00, 0x5000))), "removed": ["<a:\x1b>"] + ["<a:b>" * 400] * 50}
    foreign, unknown = Result([], [], 0, result.request, "tiny", **unread).notes()
    assert "taken out: <a:\\x1b> " in foreign
    assert "512 characters unknown: 一 丁 " in unknown
    assert max(len(foreign), len(unknown)) < 1000
    assert foreign.endswith(" ...")
    assert unknown.endswith(" ...")
