"""A pytest plugin for the tests of diffusers: with PEER=ours they get this project's pipelines and samplers.

`tests.peer` runs it. With PEER=stock the classes stay those of diffusers. In both, a small tokenizer made here stands
for the one that the tests fetch from the hub. The outcome of each test goes to the file that PEER_RESULTS names.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

HUB = "hf-internal-testing/tiny-random-clip"
LETTERS = 256
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
PIPELINES = ("Pipeline", "Img2ImgPipeline", "InpaintPipeline")

torch.set_num_threads(1)
outcomes: dict[str, str] = {}


def make_tokenizer(folder: str) -> None:
    """Write a tokenizer of single bytes, with a few pairs of them, in the format of CLIP's to `folder`."""
    # CLIP writes a byte as a character that can be seen: itself, or one from U+0100 on. The order is CLIP's too: some
    # tests compare pixels that depend on it.
    seen = [*range(33, 127), *range(161, 173), *range(174, LETTERS)]
    letters = [chr(byte) for byte in (*seen, *range(LETTERS, 2 * LETTERS - len(seen)))]
    merges = [("a", "n"), ("t", "h"), ("th", "e</w>"), ("e", "r"), ("i", "n"), ("q", "u")]
    tokens = [BEGIN, "<unk>", END, *letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    special = {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": END}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, **special)
    tokenizer.save_pretrained(folder)


folder = tempfile.TemporaryDirectory(prefix="peer-tokenizer-")  # removed when Python ends
HOME = folder.name
make_tokenizer(HOME)
fetch = transformers.CLIPTokenizer.from_pretrained.__func__


@classmethod
def from_home(cls: type, name: Any, *args: Any, **kwargs: Any) -> Any:
    return fetch(cls, HOME if name == HUB else name, *args, **kwargs)


transformers.CLIPTokenizer.from_pretrained = from_home


def through_ours(name: str, base: type) -> type:
    """Return a scheduler class whose objects `make_scheduler` makes, for the sampler `name`, from their config."""
    from jsd.schedulers import make_scheduler

    defaults = {key: one.default for key, one in inspect.signature(base.__init__).parameters.items() if key != "self"}

    class Through(base):
        @functools.wraps(base.__init__)
        def __init__(self, **config: Any):
            # A saved config has all settings, so those that the test leaves out are the defaults of the class.
            vars(self).update(vars(make_scheduler(name, defaults | config)))
            if left_out := [key for key in defaults if key not in config]:
                self.register_to_config(_use_default_values=left_out)

    Through.__name__ = next(kind for kind in base.__mro__ if kind.__module__.startswith("diffusers.")).__name__
    return Through


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Replace the classes under test."""
    if os.environ["PEER"] != "ours":
        return
    from jsd.genuine import pipelines
    from jsd.schedulers import SCHEDULERS

    drawing = {
        getattr(diffusers, f"StableDiffusion{kind}"): getattr(pipelines, f"JapaneseStableDiffusion{kind}")
        for kind in PIPELINES
    }
    sampling = {}
    for name, (base, _) in SCHEDULERS.items():
        made = through_ours(name, base)
        sampling[getattr(diffusers, made.__name__)] = made
    kinds = {kind for item in items if item.cls for kind in item.cls.__mro__ if kind.__module__.startswith("tests.")}
    for kind in kinds:
        if vars(kind).get("pipeline_class") in drawing:
            kind.pipeline_class = drawing[kind.pipeline_class]
        if vars(kind).get("scheduler_classes"):
            kind.scheduler_classes = tuple(sampling.get(one, one) for one in kind.scheduler_classes)
    # Tests name the classes too, for example to ask which one it is.
    for module in {sys.modules[kind.__module__] for kind in kinds}:
        ours = sampling if ".schedulers." in module.__name__ else drawing
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value in ours:
                setattr(module, name, ours[value])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the outcome of a test: failed if any of its stages did."""
    if (report.when == "call" or report.outcome != "passed") and outcomes.get(report.nodeid) != "failed":
        outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    """Write the outcomes."""
    Path(os.environ["PEER_RESULTS"]).write_text(json.dumps(outcomes))
