"""The settings of a deployment: the environment variables JSD_*, which the README lists ("Settings")."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jsd.cpu import EXACT, core_limit, faster_type, tune
from jsd.errors import SettingError, shown
from jsd.language import LANGUAGES, Text, english
from jsd.manifest import begin_verification, find_weights

if TYPE_CHECKING:
    import torch

    from jsd.engine import Engine
    from jsd.model import Components

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
NO_GPU = Text(
    "WARNING: this image was built for an NVIDIA GPU, and torch finds none: pictures are drawn on the CPU, slowly. "
    "Run the container with --gpus all, on a host whose NVIDIA driver is 580.65 or newer (nvidia-smi shows it). "
    "JSD_DEVICE=cuda makes this an error; JSD_DEVICE=cpu says that the CPU is meant."
)


def make_engine(on_lost: Callable[[Exception], None] = lambda error: None) -> Engine:
    """Start an `Engine` with the model that the environment chooses. Raises the errors of `load_components`.

    The engine's own thread loads the model: OpenMP keeps workers for every thread that ever computed, and two sets of
    workers on the same cores would make a step take twice as long (docs/speed.md).
    """
    rows = max_batch_rows()
    with without_collector():
        load = _begin_loading(told=english)  # hashes while the engine's libraries are imported
        from jsd.engine import Engine

        return Engine(load, max_batch_rows=rows, on_lost=on_lost)


def load_components(folder: str | Path | None = None) -> Components:
    """Load the model that the environment chooses, or the one in `folder`. Prints a line about it.

    Raises `SettingError` for a wrong setting, and `WeightsError` for a bad model folder.
    """
    with without_collector():
        return _begin_loading(folder)()


def _begin_loading(folder: str | Path | None = None, told: Callable[[object], str] = str) -> Callable[[], Components]:
    """Check the settings that need no torch, start to hash the weights, and return a function that loads the model.
    `told` returns what is printed of a sentence.
    """
    # OpenMP's threads wait for each other by spinning, for milliseconds: where another program uses the cores too, they
    # take the time of the very thread they wait for. So they sleep sooner (docs/speed.md). libgomp reads this when
    # torch loads it.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    check_language()
    dtype = _choice("JSD_DTYPE", None, DTYPES)
    checked = _choice("JSD_SAFETY_CHECKER", "on", ("on", "off")) == "on"
    compiled = _choice("JSD_COMPILE", "off", ("on", "1", "off", "0")) in ("on", "1")
    graphed = _choice("JSD_CUDA_GRAPHS", "on", ("on", "off")) == "on"
    lora, lora_scale = os.environ.get("JSD_LORA") or None, _lora_scale()
    max_batch_rows()
    verification = begin_verification(find_weights(folder))

    def finish() -> Components:
        import torch

        from jsd import model

        limit = core_limit()
        if limit and not os.environ.get("OMP_NUM_THREADS"):  # more threads than cores would wait for each other
            torch.set_num_threads(min(limit, torch.get_num_threads()))
        device = _device(told)
        on_cpu = device.type == "cpu"
        name, why = dtype or "fp16", ""
        if on_cpu and not dtype:
            name, why = faster_type(verification.config("unet/config.json"))
        if on_cpu and dtype == "fp16":
            why = Text("slow on CPUs without units for it; leave JSD_DTYPE out")
        types = dict.fromkeys(model.PARTS, getattr(torch, DTYPES[name]))
        if on_cpu and name == "bf16":
            types |= dict.fromkeys(EXACT, torch.float32)
        components = model.load(verification, device, types, checked, lora, lora_scale, halved_checker=on_cpu)
        facts = [Text("weights {} ({})", verification.folder, components.name), Text("device {}", device)]
        facts.append(Text("{} ({})", name, why) if why else name)
        facts.append(Text("safety checker on") if checked else Text("safety checker off"))
        facts += [f"LoRA {lora}" + f" x {lora_scale:g}" * (lora_scale != 1)] if lora else []
        if on_cpu and name == "bf16" and not compiled:
            facts += tune(components.unet)
        if compiled:
            _compile(components)
            facts.append(Text("compiled"))
        if graphed and device.type == "cuda":
            from jsd.graphs import CudaRecorder, GraphedUNet, rows_to_record

            components.unet = GraphedUNet(components.unet, CudaRecorder(device), rows_to_record(components.unet))
            facts.append("CUDA graphs")
        print(", ".join(map(told, facts)), flush=True)
        return components

    return finish


def _device(told: Callable[[object], str]) -> torch.device:
    import torch

    name = os.environ.get("JSD_DEVICE")
    if not name:
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and os.environ.get("JSD_BUILT_FOR") == "cuda":  # as cog.yaml says
            print(told(NO_GPU), flush=True)
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:
        raise SettingError(
            "JSD_DEVICE: {} can't be used ({}); take cpu, or cuda where torch finds an NVIDIA GPU", shown(name), error
        ) from error
    return torch.device(name)


def _compile(components: Components) -> None:
    """Apply torch.compile to the UNet's blocks, and run the UNet, so that no request waits for the compiler."""
    import torch

    from jsd import device

    torch._inductor.config.fx_graph_cache = False  # the cache holds pickles
    components.unet.compile_repeated_blocks(dynamic=True)
    for rows in (1, 2, 3):
        device.run_unet(components, rows)


@contextmanager
def without_collector() -> Iterator[None]:
    """Context manager: no garbage collection inside, and what exists at its end is never collected (gc.freeze).

    Around the imports of libraries, this saves a fifth of the time until the model is ready (docs/speed.md).
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def check_language() -> None:
    """Raise `SettingError` for a JSD_LANG that is no language here."""
    _choice("JSD_LANG", None, LANGUAGES)


def max_batch_rows() -> int | None:
    """Return JSD_MAX_BATCH, the most UNet rows (samples) in a call, None if it is not set. Raises `SettingError`."""
    rows = os.environ.get("JSD_MAX_BATCH")
    if not rows:
        return None
    if not (rows.isdecimal() and rows.isascii() and len(rows) < 10 and int(rows) >= 1):
        raise SettingError("JSD_MAX_BATCH: {} was given; a number of UNet rows, 1 or more, is wanted", shown(rows))
    return int(rows)


def _lora_scale() -> float:
    text = os.environ.get("JSD_LORA_SCALE") or "1"
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not -2 <= scale <= 2:
        raise SettingError("JSD_LORA_SCALE: {} was given; a number from -2 to 2 is wanted", shown(text))
    if scale != 1 and not os.environ.get("JSD_LORA"):
        raise SettingError("JSD_LORA_SCALE: given without JSD_LORA, the adapter that it is for; set both")
    return scale


def input_urls() -> bool:
    """Whether a server fetches pictures from addresses that clients give: JSD_INPUT_URLS. Raises `SettingError`."""
    return _choice("JSD_INPUT_URLS", "on", ("on", "off")) == "on"


def metrics_address() -> tuple[str, int] | None:
    """Return the host and port to serve metrics on, JSD_METRICS_PORT, None if not set. Raises `SettingError`."""
    text = os.environ.get("JSD_METRICS_PORT")
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and port.isascii() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise SettingError(
            "JSD_METRICS_PORT: {} was given; a port (1 to 65535) is wanted, perhaps after an address and a colon, as "
            "in 0.0.0.0:9400",
            shown(text),
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def _choice(name: str, default: str | None, allowed: object) -> str | None:
    value = os.environ.get(name) or default
    if value is not default and value not in allowed:
        raise SettingError("{}: {} was given; allowed are {}", name, shown(value), ", ".join(allowed))
    return value
