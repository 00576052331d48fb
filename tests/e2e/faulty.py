"""A Cog predictor that fails where the negative prompt tells it to: `fault STAGE KIND`, e.g. `fault decode memory`."""

import errno
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import predict
from jsd import images, sampling

STEP = 2  # the step that fails


def fail(kind: str) -> None:
    if kind == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if kind == "exception":
        raise RuntimeError("broken on purpose")
    if kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == "lost":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    if kind == "slow":
        print("on purpose slow")
        time.sleep(3)


def check(stage: str, text: str) -> str:
    """Cause the fault that `text`, a negative prompt, asks for at this stage: most kinds raise an error.

    Returns the kind if it raises none ("slow", "nan"), and "" if `text` asks for no fault here.
    """
    word, _, rest = text.partition(" ")
    asked, _, kind = rest.partition(" ")
    if word == "fault" and asked == stage:
        fail(kind)
        return kind
    return ""


def wrap(module, name: str, before) -> None:
    """Replace a function of a module by one that first calls `before` with the same arguments."""
    original = getattr(module, name)

    def wrapped(*arguments):
        before(*arguments)
        return original(*arguments)

    setattr(module, name, wrapped)


def before_step(components, jobs, rows) -> None:
    for job in jobs:
        if job.done == STEP and check("step", job.request.negative_prompt) == "nan":
            job.state = torch.full_like(job.state, float("nan"))


def before_decode(components, jobs, count) -> None:
    for job in jobs[:count]:
        check("decode", job.request.negative_prompt)


wrap(sampling, "prepare", lambda components, request: check("text", request.negative_prompt))
wrap(sampling, "step", before_step)
wrap(sampling, "decode_next", before_decode)
wrap(sampling, "judge", lambda components, job: check("safety", job.request.negative_prompt))
wrap(sampling, "seal", lambda components, job: check("watermark", job.request.negative_prompt))
wrap(images, "save", lambda image, path, format, quality, metadata: check("write", metadata["negative_prompt"]))


class Predictor(predict.Predictor):
    """The container's own predictor. It fails because this module has wrapped functions that it calls."""
