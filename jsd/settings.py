"""What the deployer chooses, from the environment: `load_components` and `make_engine` read it.

| variable | default | allowed |
|---|---|---|
| JSD_WEIGHTS | weights/japanese-stable-diffusion if there, else weights/embedded | a model folder |
| JSD_DEVICE | cuda if there is one, else cpu | what torch.device takes |
| JSD_DTYPE | fp16 on a GPU, fp32 on a CPU | fp16, bf16, fp32 |
| JSD_LORA | none | a .safetensors adapter for the UNet (`python -m jsd train lora`) |
| JSD_SAFETY_CHECKER | on | on, off |
| JSD_MAX_BATCH | 16 on a CPU, what fits on a GPU | UNet rows a call, 1 or more; an image with guidance is two |
| JSD_COMPILE | off | on (1), off (0): torch.compile of the UNet's blocks; minutes at the start, for a GPU |
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jsd import watermark, weights
from jsd.manifest import begin_verification
from jsd.memory import without_collector
from jsd.request import SettingError, shown

if TYPE_CHECKING:
    from jsd.engine import Engine
    from jsd.weights import Components

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def load_components(folder: str | Path | None = None) -> Components:
    """The model chosen by the environment, or the one in `folder`, verified, loaded and announced on stdout.

    Raises `WeightsError` for a bad model folder, `SettingError` for any bad setting, `RuntimeError` if the watermark
    can't be computed here.
    """
    return _begin_loading(folder)()


def _begin_loading(folder: str | Path | None = None) -> Callable[[], Components]:
    """Begin what `load_components` does: what is returned waits for the end of it, and can be called on the thread that
    the model will compute on.
    """
    dtype = _choice("JSD_DTYPE", None, DTYPES)  # all told before the seconds that loading takes
    checked = _choice("JSD_SAFETY_CHECKER", "on", ("on", "off")) == "on"
    compiled = _choice("JSD_COMPILE", "off", ("on", "1", "off", "0")) in ("on", "1")
    lora = os.environ.get("JSD_LORA") or None
    max_batch_rows()
    verification = begin_verification(weights.find_weights(folder))  # goes on while this thread imports
    import torch

    device = os.environ.get("JSD_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise SettingError(f"JSD_DEVICE: {shown(device)} can't be used ({error}); try cpu or cuda") from error
    if dtype is None:
        dtype = "fp32" if torch.device(device).type == "cpu" else "fp16"
    watermark.package()  # imported now, so that it fails before the first picture is drawn and not after
    loading = weights.begin_loading(verification, device, getattr(torch, DTYPES[dtype]), checked)

    def finish() -> Components:
        _quiet()
        components = loading.finish(lora)
        facts = [f"weights {verification.folder} ({components.name})", f"device {device}", dtype]
        facts.append("safety checker on" if checked else "safety checker off")
        facts += [f"LoRA {lora}"] if lora else []
        if compiled:
            _compile(components)
            facts.append("compiled")
        print(", ".join(facts), flush=True)
        return components

    return finish


def _quiet() -> None:
    """No progress bars, one a model part: they bury what the log has to say."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()


def _compile(components: Components) -> None:
    """Compile the UNet's blocks for any batch and size, and draw once, so that nobody's request waits for it."""
    import torch

    from jsd import capacity

    torch._inductor.config.fx_graph_cache = False  # it holds pickles
    components.unet.compile_repeated_blocks(dynamic=True)
    for rows in (1, 2, 3):
        capacity.run_unet(components, rows)


def make_engine(on_lost: Callable[[Exception], None] = lambda error: None) -> Engine:
    """An engine with the model chosen by the environment. Raises what `load_components` raises."""
    rows = max_batch_rows()
    with without_collector():
        finish = _begin_loading()  # goes on while libraries are imported
        from jsd.engine import Engine

        return Engine(finish, max_batch_rows=rows, on_lost=on_lost)


def max_batch_rows() -> int | None:
    """How many UNet rows one call may have, None when that is left to measurement. Raises `SettingError`."""
    rows = os.environ.get("JSD_MAX_BATCH")
    if not rows:
        return None
    if not (rows.isdecimal() and rows.isascii() and len(rows) < 10 and int(rows) >= 1):
        raise SettingError(f"JSD_MAX_BATCH: {shown(rows)} was given; a number of UNet rows, 1 or more, is wanted")
    return int(rows)


def _choice(name: str, default: str | None, allowed: object) -> str | None:
    value = os.environ.get(name) or default
    if value is not default and value not in allowed:
        raise SettingError(f"{name}: {shown(value)} was given; allowed are {', '.join(allowed)}")
    return value
