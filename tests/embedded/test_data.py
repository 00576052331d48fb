"""The concepts, drawings, styles and captions that the embedded model is trained on."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from embedded import pictures
from embedded.captions import ENGLISH, JAPANESE, caption, prompt_for, prompt_for_two, swap_kana
from embedded.drawings import SIZE, Concept, Drawing, codepoints, load_concepts
from embedded.styles import COLOURS, PAIRS, STYLES, render

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="3" fill="{}"/></svg>'


def drawing(concept: str = "ball", colour: str = "#d02020", icon_set: str = "noto", face: bool = False) -> Drawing:
    names = {"ball": ("玉", "たま", "ボール"), "moon": ("月", "つき")}[concept]
    return Drawing(Concept(concept, ("o",), names, (concept,)), icon_set, "o", face, SVG.format(colour))


def test_there_are_many_concepts_and_no_name_is_shared():
    concepts = load_concepts()
    assert len(concepts) >= 300
    assert len({c.id for c in concepts}) == len(concepts)
    owner = {}
    for concept in concepts:
        for name in concept.ja:
            key = unicodedata.normalize("NFKC", name).lower()
            assert owner.setdefault(key, concept.id) == concept.id, f"{name} names {owner[key]} and {concept.id}"


def test_the_concepts_include_japanese_things():
    names = {name for concept in load_concepts() for name in concept.ja}
    wanted = (
        "富士山 東京タワー 城 鳥居 桜 鯉のぼり 門松 ひな祭り 風鈴 鬼 天狗 寿司 おにぎり 団子 おでん ラーメン "
        "温泉 提灯 着物 新幹線 サラリーマン 猫 ねこ ネコ にゃんこ"
    )
    assert set(wanted.split()) <= names


def test_the_key_of_an_emoji_has_no_variation_selector():
    assert codepoints("⛩️") == "26e9"
    assert codepoints("👨‍💼") == "1f468-200d-1f4bc"


def test_a_drawing_is_transparent_around_its_figure():
    rgba = np.asarray(drawing().rgba)
    assert rgba.shape == (SIZE, SIZE, 4)
    assert rgba[2, 2, 3] == 0
    assert rgba[SIZE // 2, SIZE // 2].tolist() == [208, 32, 32, 255]


def test_every_style_keeps_the_size_and_differs_from_all_others():
    rgba = drawing().rgba
    rendered = {style: render(rgba, style) for style in [*STYLES, *PAIRS]}
    assert {(picture.mode, picture.size) for picture in rendered.values()} == {("RGB", (SIZE, SIZE))}
    arrays = {style: np.asarray(picture, float) for style, picture in rendered.items()}
    for style, picture in arrays.items():
        nearest = min((np.abs(picture - other).mean(), name) for name, other in arrays.items() if name != style)
        assert nearest[0] > 1, (style, nearest)


def test_styles_are_deterministic_and_match_their_names():
    rgba = drawing().rgba
    assert render(rgba, "oil").tobytes() == render(rgba, "oil").tobytes()
    blue = render(rgba, "blue")
    assert blue.getpixel((2, 2)) == COLOURS["blue"]
    grey = np.asarray(render(rgba, "monochrome"))
    assert (grey[..., 0] == grey[..., 1]).all()
    cells = np.asarray(render(rgba, "pixel").resize((32, 32), Image.NEAREST).resize((SIZE, SIZE), Image.NEAREST))
    assert (cells == np.asarray(render(rgba, "pixel"))).all()


def test_one_pair_in_ten_is_held_out_and_never_rendered():
    ids = [concept.id for concept in load_concepts()]
    styles = [style for style in STYLES if style != "plain"]
    share = np.mean([pictures.held_out(i, style) for i in ids for style in styles])
    assert 0.08 < share < 0.12
    assert not any(pictures.held_out(i, "plain") for i in ids)
    for concept in ("ball", "moon"):
        rendered = pictures.styles_of(drawing(concept))
        assert "plain" in rendered
        assert not any(pictures.held_out(concept, part) for style in rendered for part in style.split("+"))


def test_pictures_are_rendered_again_only_when_the_drawings_change(tmp_path):
    first = pictures.build(tmp_path, [drawing(), drawing("moon", "#ffee00")], workers=1)
    assert first.images.shape == (len(first.style), SIZE, SIZE, 3)
    assert np.array_equal(first.images[0], np.asarray(render(drawing().rgba, first.style[0])))
    written = (tmp_path / "pictures.npy").stat().st_mtime_ns
    again = pictures.build(tmp_path, [drawing(), drawing("moon", "#ffee00")], workers=1)
    assert again.drawings == first.drawings
    assert (tmp_path / "pictures.npy").stat().st_mtime_ns == written
    changed = pictures.build(tmp_path, [drawing(colour="#2020d0")], workers=1)
    assert set(changed.drawings) == {(0,)}
    assert np.array_equal(changed.images[0], np.asarray(render(drawing(colour="#2020d0").rgba, changed.style[0])))


def test_a_prompt_is_composed_of_name_style_and_background():
    ball = drawing().concept
    assert prompt_for(ball, "plain") == "玉"
    assert prompt_for(ball, "oil") == "玉 油絵"
    assert prompt_for(ball, "blue") == "青い背景の玉"
    assert prompt_for(ball, "oil+blue") == "青い背景の玉 油絵"
    assert prompt_for(ball, "oil+blue", ENGLISH) == "ball on a blue background, oil painting"
    assert prompt_for_two((ball, drawing("moon").concept)) == "玉と月"


@pytest.mark.parametrize("style", ["plain", "oil", "blue", "oil+blue"])
def test_captions_name_the_concept_and_the_style(style):
    rng = np.random.default_rng(0)
    names = [unicodedata.normalize("NFKC", n) for name in drawing().concept.ja for n in (name, swap_kana(name))]
    named = 0
    for _ in range(300):
        text = unicodedata.normalize("NFKC", caption((drawing(),), style, rng))
        styled = all(
            any(word in text for word in {**JAPANESE.colours, **JAPANESE.styles}[part])
            for part in style.split("+")
            if part != "plain"
        )
        assert styled, text
        named += any(name in text for name in names)
    assert named >= (300 if style == "plain" else 285)  # a few name only the style


def test_captions_vary():
    rng = np.random.default_rng(0)
    assert len({caption((drawing(),), "oil", rng) for _ in range(200)}) > 120


def test_kana_are_swapped_only_in_names_of_one_kana():
    assert swap_kana("ねこ") == "ネコ"
    assert swap_kana("ラーメン") == "らーめん"
    assert swap_kana("子ねこ") == "子ねこ"
