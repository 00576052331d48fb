"""Random JSON values in any field: a request is drawn, or it is refused with an error that names the field."""

import inspect
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import predict
from jsd import sampling
from jsd.errors import InputError, NaNError
from jsd.request import OUTPUT_FORMATS, SCHEDULER_NAMES, Request

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=40),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
PLAUSIBLE = {
    "prompt": st.text(min_size=1, max_size=60) | st.sampled_from(["猫", "</s>", "\u200d", "猫" * 2000, "猫" * 2001]),
    "negative_prompt": st.text(max_size=60),
    "width": st.sampled_from([64, 80, 96, 112, 63, 65, 1024, 1040]),
    "height": st.sampled_from([64, 80, 96, 112, 63, 65, 1024, 1040]),
    "num_outputs": st.integers(0, 3),
    "num_inference_steps": st.integers(-1, 4) | st.just(501),
    "guidance_scale": st.floats(0, 21) | st.integers(0, 21),
    "scheduler": st.sampled_from([*SCHEDULER_NAMES, "ddim", ""]),
    "seed": st.integers(-1, 2**53 + 1) | st.integers(-1, 4).map(float),
    "output_format": st.sampled_from([*OUTPUT_FORMATS, "jpeg"]),
    "output_quality": st.integers(-1, 102),
    "prompt_strength": st.floats(-0.1, 1.1),
    "guidance_interval": st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)).map(list),
    "image": st.none(),
    "mask": st.none(),
    "lora": st.none() | st.binary(max_size=20),
    "lora_scale": st.floats(-2.1, 2.1),
}


@st.composite
def inputs(draw) -> dict:
    """Some of the inputs. Most have plausible values, and up to two have any JSON value."""
    names = draw(st.sets(st.sampled_from(sorted(PLAUSIBLE)), max_size=6)) | {"prompt"}
    wild = draw(st.sets(st.sampled_from(sorted(names)), max_size=2))
    return {name: draw(ANY_JSON if name in wild else PLAUSIBLE[name]) for name in sorted(names)}


def small(values: dict) -> dict:
    """The same values with smaller pictures and fewer steps. A value that is not allowed stays as it is."""
    values = dict(values)
    for name, most in (("width", 112), ("height", 112), ("num_inference_steps", 4), ("num_outputs", 3)):
        value = values.get(name)
        if isinstance(value, int) and value > most:
            try:
                Request("猫", **{name: value})
            except InputError:
                continue
            values[name] = most
    return values


def attempt(make: Callable[[], Request]) -> tuple[Request | None, InputError | None]:
    """The request that `make` returns, or the error that refuses it."""
    try:
        return make(), None
    except InputError as error:
        return None, error


def check_message(error: InputError) -> None:
    """The message names the input, and it is one short line without control characters."""
    assert str(error).startswith(f"{error.name}: ")
    assert str(error).isprintable()
    assert len(str(error)) < 1000


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=inputs())
def test_random_values_are_drawn_or_refused_by_name(components, values):
    request, error = attempt(lambda: Request.from_dict(small(values)).resolve(components.defaults))
    if error:
        check_message(error)
        # Whether a size is allowed may depend on the other side, so the error may name either of them.
        assert error.name in {*values, "width", "height"}
        return
    try:
        result = sampling.generate(components, request)
    except NaNError:
        return
    assert len(result.images) == request.num_outputs
    assert {image.size for image in result.images} == {(request.width, request.height)}


@settings(max_examples=200, deadline=None)
@given(values=ANY_JSON)
def test_only_an_object_with_inputs_is_accepted_as_a_request(values):
    request, error = attempt(lambda: Request.from_dict(values))
    if error:
        check_message(error)
    else:
        assert request.prompt == values["prompt"]


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(PLAUSIBLE)), value=ANY_JSON)
def test_a_random_value_is_accepted_unchanged_or_refused_by_name(name, value):
    request, error = attempt(lambda: Request(**{"prompt": "猫", name: value}))
    if error:
        check_message(error)
        assert error.name == name
    else:
        taken = getattr(request, name)
        assert taken == (tuple(value) if isinstance(value, list) else value)


def test_every_input_of_the_predictor_is_covered():
    parameters = set(inspect.signature(predict.Predictor.predict).parameters) - {"self", "steps"}
    assert parameters | {"guidance_interval"} == set(PLAUSIBLE)
