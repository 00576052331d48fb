"""A prompt written for another tool is read by its words, and the user is told what was taken out."""

import pytest

from jsd import sampling
from jsd.prompt import plain
from jsd.request import Request

FOREIGN = {
    # weights
    "(猫:1.3)": ("猫", ["(…:1.3)"]),
    "（猫：１．３）": ("猫", ["（…：１．３）"]),
    "(猫: 1.3 )と(犬:.5)": ("猫と犬", ["(…: 1.3 )", "(…:.5)"]),
    "((猫:1.2), 犬:1.1)の絵": ("猫, 犬の絵", ["(…:1.2)", "(…:1.1)"]),
    "猫:1.3, 犬:0.8": ("猫, 犬", [":1.3", ":0.8"]),
    "(猫)1.3 犬++": ("猫 犬", ["(…)1.3", "++"]),
    "((猫)) (((犬)))": ("猫 犬", ["((…))", "(((…)))"]),
    "[猫], {犬}, {{鳥}}": ("猫, 犬, 鳥", ["[…]", "{…}"]),
    "猫::2 犬:: 鳥": ("猫 犬 鳥", ["::2", "::"]),
    "1.5::猫::, 犬": ("猫, 犬", ["1.5::…::"]),
    # changes during the drawing, choices
    "[猫:犬:0.5]": ("猫 犬", ["[…:0.5]"]),
    "[猫::0.5]{犬|鳥}": ("猫 犬 鳥", ["[…:0.5]", "{…}"]),
    # adapters
    "<lora:ink:0.8>猫の絵": ("猫の絵", ["<lora:ink:0.8>"]),
    "猫, <lora:ink:1>, <hypernet:x:1>, 油絵": ("猫, 油絵", ["<lora:ink:1>", "<hypernet:x:1>"]),
    # commands
    "猫 --ar 16:9 --v 5.2 --tile": ("猫", ["--ar 16:9", "--v 5.2", "--tile"]),
    "猫 —ar 3:2": ("猫", ["—ar 3:2"]),
    "猫--style raw": ("猫", ["--style raw"]),
    "猫 --no 犬, 鳥 --niji 6": ("猫", ["--no 犬, 鳥", "--niji 6"]),
    "/imagine prompt: 猫 --tile": ("猫", ["/imagine prompt:", "--tile"]),
    "猫 AND 犬": ("猫 犬", ["AND"]),
    "猫 :1.2 AND 犬 :0.8": ("猫 犬", [":1.2", ":0.8", "AND"]),
    "猫, BREAK\n油絵": ("猫, 油絵", ["BREAK"]),
    # a whole text of settings
    "猫\nNegative prompt: 犬\nSteps: 20, Sampler: Euler a": (
        "猫",
        ["Negative prompt: 犬", "Steps: 20, Sampler: Euler a"],
    ),
    "--ar 16:9": ("", ["--ar 16:9"]),
}
ORDINARY = [
    "猫の肖像画　油絵",
    "（笑）",
    "(猫)",
    "東京タワー(夜)と「猫」【油絵】『犬』",
    "猫[1]",
    "10:30の時計 (10:30)",
    "比率 16:9",
    "(エピソード:4)",
    "ヨハネ3:16",
    "猫 --かわいい --neko",
    "ねこ--いぬ",
    "COFFEE BREAK, ROCK AND ROLL",
    "C++の本",
    "(^o^)/",
    "a -> b",
    "2 > 1 < 3",
    "http://example.jp/a:8080",
    " 猫 ,  犬 ",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_the_words_stay_and_the_syntax_is_named(text):
    assert plain(text) == FOREIGN[text]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text):
    assert plain(text) == (text, [])


def test_an_escaped_bracket_is_a_bracket():
    assert plain("初音ミク \\(歌手\\)") == ("初音ミク (歌手)", [])


def test_the_syntax_makes_no_difference_to_the_picture(components):
    bare, foreign = (
        sampling.generate(components, Request(prompt, negative_prompt=negative, seed=1))
        for prompt, negative in (("猫 油絵", "白黒"), ("(猫:1.3) 油絵 <lora:ink:1>", "((白黒)) --v 5"))
    )
    assert foreign.images[0].tobytes() == bare.images[0].tobytes()
    assert bare.metrics()["removed_syntax"] == []
    assert foreign.metrics()["removed_syntax"] == ["--v 5", "((…))", "<lora:ink:1>", "(…:1.3)"]
