"""Find and read the weights file of one model (UNet, VAE ...) in a diffusers folder: safetensors, or a pickle.

Pickles are read here and nowhere else. PyTorch unpickles tensors and plain containers only (`weights_only`), so no code
in the file runs.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file

from jsd.errors import WeightsError, shown

TENSOR_FILES = (  # the first one that exists is read
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "pytorch_model.fp16.bin",
    "diffusion_pytorch_model.fp16.bin",
)
ZIP, PICKLE = b"PK", b"\x80"  # how the files of torch.save and of pickle.dump begin


def find_tensors(part: Path) -> Path:
    """Return the path of the weights file in a model's folder, such as `unet/`. Raises `WeightsError` if none."""
    for name in TENSOR_FILES:
        if (part / name).is_file():
            return part / name
    if any(part.glob("*.index*.json")):
        raise WeightsError(f"{part}: its weights are in several files; save it with max_shard_size='20GB'")
    others = sorted(file.name for file in part.glob("*") if file.suffix in (".safetensors", ".bin"))
    advice = f"rename the one you want: {', '.join(others)}" if others else "take a complete diffusers folder"
    raise WeightsError(f"{part}: has none of {', '.join(TENSOR_FILES)}; {advice}")


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file or a pickle. Returns its tensors by name.

    Raises `WeightsError` if the file can't be read, or if it is a pickle that runs code or holds more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        _check_beginning(file)
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{file}: refused, a pickle that does more than hold tensors ({_reason(error)})") from None
    except Exception as error:
        raise WeightsError(f"{file}: can't be read ({_reason(error)}); fetch the file again") from error
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise WeightsError(f"{file}: holds a {type(tensors).__name__}; it must hold tensors by name")
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"{file}: {shown(name)} is not a tensor; the file must hold nothing but tensors")
    return tensors


def _check_beginning(file: Path) -> None:
    """Raises `WeightsError` if a file does not begin like a pickle. It may be a web page or a git-lfs pointer.

    PyTorch would report such a file as a dangerous pickle.
    """
    with file.open("rb") as opened:
        beginning = opened.read(2)
    if beginning != ZIP and beginning[:1] != PICKLE:
        raise WeightsError(f"{file}: can't be read, because it begins with {beginning!r}; fetch the file again")


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, cut short. PyTorch's next lines give advice that is wrong here."""
    return shown(str(error).partition("\n")[0] or type(error).__name__, 200)
