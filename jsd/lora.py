"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685): `merge_lora` adds one to a model's weights.

A merged adapter costs no time in sampling. The layouts of diffusers, peft, kohya and LyCORIS (LoCon) are read. They
differ in how they write a layer's name, so names are compared without their punctuation. peft and the converters of
diffusers could read them too, but importing peft takes a second, and both skip keys that they can't place.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from jsd.errors import WeightsError, shown

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

LARGEST = 2 << 30  # bytes of a file
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # in a folder of diffusers, of peft
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
    "a DoRA": "dora_scale|lora_magnitude_vector",
    "a LoHa": "hada_w",
    "a LoKr": "lokr_w",
    "an (IA)3 adapter": "ia3_l|on_input",
    "an OFT adapter": "oft_",
    "a textual inversion": "emb_params|bundle_emb",
    "an adapter of Stable Diffusion XL": "lora_te2_|text_encoder_2",
    "an IP-Adapter": "ip_adapter",
    "a whole model": r"model\.diffusion_model\.",
}
Changes = dict[str, tuple[torch.Tensor, torch.Tensor]]
ADVICE = "take a LoRA or LoCon of Stable Diffusion 1, or merge it into a model folder with the program that made it"


def merge_lora(file: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, scale: float = 1.0) -> None:
    """Add the adapter in `file` (see `read_lora`), times `scale`, to the weights of a model, in place.

    Raises `WeightsError`, which names the file, like `read_lora` and `add_lora`.
    """
    try:
        add_lora(read_lora(file, unet, text_encoder), unet, text_encoder, scale)
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error


def read_lora(file: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> Changes:
    """Read an adapter for a model, and return it as two float32 matrices by the name of each weight that it changes.

    `file` may be a folder that diffusers or peft saved (FILES).

    Their product (rows, rank) @ (rank, columns) is the change of "unet.NAME" or "text_encoder.NAME": (alpha / rank) B A
    (Hu et al., sec. 4.1). alpha is stored for each layer, or in the file's metadata. If there is none, the factor is 1.
    Raises `WeightsError` if `file` is no safetensors file of at most 2 GB, if it is no LoRA, or if one of its tensors
    is not finite or has no place in the model.
    """
    tensors, settings = _read(file)
    layers = _layers(unet, text_encoder)
    changes: Changes = {}
    for name, found in _sort(tensors, layers).items():
        weight, bias = layers[name].weight, layers[name].bias
        matrices = _matrices(found, weight)
        if matrices is None or ("bias" in found and (bias is None or found["bias"].shape != bias.shape)):
            shapes = ", ".join(f"{role} {tuple(tensor.shape)}" for role, tensor in found.items())
            raise WeightsError(f"{name}: {shapes} do not fit {tuple(weight.shape)}, this model's; take one made for it")
        factor = _factor(name, found.get("alpha"), matrices[0].shape[1], settings)
        changes[f"{name}.weight"] = (factor * matrices[0], matrices[1])
        if "bias" in found:
            changes[f"{name}.bias"] = (factor * found["bias"][:, None], torch.ones(1, 1))
    return changes


def add_lora(
    changes: Changes, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, scale: float = 1.0
) -> dict[str, torch.Tensor]:
    """Add what `read_lora` returned, times `scale`, to the weights of a model, in place.

    Returns the weights as they were. To copy them back takes the adapter away. Raises `WeightsError`, before any weight
    is changed, if one would not be finite in its type.
    """
    parts = (("unet", unet), ("text_encoder", text_encoder))
    weights = {f"{part}.{name}": value for part, model in parts for name, value in model.named_parameters()}
    values = {}
    for name, (up, down) in changes.items():
        weight = weights[name]
        change = (up.to(weight.device) @ down.to(weight.device)).reshape(weight.shape)
        values[name] = (weight.detach().float() + scale * change).to(weight.dtype)
        if not values[name].isfinite().all():
            raise WeightsError(f"{name}: not finite in {weight.dtype} with this adapter; lower its scale")
    for name, value in values.items():
        values[name] = weights[name].detach().clone()
        weights[name].data.copy_(value)
    return values


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a file, and the settings of peft that diffusers stores in it, and peft beside it."""
    if file.is_dir():
        found = [file / name for name in FILES if (file / name).is_file()]
        if not found:
            raise WeightsError(f"a folder without {' or '.join(FILES)}; name the file itself")
        file = found[0]
    if not file.is_file():
        raise WeightsError("no such file or folder")
    if file.suffix.lower() != ".safetensors":
        raise WeightsError(f"a {shown(file.suffix)} file; only .safetensors files are read")
    if file.stat().st_size > LARGEST:
        raise WeightsError(f"{file.stat().st_size / 1e9:.1f} GB; an adapter has {LARGEST / 1e9:.1f} GB at most")
    try:
        with safe_open(file, "pt") as data:
            tensors = {key: data.get_tensor(key) for key in data.keys()}  # noqa: SIM118
            settings = (data.metadata() or {}).get("lora_adapter_metadata", "{}")
        for kind, pattern in OTHERS.items():
            if key := next(filter(re.compile(pattern).search, tensors), None):
                raise WeightsError(f"{shown(key, 120)} belongs to {kind}, which can't be merged; {ADVICE}")
        if any(key.startswith("base_model.model.") for key in tensors):
            settings = file.with_name("adapter_config.json").read_text("utf-8")
        return tensors, dict(json.loads(settings))
    except WeightsError:
        raise
    except (OSError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise WeightsError(f"can't be read as an adapter ({error})") from error


def _layers(unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> dict[str, torch.nn.Linear | torch.nn.Conv2d]:
    """Return the layers that a LoRA may change, by name: "unet.conv_in", for example."""
    parts = (("unet", unet), ("text_encoder", text_encoder))
    modules = ((f"{part}.{name}", module) for part, model in parts for name, module in model.named_modules())
    return {name: module for name, module in modules if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)}


def _sort(tensors: dict[str, torch.Tensor], layers: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors in float32 by their layer and their role: down, up, and perhaps mid, alpha, bias.

    Raises `WeightsError` for a key with no place in `layers`, and for a layer without down or up.
    """
    places = {name.replace(".", "_"): name for name in layers}
    for end, old in OLD_ENDS.items():
        places |= {flat.removesuffix(end) + old: name for flat, name in places.items() if flat.endswith(end)}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise WeightsError(f"{shown(key, 120)} is no tensor of a LoRA; {ADVICE}")
        layer, *roles = match.groups()
        role = next(ROLES.get(role, role) for role in roles if role)
        flat = layer.replace(".processor", "").replace(".", "_")
        flat = flat.replace("base_model_model_", "").replace("text_model_", "")
        names = (places.get(here + flat.removeprefix(begin)) for begin, here in PREFIXES if flat.startswith(begin))
        name = next(filter(None, names), None)
        if name is None:
            raise WeightsError(f"{shown(key, 120)} has no place in this model; take an adapter that was made for it")
        if role in found.setdefault(name, {}):
            raise WeightsError(f"{shown(key, 120)}: the file has {role} of {name} twice; save the adapter again")
        found[name][role] = tensor.float()
        if not found[name][role].isfinite().all():
            raise WeightsError(f"{shown(key, 120)} holds numbers that are not finite; the adapter is broken")
    for name, tensors in found.items():
        if not {"down", "up"} <= tensors.keys():
            raise WeightsError(f"{name}: has {' and '.join(tensors)}; a LoRA has down and up; fetch the file again")
    if not found:
        raise WeightsError("holds no tensors; fetch the file again")
    return found


def _matrices(found: dict[str, torch.Tensor], weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a layer's B, (rows, rank), and A, (rank, columns), or None if they do not fit `weight`.

    `mid` is the core of a Tucker decomposition, (rank, rank, h, w), as LoCon has it for convolutions.
    """
    up, down, mid = found["up"], found["down"], found.get("mid")
    if min(up.ndim, down.ndim) < 2:
        return None
    if mid is not None:
        if mid.ndim != 4 or mid.shape[1] != len(down):
            return None
        down = torch.einsum("rshw,si->rihw", mid, down.flatten(1))
    up, columns = up.flatten(1), down.flatten(1)
    fits = up.shape == (len(weight), len(down)) and down.shape[1] == weight.shape[1] and len(down) > 0
    return (up, columns) if fits and columns.shape[1] == weight[0].numel() else None


def _factor(name: str, alpha: torch.Tensor | None, rank: int, settings: dict[str, Any]) -> float:
    """Return alpha / rank for the layer `name`. `alpha` is its own. If None, that of peft's `settings`, else `rank`."""
    part, _, layer = name.partition(".")
    own = {key.removeprefix(f"{part}."): value for key, value in settings.items()}
    if str(own.get("init_lora_weights")).startswith(("pissa", "olora", "corda", "loftq")):
        raise WeightsError(
            f"made with {own['init_lora_weights']}, which changes the model too; save it as a plain LoRA"
        )
    value, root = own.get("lora_alpha", rank), own.get("use_rslora")
    patterns = own.get("alpha_pattern")
    for pattern, number in patterns.items() if isinstance(patterns, dict) else ():
        # In some versions of transformers, the names of the text encoder's layers begin so.
        if _pattern(pattern).match(layer) or _pattern(pattern).match(f"text_model.{layer}"):
            value = number
            break
    if alpha is not None:
        value, root = (alpha.item() if alpha.numel() == 1 else alpha.tolist()), False
    if not isinstance(value, int | float) or not abs(value) < 1e30:
        raise WeightsError(f"{name}: an alpha of {shown(value)}; a number is wanted")
    return value / (math.sqrt(rank) if root else rank)


@functools.lru_cache(4096)
def _pattern(text: str) -> re.Pattern[str]:
    """Compile a key of `alpha_pattern`, a regular expression for the end of a layer's name, as peft reads it.

    Raises `WeightsError` for a wrong one, and for one that might take forever.
    """
    try:
        if re.search(r"\)[*+{]", text) or len(re.findall(r"[*+{]", text)) > 4 or len(re.findall(r"[?|]", text)) > 12:
            raise re.error("it repeats too much")
        return re.compile(rf"(.*\.)?({text})$")
    except re.error as error:
        raise WeightsError(f"alpha_pattern: {shown(text)} is refused ({error}); write out names of layers") from None
