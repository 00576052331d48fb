"""A prompt written for another tool is read by its words, and the user is told what was taken out."""

import pytest

from jsd import sampling
from jsd.errors import InputError
from jsd.prompt import plain
from jsd.request import Request

FOREIGN = {
    # weights
    "(猫:1.3)": ("猫", ["(…:1.3)"]),
    "（猫：１．３）": ("猫", ["（…：１．３）"]),
    "(猫: 1.3 )と(犬:.5)": ("猫と犬", ["(…: 1.3 )", "(…:.5)"]),
    "((猫:1.2), 犬:1.1)の絵": ("猫, 犬の絵", ["(…:1.2)", "(…:1.1)"]),
    "(猫:1.), (犬:1,3)": ("猫, 犬", ["(…:1.)", "(…:1,3)"]),
    "(ガンダム00:1.3) (year 2023:1.2)": ("ガンダム00 year 2023", ["(…:1.3)", "(…:1.2)"]),
    "(黒猫:1), (犬:1.3)": ("黒猫, 犬", ["(…:1)", "(…:1.3)"]),
    "(fate \\(series\\):1.2)": ("fate (series)", ["(…:1.2)"]),
    "(猫 (黒):1.3)": ("猫 (黒)", ["(…:1.3)"]),
    "((猫, 犬):1.2)": ("猫, 犬", ["((…):1.2)"]),
    "(((猫)):1.3)": ("猫", ["(((…)):1.3)"]),
    "((猫:1.3)": ("(猫", ["(…:1.3)"]),
    "猫:1.3, 「初音ミク39:0.8」": ("猫, 「初音ミク39」", [":1.3", ":0.8"]),
    "(猫)1.3 犬++": ("猫 犬", ["(…)1.3", "++"]),
    "((猫)) (((犬)))": ("猫 犬", ["((…))", "(((…)))"]),
    "[猫], {犬}, {{鳥}}": ("猫, 犬, 鳥", ["[…]", "{…}", "{{…}}"]),
    "猫::2 犬:: 鳥": ("猫 犬 鳥", ["::2", "::"]),
    "猫::2犬::1": ("猫 犬", ["::2", "::1"]),
    "猫::犬, hot::dog": ("猫 犬, hot dog", ["::"]),
    "1.5::猫::, 犬": ("猫, 犬", ["1.5::…::"]),
    # changes during the drawing, choices
    "[猫:犬:0.5]": ("猫 犬", ["[…:0.5]"]),
    "[猫::0.5]{犬|鳥}": ("猫 犬 鳥", ["[…:0.5]", "{…}"]),
    "[猫:犬:10]": ("猫 犬", ["[…:10]"]),
    "[猫::10]": ("猫", ["[…:10]"]),
    "[10:30の時計:猫:0.5]": ("10:30の時計 猫", ["[…:0.5]"]),
    "{2$$猫|犬}": ("猫 犬", ["{…}"]),
    "{0.5::猫|0.3::(犬:1.2)の絵}": ("猫 犬の絵", ["(…:1.2)", "{…}"]),
    "猫.swap(犬, s_end=0.5)": ("猫 犬", [".swap(…, s_end=0.5)"]),
    "(猫, 犬).blend(1, .5)": ("猫, 犬", ["(…).blend(1, .5)"]),
    "__animal__ 油絵": ("油絵", ["__animal__"]),
    # adapters
    "<lora:ink:0.8>猫の絵": ("猫の絵", ["<lora:ink:0.8>"]),
    "猫, <lora:ink:1>, <hypernet:x:1>, 油絵": ("猫, 油絵", ["<lora:ink:1>", "<hypernet:x:1>"]),
    "<lora:ink:0.8 猫": ("猫", ["<lora:ink:0.8"]),
    "<lora-ink:0.8>猫< LyCORIS:my style:1>": ("猫", ["<lora-ink:0.8>", "< LyCORIS:my style:1>"]),
    "<lo\u200bra:x:1>猫": ("猫", ["<lora:x:1>"]),
    "(embedding:x:1.2), (<lora:x:1>), 猫": ("猫", ["<lora:x:1>", "embedding:x", "(… :1.2)"]),
    # commands
    "猫 --ar 16:9 --v 5.2 --tile": ("猫", ["--ar 16:9", "--v 5.2", "--tile"]),
    "猫 —ar 3:2": ("猫", ["—ar 3:2"]),
    "猫 –ar 16:9": ("猫", ["–ar 16:9"]),
    "猫 －－ar 16:9 −−tile": ("猫", ["－－ar 16:9", "−−tile"]),
    "猫 --AR16:9--V 5、油絵": ("猫、油絵", ["--AR16:9", "--V 5"]),
    "猫 --niji 油絵 --p": ("猫 油絵", ["--niji", "--p"]),
    "猫 --zoom 2 --loop --steps 30 --cfg 7": ("猫", ["--zoom 2", "--loop", "--steps 30", "--cfg 7"]),
    "猫 --sref https://a.jp/1.png https://a.jp/2.png 犬": (
        "猫 犬",
        ["--sref https://a.jp/1.png https://a.jp/2.png"],
    ),
    "猫 -s50 -W512": ("猫", ["-s50", "-W512"]),
    "猫--style raw": ("猫", ["--style raw"]),
    "猫 --no 犬, 鳥 --niji 6": ("猫", ["--no 犬, 鳥", "--niji 6"]),
    "/imagine prompt: 猫 --tile": ("猫", ["/imagine prompt:", "--tile"]),
    "/imagine prompt:猫": ("猫", ["/imagine prompt:"]),
    "猫 AND 犬": ("猫 犬", ["AND"]),
    "猫AND犬 ADDCOMM 鳥 AND_SALT 馬": ("猫 犬 鳥 馬", ["AND", "ADDCOMM", "AND_SALT"]),
    "猫 :1.2 AND 犬 :0.8": ("猫 犬", ["AND", ":1.2", ":0.8"]),
    "猫, BREAK\n油絵": ("猫, 油絵", ["BREAK"]),
    # a whole text of settings
    "猫\nNegative prompt: 犬\nSteps: 20, Sampler: Euler a": (
        "猫",
        ["Negative prompt: 犬", "Steps: 20, Sampler: Euler a"],
    ),
    "猫 Negative prompt: 犬 Steps: 20, Sampler: Euler a": (
        "猫",
        ["Negative prompt: 犬", "Steps: 20, Sampler: Euler a"],
    ),
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
    "3:1の比率",
    "(16:9) [16:9] [10, 20]",
    "F値:2.8",
    "気温：-2.5",
    "エヴァンゲリオン新劇場版:2.0",
    "(エヴァンゲリオン:1)",
    "（ドラゴンクエスト：2）",
    "<title:猫>",
    "Tシャツ --s サイズ",
    "Rock AND Roll",
    "猫 --かわいい --neko",
    "ねこ--いぬ",
    "COFFEE BREAK, ROCK AND ROLL",
    "C++の本, c++ の本",
    "(^o^)/ \\(^o^)/ (:3)",
    "(((( ;ﾟдﾟ)))) (((o(*ﾟ▽ﾟ*)o))) T__T",
    "絵文字👩\u200d🌾",
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


@pytest.mark.parametrize("text", ["--ar 16:9", "<lora:x:1>, (embedding:x:1.2)", "Negative prompt: 白黒"])
def test_a_prompt_without_words_is_refused(components, text):
    with pytest.raises(InputError, match=r"prompt: .*syntax of other tools: '(--ar 16:9|<lora:x:1>|Neg.* 白黒)"):
        sampling.prepare(components, Request(text))
    assert sampling.prepare(components, Request("猫", negative_prompt=text)).reading["removed"]


def test_the_syntax_makes_no_difference_to_the_picture(components):
    bare, foreign = (
        sampling.generate(components, Request(prompt, negative_prompt=negative, seed=1))
        for prompt, negative in (("猫 油絵", "白黒"), ("(猫:1.3) 油絵 <lora:ink:1>", "((白黒)) --v 5"))
    )
    assert foreign.images[0].tobytes() == bare.images[0].tobytes()
    assert bare.metrics()["removed_syntax"] == []
    assert foreign.metrics()["removed_syntax"] == ["--v 5", "((…))", "<lora:ink:1>", "(…:1.3)"]
