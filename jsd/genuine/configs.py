"""Convert the tokenizer, the scheduler and the image processor of a model of 2022 for today's libraries.

Their configs name classes and settings that no longer exist, and lack settings whose defaults have changed.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, PNDMScheduler
from transformers import CLIPImageProcessorPil

from jsd.errors import WeightsError
from jsd.genuine.folder import write_json
from jsd.manifest import read_json
from jsd.tokenizer import Tokenizer

# Stable Diffusion 1 was trained with these settings. Its configs of 2022 lack them, because the library set them.
SCHEDULER = {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
IMAGE_PROCESSOR = (
    "do_resize",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_convert_rgb",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
    "crop_size",
)


def convert_tokenizer(source: Path, target: Path, text_config: dict[str, Any]) -> Tokenizer:
    """Write `spiece.model` and a small config to the new folder `target`, and return the tokenizer.

    `text_config` is the text encoder's config. Raises `WeightsError` if a file is missing, or if the text encoder has
    fewer embeddings than the tokenizer has tokens.
    """
    pieces, special = source / "spiece.model", source / "special_tokens_map.json"
    if not pieces.is_file():
        raise WeightsError(f"{pieces}: missing; a Japanese model has a sentencepiece tokenizer")
    old = read_json(source / "tokenizer_config.json") | (read_json(special) if special.is_file() else {})
    config = {
        "tokenizer_class": "T5Tokenizer",
        # Old tokenizer configs have no length, or 1e30.
        "model_max_length": text_config.get("max_position_embeddings", 77),
        "do_lower_case": True,  # the pipelines of 2022 set it, whatever the config said
        "extra_ids": 0,
        "additional_special_tokens": [],
    }
    for name in ("eos_token", "pad_token", "unk_token"):
        token = old.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            config[name] = token
    target.mkdir()
    shutil.copyfile(pieces, target / pieces.name)
    write_json(target / "tokenizer_config.json", config)
    tokenizer = Tokenizer.from_folder(target)
    embeddings = text_config.get("vocab_size", 0)
    if tokenizer.vocabulary_size > embeddings:
        raise WeightsError(
            f"{pieces}: has {tokenizer.vocabulary_size} tokens, but the text encoder has {embeddings} embeddings; "
            "take the tokenizer that the model was trained with"
        )
    return tokenizer


def convert_scheduler(source: Path, target: Path) -> None:
    """Write the scheduler's config without settings that no longer exist. Raises `WeightsError` if one is wrong.

    Only the noise schedule in it matters, because `jsd.schedulers` makes the scheduler of a request. PNDM is the one of
    2022.
    """
    file = source / "scheduler_config.json"
    old = read_json(file)
    scheduler_class = DDIMScheduler if old.get("_class_name") == "DDIMScheduler" else PNDMScheduler
    known = inspect.signature(scheduler_class.__init__).parameters
    settings = {key: value for key, value in (SCHEDULER | old).items() if key in known}
    try:
        scheduler_class(**settings).save_pretrained(target)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{file}: {error}") from error


def convert_image_processor(source: Path, target: Path) -> None:
    """Write the config of the safety checker's image processor. Raises `WeightsError` if a setting is wrong.

    In 2022 each size was one number.
    """
    file = source / "preprocessor_config.json"
    old = read_json(file)
    settings = {key: old[key] for key in IMAGE_PROCESSOR if key in old}
    if isinstance(settings.get("size"), int):
        settings["size"] = {"shortest_edge": settings["size"]}
    if isinstance(settings.get("crop_size"), int):
        settings["crop_size"] = {"height": settings["crop_size"], "width": settings["crop_size"]}
    try:
        CLIPImageProcessorPil(**settings).save_pretrained(target)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{file}: {error}") from error
