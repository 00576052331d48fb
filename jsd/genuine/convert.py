"""A model folder in the layout of 2022 -> a clean one: the only place where pickles are read, and only for tensors.

    python -m jsd weights convert SOURCE FOLDER

What is old about rinna/japanese-stable-diffusion: `.bin` pickles, the VAE's attention and CLIP's tensors under names
of then, configs with classes and settings that are gone, a tokenizer that today's transformers reads wrongly, and a
safety checker that would silently run on random weights. Each part is converted by itself, so that the memory is that
of one, and every tensor of the source has to find its place.
"""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsd.errors import WeightsError, shown
from jsd.genuine.folder import new_folder, save_part, write_index, write_manifest
from jsd.model import PARTS, read_part
from jsd.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

STATE_FILES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
CONVERTED = "converted from"
POSITION_IDS = ("text_model.embeddings.position_ids", "vision_model.vision_model.embeddings.position_ids")
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
# What suited the model in 2022 (its README).
DEFAULTS = {"num_inference_steps": 50, "guidance_scale": 7.5, "scheduler": "K_LMS"}
# A scheduler of Stable Diffusion 1 of 2022 left these out, and diffusers of then filled them in.
SCHEDULER = {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}


def convert(
    source: str | Path,
    folder: str | Path,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    origin: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the model in `source`, a diffusers folder of 2022 or later, to `folder`, with a manifest.

    `dtype` is float16 unless given; `origin` is where it comes from, for the manifest. `report` is told what is being
    done. Raises `WeightsError`, naming the file, for what is missing, for a pickle that holds anything but tensors, for
    tensors that are missing or left over and for a tokenizer that does not fit; FileExistsError if `folder` holds
    something else than a model. `folder` is written whole or not at all.
    """
    import torch

    source, folder, dtype = Path(source), Path(folder), dtype or torch.float16
    for part in PARTS:
        find_state(source, part)
    with new_folder(folder) as work:
        report("tokenizer, configs")
        text_config = _read_json(source / "text_encoder" / "config.json")
        tokenizer = _convert_tokenizer(source / "tokenizer", work / "tokenizer", text_config)
        _convert_scheduler(source / "scheduler", work / "scheduler")
        _convert_image_processor(source / "feature_extractor", work / "feature_extractor")
        for part in PARTS:
            report(part)
            ids = {"pad_token_id": tokenizer.pad_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_id}
            _convert_part(source / part, work / part, dtype, ids if part == "text_encoder" else {})
        for pattern in LICENCES:
            for file in source.glob(pattern):
                shutil.copyfile(file, work / file.name)
        write_index(work)
        report("manifest")
        write_manifest(
            work,
            name=name or source.name,
            defaults=DEFAULTS,
            source=origin or f"{CONVERTED} {source.name}",
            licence=_licence(work),
        )


def find_state(source: Path, part: str) -> Path:
    """The file with the tensors of a part, safetensors rather than a pickle. Raises `WeightsError`."""
    for name in STATE_FILES:
        if (source / part / name).is_file():
            return source / part / name
    raise WeightsError(f"{source / part}: none of {', '.join(STATE_FILES)} here; take a whole diffusers folder")


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of a pickle, by name. Raises `WeightsError` for a pickle that holds, or
    does, anything else: nothing of it is executed.
    """
    import torch
    from safetensors.torch import load_file

    with file.open("rb") as opened:
        begins = opened.read(2)
    if file.suffix != ".safetensors" and begins != b"PK" and begins[:1] != b"\x80":  # a zip file, or a bare pickle
        raise WeightsError(f"{file}: can't be read, it is no weights file but begins with {begins!r}; fetch it again")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = shown(_first_line(error), 200)
        raise WeightsError(f"{file}: a pickle that does more than hold tensors, refused ({reason})") from None
    except Exception as error:
        raise WeightsError(
            f"{file}: can't be read, it is truncated or no weights file ({_first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise WeightsError(f"{file}: holds {type(state).__name__}; tensors by name are wanted")
    other = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise WeightsError(f"{file}: {shown(other[0])} is no tensor; a file of tensors alone is wanted")
    return state


def _convert_part(source: Path, target: Path, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    """One model: its tensors as safetensors first, then through `from_pretrained`, which knows the names of then."""
    import torch
    from diffusers import ModelMixin

    state = read_state(find_state(source.parent, source.name))
    for key in [key for key in state if key in POSITION_IDS]:  # 0, 1, 2 ...: no longer kept in files
        if not torch.equal(state[key].flatten(), torch.arange(state[key].numel())):
            raise WeightsError(f"{source}: {key} are not 0, 1, 2 ...; this is no CLIP model of Stable Diffusion")
        del state[key]
    numbers = sum(value.numel() for value in state.values())
    for key in state:  # one at a time: both precisions of all would not fit the memory
        value = state[key]
        state[key] = (value.to(dtype) if value.is_floating_point() else value).contiguous()
        if not state[key].isfinite().all():
            raise WeightsError(f"{source}: {key} holds numbers that are not finite in {dtype}; try --dtype fp32")
    part = target.name
    old = target.parent / "old" / part
    old.mkdir(parents=True)
    config = {key: value for key, value in _read_json(source / "config.json").items() if key != "torch_dtype"}
    (old / "config.json").write_text(json.dumps(config | settings, indent=2) + "\n", "utf-8")
    _save(state, old / ("diffusion_pytorch_" * issubclass(PARTS[part], ModelMixin) + "model.safetensors"))
    del state
    try:
        model = read_part(old.parent, part, dtype)
    except WeightsError as error:
        raise WeightsError(str(error).replace(str(old), str(source))) from error
    placed = sum(value.numel() for value in model.state_dict().values())
    if placed != numbers:
        raise WeightsError(f"{source}: of {numbers} numbers {placed} found a place; it is no {PARTS[part].__name__}")
    save_part(model, target)
    shutil.rmtree(old.parent)


def _save(state: dict[str, torch.Tensor], file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(state, file)
    except SafetensorError as error:  # a full disk, above all
        raise OSError(f"{file}: can't be written ({_first_line(error)})") from error


def _convert_tokenizer(source: Path, target: Path, text_config: dict[str, Any]) -> Tokenizer:
    """`spiece.model` and a config of what it needs; the ids must be rows of the embedding."""
    if not (source / "spiece.model").is_file():
        raise WeightsError(f"{source / 'spiece.model'}: missing; a Japanese model has a sentencepiece tokenizer")
    old = {**_read_json(source / "tokenizer_config.json"), **_read_json(source / "special_tokens_map.json", {})}
    config = {
        "tokenizer_class": "T5Tokenizer",
        # The text encoder's, because tokenizers of then wrote none, or 1e30.
        "model_max_length": text_config.get("max_position_embeddings", 77),
        "do_lower_case": True,  # as the pipelines of 2022 set it, whatever the file said
        "extra_ids": 0,
        "additional_special_tokens": [],
    }
    for token in ("eos_token", "pad_token", "unk_token"):
        value = old.get(token)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            config[token] = value
    target.mkdir()
    shutil.copyfile(source / "spiece.model", target / "spiece.model")
    (target / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", "utf-8")
    tokenizer = Tokenizer.from_folder(target)
    rows = text_config.get("vocab_size", 0)
    if tokenizer.vocabulary_size > rows:
        raise WeightsError(
            f"{source / 'spiece.model'}: {tokenizer.vocabulary_size} tokens, but the text encoder has {rows} rows; "
            "they do not belong together"
        )
    return tokenizer


def _convert_scheduler(source: Path, target: Path) -> None:
    """The noise the model was trained on, without settings that are gone."""
    import diffusers

    old = _read_json(source / "scheduler_config.json")
    # Which sampler is used is chosen elsewhere; here only the noise matters. PNDM needs no further package.
    scheduler_class = diffusers.DDIMScheduler if old.get("_class_name") == "DDIMScheduler" else diffusers.PNDMScheduler
    known = inspect.signature(scheduler_class.__init__).parameters
    settings = {**SCHEDULER, **old}
    try:
        scheduler_class(**{key: value for key, value in settings.items() if key in known}).save_pretrained(target)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{source / 'scheduler_config.json'}: {error}") from error


def _convert_image_processor(source: Path, target: Path) -> None:
    """CLIP's image processor; a size of then is one number."""
    from transformers import CLIPImageProcessorPil

    old = _read_json(source / "preprocessor_config.json")
    known = ("do_resize", "do_center_crop", "do_normalize", "do_rescale", "do_convert_rgb", "image_mean", "image_std")
    settings = {key: old[key] for key in (*known, "resample", "rescale_factor", "size", "crop_size") if key in old}
    if isinstance(settings.get("size"), int):
        settings["size"] = {"shortest_edge": settings["size"]}
    if isinstance(settings.get("crop_size"), int):
        settings["crop_size"] = {"height": settings["crop_size"], "width": settings["crop_size"]}
    try:
        CLIPImageProcessorPil(**settings).save_pretrained(target)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source / 'preprocessor_config.json'}: {error}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _licence(work: Path) -> str:
    files = sorted(file.name for pattern in LICENCES for file in work.glob(pattern))
    return f"see {', '.join(files)}" if files else "none came with the source; ask where it came from"


def _read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if default is None:
            raise WeightsError(f"{path}: missing; take a whole diffusers folder") from None
        return default
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: unreadable ({error})") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return value
