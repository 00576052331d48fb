"""Convert the tokenizer, the scheduler and the image processor of a model of 2022 for today's libraries.

Their config files name classes and settings that no longer exist, and lack settings whose defaults have changed.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, PNDMScheduler
from transformers import CLIPImageProcessorPil

from jsd.errors import InputError, WeightsError
from jsd.genuine.folder import write_json
from jsd.manifest import MANIFEST, read_json
from jsd.schedulers import NOISE_SETTINGS, make_scheduler
from jsd.tokenizer import SPELLINGS, Tokenizer

# Stable Diffusion 1 was trained with these settings. Its configs of 2022 lack them, because the library set them.
SCHEDULER = {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
RECOMMENDED = "K_LMS"  # by the README of 2022
# The settings of a scheduler that must agree with the noise the model was trained on.
NOISE = (*NOISE_SETTINGS, "num_train_timesteps", "beta_end", "beta_schedule")
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
    """Write the tokenizer in the folder `source` to the new folder `target`, with a new config, and return it.

    Raises `WeightsError` like `read_tokenizer`.
    """
    tokenizer = read_tokenizer(source, text_config)
    target.mkdir()
    shutil.copyfile(source / "spiece.model", target / "spiece.model")
    write_json(target / "tokenizer_config.json", tokenizer_config(tokenizer))
    if tokenizer.spellings:
        write_json(target / SPELLINGS, tokenizer.spellings.table)
    return tokenizer


def read_tokenizer(source: Path, text_config: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer in a folder of 2022 or later. `text_config` is the text encoder's config.

    Raises `WeightsError` if a file is missing or wrong, or if the text encoder has fewer embeddings than the tokenizer
    has tokens.
    """
    pieces, special = source / "spiece.model", source / "special_tokens_map.json"
    if not pieces.is_file():
        raise WeightsError(
            "{}: missing; a Japanese model has a sentencepiece tokenizer (stock diffusers does not save it, so copy it "
            "from the folder that the model was opened from)",
            pieces,
        )
    old = read_json(source / "tokenizer_config.json") | (read_json(special) if special.is_file() else {})
    if (source.parent / MANIFEST).is_file():
        tokenizer = Tokenizer.from_folder(source)
    else:
        # Old tokenizer configs have no length, or 1e30. The pipelines of 2022 set lower case, whatever they said.
        pad = old.get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
        tokenizer = Tokenizer(pieces, text_config.get("max_position_embeddings", 77), do_lower_case=True, pad_token=pad)
    embeddings = text_config.get("vocab_size", 0)
    if tokenizer.vocabulary_size > embeddings:
        raise WeightsError(
            "{}: has {} tokens, but the text encoder has {} embeddings; take the tokenizer that the "
            "model was trained with",
            pieces,
            tokenizer.vocabulary_size,
            embeddings,
        )
    return tokenizer


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json` for a tokenizer. Our `Tokenizer` and transformers' read it."""
    pieces = tokenizer.pieces
    return {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": tokenizer.max_length,
        "do_lower_case": tokenizer.do_lower_case,
        "extra_ids": 0,
        "additional_special_tokens": [],
        "eos_token": pieces.id_to_piece(tokenizer.eos_id),
        "pad_token": pieces.id_to_piece(tokenizer.pad_id),
        "unk_token": pieces.id_to_piece(pieces.unk_id()),
    }


def convert_scheduler(source: Path, target: Path) -> str:
    """Write the scheduler's config to the folder `target`, without settings that diffusers no longer knows.

    Returns the sampler to draw with: RECOMMENDED, or DDIM if that does not support the model's noise. Later only the
    noise schedule is used, because `jsd.schedulers` chooses the sampler. Raises `WeightsError` if a setting is wrong,
    or if the model was trained on noise of another kind.
    """
    file = source / "scheduler_config.json"
    old = read_json(file)
    lacking = old.get("rescale_betas_zero_snr") or old.get("prediction_type") == "sample"  # in PNDM
    ddim = old.get("_class_name") == "DDIMScheduler" or lacking
    scheduler_class = DDIMScheduler if ddim else PNDMScheduler
    known = inspect.signature(scheduler_class.__init__).parameters
    settings = {key: value for key, value in (SCHEDULER | old).items() if key in known}
    try:
        make_scheduler("DDIM", old)
        scheduler_class(**settings).save_pretrained(target)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError("{}: {}", file, error) from error
    try:
        make_scheduler(RECOMMENDED, old)
    except InputError:
        return "DDIM"
    return RECOMMENDED


def convert_image_processor(source: Path, target: Path) -> None:
    """Write the config of the safety checker's image processor to `target`. Raises `WeightsError` for a wrong setting.

    In 2022 `size` and `crop_size` were single numbers. Today they are dicts.
    """
    file = source / "preprocessor_config.json"
    if not file.is_file():
        raise WeightsError("{}: missing; copy it, or take the safety checker, which needs it, away too", file)
    old = read_json(file)
    settings = {key: old[key] for key in IMAGE_PROCESSOR if key in old}
    if isinstance(settings.get("size"), int):
        settings["size"] = {"shortest_edge": settings["size"]}
    if isinstance(settings.get("crop_size"), int):
        settings["crop_size"] = {"height": settings["crop_size"], "width": settings["crop_size"]}
    try:
        CLIPImageProcessorPil(**settings).save_pretrained(target)
    except (TypeError, ValueError) as error:
        raise WeightsError("{}: {}", file, error) from error
