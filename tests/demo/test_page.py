"""The page in a real browser, with the tiny model."""

from __future__ import annotations

import shlex
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from jsd import cli, images
from tests.demo.visitor import SIZE

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_picture_is_there_in_every_format_with_its_inputs(visit, tmp_path):
    visitor = visit()
    visitor.draw(prompt="猫", num_inference_steps=3)
    pictures = {}
    for label in ("PNG", "JPEG", "WebP"):
        file = visitor.download(label, tmp_path)
        known = images.read_metadata(file)
        assert (known["prompt"], known["seed"], known["num_inference_steps"]) == ("猫", visitor.seed(), 3)
        with Image.open(file) as image:
            pictures[image.format] = image.size
    assert pictures == dict.fromkeys(("PNG", "JPEG", "WEBP"), (SIZE, SIZE))


def test_the_seed_and_the_command_give_the_same_picture_again(visit, tmp_path, tiny_folder, monkeypatch):
    visitor = visit("en-GB")
    visitor.draw(prompt="it's a <b>猫</b> $HOME", negative_prompt="白黒")
    seed, first = visitor.seed(), np.array(Image.open(visitor.download("PNG", tmp_path)))
    visitor.find("summary").click()
    command = visitor.find("pre").first.text_content()

    visitor.find("button[data-do=seed]").click()
    expect(visitor.field("seed")).to_have_value(str(seed))
    visitor.draw()
    assert visitor.seed() == seed
    assert np.array_equal(first, Image.open(visitor.download("PNG", tmp_path)))

    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", *shlex.split(command)[1:]]) == 0
    assert np.array_equal(first, Image.open(tmp_path / "out.png"))


def test_cancel_frees_the_rows(visit, engine):
    visitor, spy = visit(), engine.components.unet
    spy.gate.clear()
    try:
        spy.inside.clear()
        visitor.fill(prompt="猫", num_inference_steps=90)
        visitor.button("go").click()
        assert spy.inside.wait(30)
        visitor.button("stop").click()
        expect(visitor.find(".panel [role=alert]")).to_have_text("中止しました。")
    finally:
        spy.gate.set()
    visitor.draw(prompt="猫", num_inference_steps=2)  # it would wait for 90 steps otherwise
    assert engine.running == 0


def test_a_visitor_who_leaves_frees_the_rows(visit, engine):
    visitor, spy, other = visit(), engine.components.unet, visit()
    spy.gate.clear()
    try:
        spy.inside.clear()
        visitor.fill(prompt="猫", num_outputs=4, num_inference_steps=90)
        visitor.button("go").click()
        assert spy.inside.wait(30)
        visitor.page.close()
        other.fill(prompt="猫", num_inference_steps=2)
        other.button("go").click()
        other.page.wait_for_timeout(1500)  # until gradio has seen that the other one has left
        spy.calls.clear()
    finally:
        spy.gate.set()
    other.find("figure img").first.wait_for()
    assert len(spy.calls) < 20


def test_two_visitors_are_drawn_together(visit, engine):
    visitors, spy = [visit(), visit("en-GB")], engine.components.unet
    for visitor in visitors:
        visitor.fill(prompt="猫", num_inference_steps=20)
    spy.calls.clear()
    spy.gate.clear()
    for visitor in visitors:
        visitor.button("go").click()
        visitor.button("stop").wait_for()
        visitor.page.wait_for_timeout(500)
    spy.gate.set()
    for visitor in visitors:
        visitor.find("figure img").wait_for()
    assert max(spy.calls) == 4  # two rows each
    assert visitors[0].seed() != visitors[1].seed()


def test_progress_is_shown_with_the_time_left(visit, engine):
    visitor, spy = visit(), engine.components.unet
    visitor.fill(prompt="猫", num_inference_steps=90)
    seen = threading.Event()
    spy.broken = lambda x: seen.wait(0.1) and False  # steps are slow until progress has been seen
    try:
        visitor.button("go").click()
        expect(visitor.find("[role=status]")).to_contain_text("90 ステップ中")
        expect(visitor.find("[role=status]")).to_contain_text("残り約")
    finally:
        spy.broken = lambda x: False
        seen.set()
    visitor.find("figure img").wait_for()


def test_what_is_painted_over_is_repainted_and_the_rest_is_kept(visit, picture, tmp_path):
    visitor = visit()
    visitor.open("repaint")
    visitor.upload(picture)
    visitor.fill(prompt="猫")
    visitor.button("go").click()
    expect(visitor.refusal("mask")).to_contain_text("塗ってください")
    visitor.paint()
    visitor.draw()
    visitor.find("summary").click()
    mask = np.array(Image.open(visitor.download("mask.png", tmp_path)))
    old, new = (np.array(Image.open(file)) for file in (picture, visitor.download("PNG", tmp_path)))
    assert (mask[SIZE // 2, SIZE // 2], mask[2, 2]) == (255, 0)
    assert np.array_equal(new[mask == 0], old[mask == 0])
    assert not np.array_equal(new[mask == 255], old[mask == 255])


def test_a_picture_goes_from_one_tab_to_the_next(visit, tmp_path):
    visitor = visit()
    visitor.draw(prompt="猫")
    first = np.array(Image.open(visitor.download("PNG", tmp_path)))
    visitor.find("button[data-do=picture]").click()
    visitor.tab = "picture"
    visitor.find(".field-image img").wait_for()
    expect(visitor.field("prompt")).to_have_value("猫")
    visitor.field("prompt_strength").fill("0")  # nothing is changed
    visitor.draw()
    assert np.array_equal(np.array(Image.open(visitor.download("PNG", tmp_path))), first)


def test_an_example_fills_the_fields(visit):
    visitor = visit()
    visitor.find(".examples button").first.click()
    visitor.button("go").click()  # at once: the prompt is there already
    expect(visitor.find("figure img")).to_have_attribute("alt", "富士山 浮世絵")
    visitor.open("picture")
    visitor.find(".examples button").first.click()
    expect(visitor.field("prompt")).to_have_value("城 水彩画")
    visitor.find(".field-image img").wait_for()


def test_nothing_is_fetched_from_elsewhere(visit, address):
    visitor = visit()
    visitor.open("repaint")
    visitor.find("canvas").first.wait_for()
    hosts = {urlsplit(url).netloc for url in visitor.asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}


def test_the_page_fits_a_phone(visit):
    visitor = visit(width=360, height=740)
    visitor.draw(prompt="猫")
    for tab in ("draw", "picture", "repaint"):
        visitor.open(tab)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360
    visitor.button("go").click()
    expect(visitor.refusal("image")).to_be_in_viewport()
