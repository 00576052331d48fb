"""The steps of a sampler as numbers, known before the first one, so that many requests take their step in one product.

Every sampler here is linear. The next latents, and each tensor that a scheduler keeps for later steps, are weighted
sums of x_t, of the kept tensors, of the UNet's prediction and of noise. The weights depend on the timesteps alone. So
the scheduler of diffusers runs once, on unit vectors instead of latents, and what comes out are its weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from diffusers import SchedulerMixin

from jsd.schedulers import make_scheduler, set_timesteps, takes_generator

KEPT = 6  # the most tensors that a scheduler keeps between steps: K_LMS keeps four, UNI_PC its order plus one
FEWEST = 4  # steps that an image to image request makes, if it has so many
ROWS, COLUMNS = 1 + KEPT, 2 + KEPT  # a step makes x and the kept tensors from x, the kept tensors and the prediction


@dataclass(frozen=True)
class Schedule:
    """The steps of a sampler. There is one step per UNet call. All tensors are float32, on the CPU.

    `steps` is (steps, ROWS * COLUMNS + 2): in each row the weights of `advance`, then the timestep, then the factor of
    the UNet's input. `noise` holds the factor of the noise that a step adds. `noised` holds two factors per step: a
    clean picture times the first plus noise times the second is a picture at the step's noise level. `init_noise_sigma`
    is the standard deviation of the start latents of text to image.
    """

    timesteps: tuple[float, ...]
    steps: torch.Tensor
    noise: tuple[float, ...]
    noised: tuple[tuple[float, float], ...]
    init_noise_sigma: float


def make_schedule(name: str, config: Mapping[str, Any], steps: int, strength: float = 1.0) -> Schedule:
    """Return the schedule of the sampler `name` (a key of SCHEDULERS), for a model's scheduler config.

    With a `strength` below 1 the schedule begins at this share of the training timesteps, not at pure noise. Then it
    has the same share of the `steps`, rounded up, but at least FEWEST of them, because fewer draw badly. Only LCM makes
    a single step well. At a strength of 0 there are no steps. Raises `InputError` if the sampler can't sample the
    model's noise. Schedules are cached.
    """
    return _make(name, json.dumps(dict(config), sort_keys=True, default=list), steps, strength)


@lru_cache(256)
def _make(name: str, config: str, steps: int, strength: float) -> Schedule:
    if strength == 0:
        return Schedule((), torch.empty(0, ROWS * COLUMNS + 2), (), (), 1.0)
    settings = json.loads(config)
    if strength < 1:
        fewest = 1 if name == "LCM" else min(steps, FEWEST)
        steps = max(math.ceil(round(steps * strength, 6)), fewest)
        scheduler = make_scheduler(name, settings, _levels(settings.get("num_train_timesteps", 1000), steps, strength))
    else:
        scheduler = make_scheduler(name, settings)
    set_timesteps(scheduler, steps)
    timesteps, rows, noise, noised = [], [], [], []
    # The last coordinate belongs to the noise alone.
    unit = torch.eye(COLUMNS + 1).reshape(COLUMNS + 1, 1, COLUMNS + 1, 1, 1)
    generator = torch.Generator()
    drawn = torch.randn(unit[0].shape, generator=generator.manual_seed(0)).flatten()
    arguments = {"generator": generator} if takes_generator(scheduler) else {}
    for t in scheduler.timesteps:
        x, *kept, eps = unit[:COLUMNS]
        for (place, key), vector in zip(_kept(scheduler, x.shape), kept, strict=False):
            place[key] = vector
        noised.append(tuple(scheduler.add_noise(x, eps, t[None]).flatten()[[0, COLUMNS - 1]].tolist()))
        scale = scheduler.scale_model_input(x, t).flatten()[:1]
        generator.manual_seed(0)
        x_next = scheduler.step(eps, t, x, return_dict=False, **arguments)[0].flatten()
        added = float(x_next[-1] / drawn[-1])
        kept = [place[key].flatten() for place, key in _kept(scheduler, x.shape)]
        weights = torch.zeros(ROWS, COLUMNS)
        weights[: 1 + len(kept)] = torch.stack([x_next - added * drawn, *kept])[:, :-1]
        timesteps.append(float(t))
        rows.append(torch.cat([weights.flatten(), t.float()[None], scale]))
        noise.append(added)
    return Schedule(tuple(timesteps), torch.stack(rows), tuple(noise), tuple(noised), float(scheduler.init_noise_sigma))


def _levels(trained: int, steps: int, strength: float) -> int:
    """Return how many of `trained` timesteps a schedule of `steps` has below the noise level `strength`.

    A multiple of `steps` is taken if there is one within a hundredth of `trained`, because some schedulers of diffusers
    round the distance of two steps down. Others make a step too many for some numbers, which are passed over.
    """
    levels = min(max(round(strength * trained), steps), trained - 1)
    multiple = round(levels / steps) * steps
    if abs(multiple - levels) <= trained / 100 and steps <= multiple < trained:
        return multiple
    while len(np.arange(levels, 0, -levels / steps)) > steps:
        levels -= 1
    return levels


def _kept(scheduler: SchedulerMixin, shape: torch.Size) -> Iterator[tuple[Any, Any]]:
    """Yield the place (a dict or list) and the key of each tensor of `shape` that a scheduler keeps for later steps."""
    for name, value in vars(scheduler).items():
        place, keys = (value, range(len(value))) if isinstance(value, list) else (vars(scheduler), [name])
        for key in keys:
            if isinstance(place[key], torch.Tensor) and place[key].shape == shape:
                yield place, key


def advance(weights: torch.Tensor, state: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Return the state after one step of each picture's own schedule, without the noise that the step may add.

    `state`, (n, ROWS, c, h, w), holds x_t and the kept tensors of n pictures, `eps`, (n, c, h, w), the predictions for
    them, and `weights` is (n, ROWS * COLUMNS). All are float32.
    """
    columns = torch.cat([state, eps[:, None]], dim=1).flatten(2)
    return torch.bmm(weights.reshape(-1, ROWS, COLUMNS), columns).view_as(state)
