"""Drawing for visitors, without a browser."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError

import pytest

from demo.__main__ import main
from demo.limits import Limits
from demo.studio import Progress, Studio, Visit
from jsd.engine import Engine
from jsd.errors import InputError, QueueFullError, SettingError
from jsd.request import Request

CAT = Request("猫", seed=1, num_inference_steps=40)


async def collect(drawing):
    return [news async for news in drawing]


def test_progress_comes_before_the_result(engine):
    *steps, result = asyncio.run(collect(Studio(engine, Limits()).draw("a", lambda: CAT)))
    assert steps[0] == Progress()
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert result.seeds == [1]


def test_the_time_left_is_that_of_the_steps_so_far():
    visit = Visit("a", steps=[(1, 9, 10.0), (3, 9, 11.0)])
    assert visit.progress() == Progress(3, 9, 3.0)
    assert Visit("a", steps=[(1, 9, 10.0)]).progress() == Progress(1, 9, None)


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_a_drawing_that_ends_early_frees_the_engine(engine, end):
    async def begin():
        studio = Studio(engine, Limits(queue=1))
        drawing = studio.draw("a", lambda: CAT)
        while (await anext(drawing)).done < 2:
            pass
        with pytest.raises(QueueFullError):
            await anext(studio.draw("b", lambda: CAT))
        if end == "close":
            await drawing.aclose()
        else:
            studio.cancel("b")
            studio.cancel("a")
            with pytest.raises(CancelledError):
                await collect(drawing)
        return await collect(studio.draw("b", lambda: Request("犬", num_inference_steps=2)))

    assert asyncio.run(begin())[-1].request.prompt == "犬"
    assert engine.running == 0


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request("猫", width=128, height=128), "width"),
        (Request("猫", num_outputs=3), "num_outputs"),
        (Request("猫", num_inference_steps=11), "num_inference_steps"),
    ],
)
def test_more_than_the_limits_is_refused(engine, request_, name):
    studio = Studio(engine, Limits(size=96, outputs=2, steps=10))
    with pytest.raises(InputError) as caught:
        asyncio.run(collect(studio.draw("a", lambda: request_)))
    assert caught.value.name == name
    oblong = Request("猫", width=128, height=64, num_inference_steps=1)
    assert asyncio.run(collect(studio.draw("a", lambda: oblong)))[-1].images


def test_limits_below_the_models_own_size_are_refused(spied):
    with Engine(spied, max_batch_rows=8) as engine, pytest.raises(SettingError, match="JSD_DEMO_MAX_SIZE: 63"):
        Studio(engine, Limits(size=63))


def test_a_wrong_setting_ends_the_command_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setenv("JSD_DEMO_MAX_QUEUE", "many")
    assert main([]) == 2
    assert (
        capsys.readouterr().err == "error: JSD_DEMO_MAX_QUEUE: 'many' was given; a number from 1 to 10000 is wanted\n"
    )


def test_the_limits_are_settings(monkeypatch):
    assert Limits.from_environment() == Limits()
    for name, value in (("SIZE", "512"), ("OUTPUTS", "2"), ("STEPS", "20"), ("QUEUE", "8")):
        monkeypatch.setenv(f"JSD_DEMO_MAX_{name}", value)
    monkeypatch.setenv("JSD_DEMO_LORA", "off")
    assert Limits.from_environment() == Limits(512, 2, 20, 8, lora=False)
    monkeypatch.setenv("JSD_DEMO_LORA", "no")
    with pytest.raises(SettingError, match="JSD_DEMO_LORA: 'no' was given; on or off is wanted"):
        Limits.from_environment()
    monkeypatch.delenv("JSD_DEMO_LORA")
    for wrong in ("0", "many", "２", "99999"):
        monkeypatch.setenv("JSD_DEMO_MAX_OUTPUTS", wrong)
        with pytest.raises(SettingError, match="JSD_DEMO_MAX_OUTPUTS"):
            Limits.from_environment()
