"""What the page says beside its fields and how it looks in each language, in a real browser, with the tiny model."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from jsd.request import MAX_LORA
from tests.test_lora_request import broken

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize(("language", "words"), [("ja-JP", "描く"), ("fr-FR", "Draw")])
def test_the_page_speaks_the_language_of_the_browser(visit, language, words):
    visitor = visit(language)
    expect(visitor.button("go")).to_have_text(words)
    visitor.button("go").click()
    sentence = "文字が指定されました" if words == "描く" else "characters were given"
    expect(visitor.refusal("prompt")).to_contain_text(sentence)


def test_a_wrong_value_is_answered_beside_its_field(visit, tmp_path):
    visitor = visit("en-GB")
    visitor.fill(prompt="猫", seed="many")
    visitor.button("go").click()
    expect(visitor.refusal("seed")).to_contain_text("an integer is wanted")
    visitor.draw(seed="１２")
    expect(visitor.refusal("seed")).to_be_hidden()
    assert visitor.seed() == 12

    visitor.fill(negative_prompt="犬" * 2001)
    visitor.find("button.label-wrap").click()  # the settings are closed
    visitor.button("go").click()
    expect(visitor.refusal("negative_prompt")).to_contain_text("2001 characters")

    visitor.open("picture")
    visitor.fill(prompt="猫")
    visitor.button("go").click()
    expect(visitor.refusal("image")).to_contain_text("Choose a picture first")
    (tmp_path / "text.png").write_text("no picture")
    visitor.upload(tmp_path / "text.png")
    visitor.button("go").click()
    expect(visitor.refusal("image")).to_contain_text("Not a png, jpeg or webp file")


def test_a_file_that_is_no_adapter_is_refused_and_the_next_request_is_drawn(visit, components, tmp_path):
    visitor, file = visit(), tmp_path / "my-cat.safetensors"
    visitor.fill(prompt="猫", num_inference_steps=2)
    for kind, words in {"pickle": "ファイルではない", "other": "このモデル用", "nan": "有限でない"}.items():
        file.write_bytes(broken(components, kind, tmp_path))
        visitor.upload(file, "lora")
        visitor.button("go").click()
        expect(visitor.refusal("lora")).to_contain_text(words)
        visitor.remove("lora")
    visitor.draw()
    expect(visitor.refusal("lora")).to_be_hidden()
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(("language", "words"), [("ja-JP", "256 MB まで"), ("en-GB", "256 MB are allowed")])
def test_a_file_that_is_too_large_is_refused_before_it_is_uploaded(visit, tmp_path, language, words):
    visitor, file = visit(language), tmp_path / "huge.safetensors"
    with file.open("wb") as huge:
        huge.truncate(MAX_LORA + 1)
    visitor.show("lora")
    visitor.choose(file, "lora")
    expect(visitor.refusal("lora")).to_contain_text(words)
    assert not [address for address in visitor.asked if "/upload" in address]


@pytest.mark.parametrize("tab", ["draw", "repaint"])
def test_a_number_outside_its_range_is_answered_in_japanese(visit, tab, picture):
    visitor = visit()
    visitor.open(tab)
    if tab == "repaint":
        visitor.upload(picture)
        visitor.paint()
    visitor.fill(prompt="猫", num_outputs=5)
    visitor.button("go").click()
    expect(visitor.refusal("num_outputs")).to_contain_text("このページでは 4 までに")
