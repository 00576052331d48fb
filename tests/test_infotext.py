"""Programs that read A1111's text find our values in a picture file, and no prompt can state other ones."""

import re

import pytest
from PIL import Image

from jsd import images
from jsd.infotext import SAMPLERS, infotext
from jsd.request import SCHEDULER_NAMES, Request
from jsd.result import Result

LAST = "Steps: 8, Sampler: {}, CFG scale: 2.5, Seed: 9007199254740991, Size: 256x128, Model: tiny, Version: Japanese St"
FORGED = "猫\nNegative prompt: 犬\nSteps: 1, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 1x1, Model: x"
BREAKS = ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1e", "\x85", "\u2028", "\u2029", " "]


def result(prompt: str, negative_prompt: str = "", scheduler: str = "UNI_PC", **inputs: object) -> Result:
    request = Request(
        prompt,
        negative_prompt,
        width=256,
        height=128,
        num_inference_steps=8,
        guidance_scale=2.5,
        guidance_interval=(0, 1),
        scheduler=scheduler,
        seed=2**53 - 1,
        **inputs,
    )
    return Result([Image.new("RGB", (256, 128))], [request.seed], 0, request, "tiny")


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
def test_it_has_the_lines_and_the_names_of_a1111(scheduler):
    prompt, negative, values = infotext(result("猫の絵", "白黒", scheduler).metadata(0)).split("\n")
    assert (prompt, negative) == ("猫の絵", "Negative prompt: 白黒")
    assert values.startswith(LAST.format(SAMPLERS[scheduler]))


def test_an_empty_negative_prompt_has_no_line_and_image_to_image_has_its_strength():
    text = infotext(result("猫", image=Image.new("RGB", (8, 8)), prompt_strength=0.5).metadata(0))
    assert text.count("\n") == 1
    assert ", Denoising strength: 0.5," in text


def test_a_value_that_could_be_taken_for_several_is_quoted():
    assert infotext({"prompt": "猫", "model": 'a, Seed: 5\n"b"'}) == '猫\nModel: "a, Seed: 5\\n\\"b\\""'


@pytest.mark.parametrize("line_break", BREAKS)
def test_no_prompt_can_state_values(line_break):
    forged = FORGED.replace("\n", line_break)
    text = infotext(result(forged, forged).metadata(0))
    assert text.split("\n")[-1].startswith(LAST.format("UniPC"))
    assert re.findall(r"(?i)negative\s+prompt\s*:", text) == ["Negative prompt:"]
    for name, value in {"steps": "8", "seed": "9007199254740991", "sampler": "UniPC", "model": "tiny"}.items():
        assert re.findall(rf"(?i){name}\s*:\s*([^,\n]*)", text) == [value]


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("prompt", ["猫の肖像画　油絵 (猫:1.3)", FORGED])
def test_sd_parsers_reads_our_values(tmp_path, format, prompt):
    sd_parsers = pytest.importorskip("sd_parsers")
    made = result(prompt, scheduler="DPM_SOLVER_PP_2M_KARRAS")
    images.save(made.images[0], tmp_path / "out", format, 90, made.metadata(0))
    info = sd_parsers.ParserManager().parse(tmp_path / "out")
    (sampler,) = info.samplers
    assert (sampler.name, sampler.model.name) == ("DPM++ 2M Karras", "tiny")
    assert sampler.parameters == {"steps": "8", "cfg_scale": "2.5", "seed": "9007199254740991"}
    assert info.metadata["Size"] == "256x128"
    assert sampler.negative_prompts == []
    (read,) = sampler.prompts
    assert read.value.replace("：", ":") == prompt
