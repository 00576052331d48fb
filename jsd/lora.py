"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685): `read_lora` reads one for a model, `add_lora` adds it to a weight.

The layouts of diffusers, peft, kohya and LyCORIS (LoCon) are read. They differ in how they write a layer's name, so
names are compared without their punctuation. peft and the converters of diffusers could read them too, but importing
peft takes a second, and both skip keys that they can't place.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from jsd.errors import WeightsError, shown
from jsd.language import Text

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

LARGEST = 2 << 30  # bytes of a file
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # in a folder of diffusers, of peft
SERIAL = 1 << 15  # numbers that torch checks without OpenMP: readers must not start threads beside the engine's
# A layer's name and the tensor's role: LAYER.lora_A.weight, LAYER.lora_down.weight, LAYER_lora.up.weight, LAYER.alpha.
# In peft's own state dict, the name of the adapter comes before "weight".
KEY = re.compile(
    r"(.+?)(?:[._]lora(?:_linear_layer)?[._](?:(A|B|down|up|mid)(?:\.\w+)?\.weight|(?:B|up)(?:\.\w+)?\.(bias))|\.(alpha))"
)
ROLES = {"A": "down", "B": "up"}
# How layers' names begin in a file, without punctuation, and here. Old files name no part. Then it is the UNet.
PREFIXES = (("", ""), ("lora_unet_", "unet_"), ("lora_te_", "text_encoder_"), ("lora_te1_", "text_encoder_"))
PREFIXES += (("", "unet_"), ("", "text_encoder_"))
# How the names of attention layers end today, and how they ended in files of early 2023.
OLD_ENDS = {"to_out_0": "to_out", "out_proj": "to_out", "q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v"}
# What can't be merged, and what its keys hold.
OTHERS = {
    Text("a DoRA"): "dora_scale|lora_magnitude_vector",
    Text("a LoHa"): "hada_w",
    Text("a LoKr"): "lokr_w",
    Text("an (IA)3 adapter"): "ia3_l|on_input",
    Text("an OFT adapter"): "oft_",
    Text("a textual inversion"): "emb_params|bundle_emb",
    Text("an adapter of Stable Diffusion XL"): "lora_te2_|text_encoder_2",
    Text("an IP-Adapter"): "ip_adapter",
    Text("a whole model"): r"model\.diffusion_model\.",
}
# A factor, B (rows, rank), A (rank, columns), and None or the core of a Tucker decomposition, (rank, rank, h, w), which
# LoCon has for convolutions. Then A is (rank, channels).
Change = tuple[float, torch.Tensor, torch.Tensor, torch.Tensor | None]
LARGEST_CORE = 4096  # its rank, because core and A are multiplied
MOST_PATTERNS = 2_000  # each is compared with each layer
REPEATS = 4  # in a pattern of a trusted file
ADVICE = Text(
    "take a LoRA or LoCon of Stable Diffusion 1, or merge it into a model folder with the program that made it"
)


def read_lora(source: Path | bytes, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> dict[str, Change]:
    """Read an adapter for a model, a file, a folder (see `find_file`), or a file's bytes. Bytes are not trusted.

    Returns the `Change` of each weight by the weight's name.
    The product factor * B @ A is added to "unet.NAME" or "text_encoder.NAME". The factor is alpha / rank (Hu et al.,
    sec. 4.1). alpha is stored for each layer, or in the file's metadata. If there is none, the factor is 1. Matrices
    keep their type. Raises `WeightsError` if `source` is no safetensors file of at most 2 GB, if it is no LoRA, or if
    one of its tensors is not finite or has no place in the model.
    """
    tensors, settings = _read(source)
    repeats = 0 if isinstance(source, bytes) else REPEATS
    layers = _layers(unet, text_encoder)
    changes: dict[str, Change] = {}
    for name, found in _sort(tensors, layers).items():
        weight, bias = layers[name].weight, layers[name].bias
        matrices = _matrices(found, weight)
        if matrices is None or ("bias" in found and (bias is None or found["bias"].shape != bias.shape)):
            shapes = ", ".join(f"{role} {tuple(tensor.shape)}" for role, tensor in sorted(found.items()))
            raise WeightsError(
                "{}: {} do not fit {}, this model's; take one made for it", name, shapes, tuple(weight.shape)
            )
        factor = _factor(name, found.get("alpha"), matrices[0].shape[1], settings, repeats)
        changes[f"{name}.weight"] = (factor, *matrices)
        if "bias" in found:
            changes[f"{name}.bias"] = (factor, found["bias"][:, None], torch.ones(1, 1), None)
    return changes


def add_lora(weight: torch.Tensor, change: Change, scale: float = 1.0) -> torch.Tensor:
    """Return a copy of a weight to which a change is added, times `scale`. It is computed in float32."""
    factor, *matrices = change
    up, down, core = (None if matrix is None else matrix.to(weight.device, torch.float32) for matrix in matrices)
    if core is not None:
        down = torch.einsum("rshw,si->rihw", core, down).flatten(1)
    rows = weight.detach().float().reshape(len(weight), -1)
    return torch.addmm(rows, up, down, alpha=scale * factor).reshape(weight.shape).to(weight.dtype)


def find_file(path: Path) -> Path:
    """Return the file of an adapter: `path`, or one of FILES in it if it is a folder. Raises `WeightsError`."""
    if path.is_dir():
        files = (path / name for name in FILES if (path / name).is_file())
        if (path := next(files, None)) is None:
            raise WeightsError("a folder without {}; name the file itself", Text("{} or {}", *FILES))
    if not path.is_file():
        raise WeightsError("no such file or folder")
    return path


def _read(source: Path | bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a file, and the settings of peft that diffusers stores in it, and peft beside it."""
    if isinstance(source, Path):
        source = find_file(source)
        if source.suffix.lower() != ".safetensors":
            raise WeightsError("a {} file; only .safetensors files are read", shown(source.suffix))
        if source.stat().st_size > LARGEST:
            raise WeightsError(
                "{:.1f} GB; an adapter has {:.1f} GB at most", source.stat().st_size / 1e9, LARGEST / 1e9
            )
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        settings = header.get("__metadata__", {}).get("lora_adapter_metadata", "{}")
        for kind, pattern in OTHERS.items():
            if key := next(filter(re.compile(pattern).search, tensors), None):
                raise WeightsError("{} belongs to {}, which can't be merged; {}", shown(key, 120), kind, ADVICE)
        if any(key.startswith("base_model.model.") for key in tensors):
            if isinstance(source, bytes):
                raise WeightsError("saved by peft, whose adapter_config.json is not in it; save it with diffusers")
            settings = source.with_name("adapter_config.json").read_text("utf-8")
        return tensors, dict(json.loads(settings))
    except WeightsError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise WeightsError(
            "can't be read as an adapter ({}); take a complete .safetensors file of a LoRA",
            shown(str(error), 200)[1:-1],
        ) from error


def _layers(unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> dict[str, torch.nn.Linear | torch.nn.Conv2d]:
    """Return the layers that a LoRA may change, by name: "unet.conv_in", for example."""
    parts = (("unet", unet), ("text_encoder", text_encoder))
    modules = ((f"{part}.{name}", module) for part, model in parts for name, module in model.named_modules())
    return {name: module for name, module in modules if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)}


def _sort(tensors: dict[str, torch.Tensor], layers: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors by their layer and their role: down, up, and perhaps mid, alpha, bias.

    Raises `WeightsError` for a key with no place in `layers`, and for a layer without down or up.
    """
    places = {name.replace(".", "_"): name for name in layers}
    for end, old in OLD_ENDS.items():
        places |= {flat.removesuffix(end) + old: name for flat, name in places.items() if flat.endswith(end)}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise WeightsError("{} is no tensor of a LoRA; {}", shown(key, 120), ADVICE)
        layer, *roles = match.groups()
        role = next(ROLES.get(role, role) for role in roles if role)
        flat = layer.replace(".processor", "").replace(".", "_")
        flat = flat.replace("base_model_model_", "").replace("text_model_", "")
        names = (places.get(here + flat.removeprefix(begin)) for begin, here in PREFIXES if flat.startswith(begin))
        name = next(filter(None, names), None)
        if name is None:
            raise WeightsError("{} has no place in this model; take an adapter that was made for it", shown(key, 120))
        if role in found.setdefault(name, {}):
            raise WeightsError("{}: the file has {} of {} twice; save the adapter again", shown(key, 120), role, name)
        found[name][role] = tensor
        if not all(part.float().isfinite().all() for part in tensor.flatten().split(SERIAL)):
            raise WeightsError("{} holds numbers that are not finite; the adapter is broken", shown(key, 120))
    for name, tensors in found.items():
        if not {"down", "up"} <= tensors.keys():
            raise WeightsError(
                "{}: has {}; a LoRA has down and up; fetch the file again",
                name,
                Text("{} and {}", *tensors) if len(tensors) > 1 else ", ".join(tensors),
            )
    if not found:
        raise WeightsError("holds no tensors; fetch the file again")
    return found


def _matrices(found: dict[str, torch.Tensor], weight: torch.Tensor) -> tuple[torch.Tensor | None, ...] | None:
    """Return a layer's B, A and core, as in `Change`, or None if they do not fit `weight`."""
    up, down, core = found["up"], found["down"], found.get("mid")
    if min(up.ndim, down.ndim) < 2:
        return None
    up, columns, kernel = up.flatten(1), down.flatten(1), down.shape[1:]
    if core is not None:
        if core.ndim != 4 or core.shape[1] != len(down) or len(core) > LARGEST_CORE:
            return None
        kernel = (columns.shape[1], *core.shape[2:])
    rank = len(down if core is None else core)
    fits = up.shape == (len(weight), rank) and kernel[0] == weight.shape[1] and rank > 0
    return (up, columns, core) if fits and math.prod(kernel) == weight[0].numel() else None


def _factor(name: str, alpha: torch.Tensor | None, rank: int, settings: dict[str, Any], repeats: int) -> float:
    """Return alpha / rank for the layer `name`. `alpha` is its own. If None, that of peft's `settings`, else `rank`."""
    part, _, layer = name.partition(".")
    begun, value, root, patterns = (
        settings.get(f"{part}.{key}", settings.get(key))
        for key in ("init_lora_weights", "lora_alpha", "use_rslora", "alpha_pattern")
    )
    if isinstance(begun, str) and begun.startswith(("pissa", "olora", "corda", "loftq")):
        raise WeightsError("made with {}, which changes the model too; save it as a plain LoRA", shown(begun))
    value, patterns = rank if value is None else value, patterns if isinstance(patterns, dict) else {}
    if len(patterns) > MOST_PATTERNS:
        raise WeightsError("{} patterns of alphas; at most {} are read", len(patterns), MOST_PATTERNS)
    for text, number in patterns.items():
        pattern = _pattern(text, repeats)
        # In some versions of transformers, the names of the text encoder's layers begin so.
        if pattern.match(layer) or pattern.match(f"text_model.{layer}"):
            value = number
            break
    if alpha is not None:
        value, root = (alpha.item() if alpha.numel() == 1 else Text("{} numbers", alpha.numel())), False
    if not isinstance(value, int | float) or not abs(value) < 1e30:
        raise WeightsError("{}: an alpha of {}; a number is wanted", name, shown(value))
    return value / (math.sqrt(rank) if root else rank)


@functools.lru_cache(2 * MOST_PATTERNS)
def _pattern(text: str, repeats: int) -> re.Pattern[str]:
    """Compile a key of `alpha_pattern`, a regular expression for the end of a layer's name, as peft reads it.

    Raises `WeightsError` for a wrong one, and for one that might take long: with more than so many `repeats`, or three
    times as many choices.
    """
    try:
        repeated, choices = len(re.findall(r"[*+{]", text)), len(re.findall(r"[?|]", text))
        if re.search(r"\)[*+{]", text) or repeated > repeats or choices > 3 * repeats or len(text) > 300:
            raise re.error(Text("it repeats too much, or is too long"))
        return re.compile(rf"(.*\.)?({text})$")
    except (re.error, OverflowError, RecursionError) as error:
        reason = shown(str(error))[1:-1]
        raise WeightsError(
            "alpha_pattern: {} is refused ({}); write out names of layers", shown(text), reason
        ) from None
