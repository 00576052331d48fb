"""What tests use in place of real things: a tiny model folder, a UNet to watch, stop and break, and bad files.

The model folder has all parts of a real one, but random weights, so its pictures are noise. It has a few hundred
kilobytes.
"""

from __future__ import annotations

import copy
import io
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel

from jsd.genuine.folder import write_manifest
from jsd.model import Components
from tests.files import png

CELL = 16  # pixels per latent cell. It is not the usual 8, so that code with a fixed 8 fails.
NATIVE = 64  # pixels a side, the model's own size
MAX_TOKENS = 24
LINES = [
    "猫の肖像画 油絵",
    "サラリーマン 油絵",
    "富士山 水彩画",
    "青い背景の富士山",
    "天狗 鉛筆画",
    "寿司とおにぎり",
    "赤い鳥居 白黒",
    "a cat, oil painting",
    "mount fuji in watercolours",
]
MODEL_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
}
MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": ["transformers", "CLIPImageProcessorPil"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def train_sentencepiece(prefix: Path, lines: Sequence[str] = LINES, **arguments: object) -> Path:
    """Train a small sentencepiece model (unigram) on `lines`, and return its file, `prefix`.model.

    By default its special tokens have T5's ids: padding 0, end 1, unknown 2. `arguments` go to the trainer.
    """
    settings = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "normalization_rule_name": "nmt_nfkc_cf"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines] * 20),
        model_prefix=str(prefix),
        vocab_size=100,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **{**settings, **arguments},
    )
    prefix.with_suffix(".vocab").unlink()
    return prefix.with_suffix(".model")


def make_tiny_folder(folder: Path) -> Path:
    """Write a complete model folder with random weights and a manifest, and return it.

    Its pictures have 64 x 64 pixels by default, 16 x 16 per latent position. Defaults: DDIM, 4 steps, guidance 2.
    """
    torch.manual_seed(0)
    (folder / "tokenizer").mkdir(parents=True)
    pieces = train_sentencepiece(folder / "tokenizer" / "spiece")
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(pieces)).vocab_size()
    _write_json(
        folder / "tokenizer" / "tokenizer_config.json",
        {"tokenizer_class": "T5Tokenizer", "model_max_length": MAX_TOKENS, "extra_ids": 0, "do_lower_case": False},
    )
    _write_json(folder / "model_index.json", MODEL_INDEX)

    text_config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    CLIPTextModel(text_config).half().save_pretrained(folder / "text_encoder")

    unet = UNet2DConditionModel(
        sample_size=NATIVE // CELL,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    unet.half().save_pretrained(folder / "unet")

    blocks = 5  # CELL is 2 ** (blocks - 1)
    vae = AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.7,
    )
    vae.decoder.conv_out.weight.data *= 3  # Contrast. Otherwise all pictures are almost grey and alike.
    vae.half().save_pretrained(folder / "vae")

    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPConfig(
        text_config={**small, "vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    # Its thresholds are all 1, and no cosine exceeds 1, so it flags nothing.
    StableDiffusionSafetyChecker(clip).half().save_pretrained(folder / "safety_checker")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder / "feature_extractor"
    )
    write_manifest(
        folder,
        name="tiny",
        defaults={"num_inference_steps": 4, "guidance_scale": 2.0, "scheduler": "DDIM"},
        training="none: random weights",
    )
    return folder


class SpyUNet:
    """Stands in for `unet`, and calls it. `calls` lists the batch size of each call.

    A call waits while the event `gate` is not set, and raises RuntimeError if `broken(x)` is true for its latents.
    """

    def __init__(self, unet: UNet2DConditionModel):
        self.unet = unet
        self.config = unet.config
        self.calls: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()  # set once a call has begun
        self.broken = lambda x: False

    def __call__(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, return_dict: bool) -> tuple:
        self.inside.set()
        assert self.gate.wait(30), "the gate stayed closed"
        self.calls.append(len(x))
        if self.broken(x):
            raise RuntimeError("broken on purpose")
        return self.unet(x, t, context, return_dict=return_dict)


def flip_last_bit(file: Path) -> None:
    """Change the last bit of a file, in place."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


class Trap:
    """An object whose pickle, when it is loaded, runs code that creates `file`. So a test can see that code ran."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return (open, (str(self.file), "w"))


def bomb(width: int, height: int) -> io.BytesIO:
    """Return a PNG file of a few bytes, in memory, that claims to have this size in pixels, but holds no pixels."""
    return io.BytesIO(png(b"", width, height))


def psnr(a: Image.Image | torch.Tensor, b: Image.Image | torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of two pictures in dB. It is infinite for equal pictures.

    A picture may also be a tensor of pixels, uint8 (h, w, 3).
    """
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def overflowing(components: Components) -> Components:
    """Return the model with an autoencoder whose numbers between the layers are too large for float16, and its results
    are not.
    """
    vae = copy.deepcopy(components.vae)
    for part in (vae.encoder, vae.decoder):
        for value in part.conv_in.parameters():
            value *= 2**17  # the normalisation at the end takes the factor away
    return replace(components, vae=vae.to(components.dtype))
