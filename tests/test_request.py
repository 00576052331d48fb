"""A request accepts a good value unchanged, and refuses a bad one by name before any work is done."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from jsd.errors import InputError
from jsd.request import MAX_PROMPT, MAX_SEED, MAX_STEPS, Defaults, Request

DEFAULTS = Defaults(width=256, height=512, num_inference_steps=8, guidance_scale=1.5, scheduler="UNI_PC", cell=16)

BAD = [
    ("prompt", ""),
    ("prompt", " \n\u3000\u200d\ufffc"),
    ("prompt", "あ" * (MAX_PROMPT + 1)),
    ("prompt", "猫\0"),
    ("prompt", "\ud800"),
    ("prompt", None),
    ("prompt", 5),
    ("negative_prompt", None),
    ("negative_prompt", "x" * (MAX_PROMPT + 1)),
    ("width", 63),
    ("width", 1025),
    ("width", 10**9),
    ("width", "512"),
    ("height", 0),
    ("height", 256.5),
    ("height", "256.0"),
    ("num_outputs", 0),
    ("num_outputs", 9),
    ("num_outputs", True),
    ("num_outputs", None),
    ("num_inference_steps", 0),
    ("num_inference_steps", -1),
    ("num_inference_steps", MAX_STEPS + 1),
    ("num_inference_steps", "5"),
    ("num_inference_steps", 1.5),
    ("guidance_interval", 0.5),
    ("guidance_interval", "01"),
    ("guidance_interval", [0.5]),
    ("guidance_interval", [0, 0.5, 1]),
    ("guidance_interval", [0.6, 0.5]),
    ("guidance_interval", [-0.1, 0.5]),
    ("guidance_interval", [0, 1.1]),
    ("guidance_interval", [0, float("nan")]),
    ("guidance_interval", [0, None]),
    ("guidance_scale", 0),
    ("guidance_scale", 0.99),
    ("guidance_scale", 20.1),
    ("guidance_scale", 1e308),
    ("guidance_scale", float("nan")),
    ("guidance_scale", float("inf")),
    ("guidance_scale", "7"),
    ("guidance_scale", True),
    ("guidance_scale", 10**400),
    ("scheduler", "ddim"),
    ("scheduler", ["DDIM"]),
    ("seed", -1),
    ("seed", 2**53),
    ("seed", 2.0**53),
    ("seed", 2**63),
    ("seed", 10**5000),
    ("seed", 1.5),
    ("seed", float("inf")),
    ("seed", float("nan")),
    ("output_format", "gif"),
    ("output_format", None),
    ("output_quality", 0),
    ("output_quality", 101),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BAD)])
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(InputError) as caught:
        Request(**{"prompt": "猫", name: value})
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}: ")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "猫"},
        {"prompt": "あ" * MAX_PROMPT, "negative_prompt": "  "},
        {"prompt": "👩‍🌾 مرحبا ﷺ </s> http://localhost"},
        {"width": 64, "height": 1024, "num_outputs": 8, "num_inference_steps": 500, "guidance_scale": 20},
        {"seed": MAX_SEED, "output_format": "webp", "output_quality": 1},
        {"seed": 0, "guidance_scale": 1, "scheduler": "LCM", "num_inference_steps": 1},
    ],
    ids=str,
)
def test_a_good_value_is_accepted_unchanged(values):
    values = {"prompt": "猫", **values}
    request = Request.from_dict(values)
    assert all(getattr(request, name) == value for name, value in values.items())


@pytest.mark.parametrize("kind", [float, np.int64, np.float32])
@pytest.mark.parametrize("name", ["width", "height", "num_outputs", "num_inference_steps", "seed", "output_quality"])
def test_a_number_without_a_fraction_is_an_integer(name, kind):
    value = 64 if name in ("width", "height") else 1
    taken = getattr(Request("猫", **{name: kind(value)}), name)
    assert (taken, type(taken)) == (value, int)


def test_a_seed_outside_the_limits_is_refused_with_the_reason_and_what_to_do():
    for seed in (-1, 2**53):
        with pytest.raises(InputError, match=f"seed: {seed} .*0 to 9007199254740991 are.*round.*leave seed out for"):
            Request("猫", seed=seed)


def test_jpeg_is_another_name_of_jpg():
    for name in ("jpeg", "JPEG", "JPG"):
        assert Request("猫", output_format=name).output_format == "jpg"


def test_unknown_inputs_are_named():
    with pytest.raises(InputError, match=r"'steps'.*'sampler'.*num_inference_steps"):
        Request.from_dict({"prompt": "猫", "steps": 5, "sampler": "DDIM"})


def test_null_means_the_default_for_every_input_of_a_mapping():
    nulls = dict.fromkeys(field.name for field in fields(Request))
    assert Request.from_dict(nulls | {"prompt": "猫"}) == Request("猫")


@pytest.mark.parametrize("values", [{}, {"seed": 1}, {"prompt": None}, ["prompt"], None, "猫"], ids=str)
def test_a_request_needs_a_mapping_with_a_prompt(values):
    with pytest.raises(InputError):
        Request.from_dict(values)


def test_a_message_escapes_and_shortens_the_value():
    with pytest.raises(InputError) as caught:
        Request("猫", scheduler="\x1b[31m\u202eDDIM\n" + "x" * 3_000_000)
    message = str(caught.value)
    assert "\\x1b[31m\\u202eDDIM\\n" in message
    assert message.isprintable()
    assert len(message) < 400


def test_the_seed_of_the_last_picture_must_be_in_range_too():
    assert Request("猫", seed=MAX_SEED - 7, num_outputs=8).seed == MAX_SEED - 7
    with pytest.raises(InputError, match="seed"):
        Request("猫", seed=MAX_SEED - 6, num_outputs=8)


def test_resolve_replaces_only_missing_values():
    resolved = Request("猫", width=128, guidance_scale=3.0, seed=5).resolve(DEFAULTS)
    assert (resolved.width, resolved.height) == (128, 512)
    assert (resolved.num_inference_steps, resolved.guidance_scale, resolved.scheduler) == (8, 3.0, "UNI_PC")
    assert resolved.seed == 5
    assert resolved.resolve(DEFAULTS) == resolved


def test_resolve_draws_a_new_seed_each_time():
    seeds = {Request("猫").resolve(DEFAULTS).seed for _ in range(20)}
    assert len(seeds) == 20
    assert 2**48 < max(seeds) < 2**53  # JavaScript and others round larger ones


@pytest.mark.parametrize("name", ["width", "height"])
def test_a_size_that_is_no_multiple_of_the_cell_is_refused_with_the_nearest_ones(name):
    with pytest.raises(InputError, match="multiples of 16, so take 128 or 144") as caught:
        Request("猫", **{name: 136}).resolve(DEFAULTS)
    assert caught.value.name == name


def test_a_guidance_scale_of_1_halves_the_rows():
    assert Request("猫", num_outputs=3, guidance_scale=1).resolve(DEFAULTS).rows == 3
    assert Request("猫", num_outputs=3).resolve(DEFAULTS).rows == 6
