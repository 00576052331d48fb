"""Write a model folder in the layout of 2022, which `jsd.genuine.convert` reads, for its tests and `script/bench`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

TEXT_IDS = {"bos_token_id": 49406, "eos_token_id": 49407}  # CLIP's own, although the vocabulary is a Japanese one
LATER = ("scaling_factor", "shift_factor", "force_upcast", "mid_block_add_attention")  # settings that came later


def old_names(part: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a part under the names of 2022, with the position ids that were kept then."""
    if part == "vae":
        new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for now, then in new.items():
            state = {key.replace(f"attentions.0.{now}", f"attentions.0.{then}"): v for key, v in state.items()}
    elif part == "text_encoder":
        length = len(state["embeddings.position_embedding.weight"])
        state = {f"text_model.{key}": value for key, value in state.items()}
        state["text_model.embeddings.position_ids"] = torch.arange(length)[None]
    elif part == "safety_checker":
        length = len(state["vision_model.embeddings.position_embedding.weight"])
        state = {key.replace("vision_model.", "vision_model.vision_model.", 1): v for key, v in state.items()}
        state["vision_model.vision_model.embeddings.position_ids"] = torch.arange(length)[None]
    return state


def write_part(folder: Path, part: str, model: torch.nn.Module) -> None:
    """A model as a pickle of its tensors, with a config of then."""
    (folder / part).mkdir(parents=True)
    diffusers = part in ("unet", "vae")
    name = "diffusion_pytorch_model.bin" if diffusers else "pytorch_model.bin"
    torch.save(old_names(part, model.state_dict()), folder / part / name)
    config = dict(model.config) if diffusers else model.config.to_dict()
    if diffusers:
        config |= {"_class_name": type(model).__name__, "_diffusers_version": "0.2.2"}
        config = {key: value for key, value in config.items() if key not in LATER}
    if part == "text_encoder":
        config |= {**TEXT_IDS, "torch_dtype": "float32", "transformers_version": "4.19.2"}
        config.pop("dtype", None)
    write_json(folder / part / "config.json", json.loads(json.dumps(config, default=str)))


def write_rest(folder: Path, spiece: Path, tokenizer_config: dict, crop: int) -> None:
    """Tokenizer (a sentencepiece file and its config), scheduler, image processor, index, licence."""
    write_json(folder / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", **tokenizer_config})
    (folder / "tokenizer" / "spiece.model").write_bytes(spiece.read_bytes())
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {
            "_class_name": "PNDMScheduler",
            "_diffusers_version": "0.2.2",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "skip_prk_steps": True,
            "tensor_format": "pt",
            "trained_betas": None,
        },
    )
    write_json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": crop, "crop_size": crop, "resample": 3}
        | {"do_resize": True, "do_center_crop": True, "do_normalize": True},
    )
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "JapaneseStableDiffusionPipeline",
            "_diffusers_version": "0.2.2",
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            "safety_checker": ["japanese_stable_diffusion", "StableDiffusionSafetyChecker"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "T5Tokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    (folder / "LICENSE").write_text("CreativeML Open RAIL-M\n")
    (folder / "README.md").write_text("# Japanese Stable Diffusion\n")


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def write_full_size(folder: Path, spiece: Path) -> None:
    """Write a model of the sizes of Stable Diffusion v1.4 with random weights (5.3 GB), whole or not at all.

    Raises FileExistsError if `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it, or name another folder")
    torch.manual_seed(0)
    work = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    for part, model in full_size_parts():
        write_part(work, part, model)
    write_rest(work, spiece, {"do_lower_case": False, "extra_ids": 0, "model_max_length": 77}, crop=224)
    work.rename(folder)


def full_size_parts() -> Iterator[tuple[str, torch.nn.Module]]:
    """Text encoder of CLIP ViT-L with 32,000 tokens, UNet of 859.5 M parameters, VAE of 83.7 M, safety checker."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    text = CLIPTextConfig(**sizes, vocab_size=32_000, max_position_embeddings=77, hidden_act="quick_gelu")
    yield "text_encoder", CLIPTextModel(text)
    yield (
        "unet",
        UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        ),
    )
    yield (
        "vae",
        AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
    )
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 49_408},
        vision_config={**vision, "image_size": 224, "patch_size": 14},
        projection_dim=768,
    )
    yield "safety_checker", StableDiffusionSafetyChecker(config)
