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
from jsd.language import Text

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
        raise WeightsError("{}: its weights are in several files; save it with max_shard_size='20GB'", part)
    others = sorted(file.name for file in part.glob("*") if file.suffix in (".safetensors", ".bin"))
    if others:
        advice = Text("rename the one you want: {}", ", ".join(others))
    else:
        advice = Text("take a complete diffusers folder")
    raise WeightsError("{}: has none of {}; {}", part, ", ".join(TENSOR_FILES), advice)


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
        raise WeightsError(
            "{}: refused, a pickle that does more than hold tensors ({})", file, _reason(error)
        ) from None
    except Exception as error:
        raise WeightsError("{}: can't be read ({}); fetch the file again", file, _reason(error)) from error
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise WeightsError("{}: holds a {}; it must hold tensors by name", file, type(tensors).__name__)
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError("{}: {} is not a tensor; the file must hold nothing but tensors", file, shown(name))
    return tensors


def _check_beginning(file: Path) -> None:
    """Raises `WeightsError` if a file does not begin like a pickle. It may be a web page or a git-lfs pointer.

    PyTorch would report such a file as a dangerous pickle.
    """
    with file.open("rb") as opened:
        beginning = opened.read(2)
    if beginning != ZIP and beginning[:1] != PICKLE:
        raise WeightsError("{}: can't be read, because it begins with {!r}; fetch the file again", file, beginning)


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, cut short. PyTorch's next lines give advice that is wrong here."""
    return shown(str(error).partition("\n")[0] or type(error).__name__, 200)
