"""Write models of today in the layout of 2022, which `jsd.genuine.convert` reads. Tests and bench/ use it."""

import json
from pathlib import Path

import torch

TEXT_IDS = {"bos_token_id": 49406, "eos_token_id": 49407}  # those of CLIP's English tokenizer
LATER = ("scaling_factor", "shift_factor", "force_upcast", "mid_block_add_attention")  # no settings of 2022


def old_names(part: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a part under their names of 2022, with the position ids that were stored then."""
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
    """Write a model as a pickle of its tensors, with a config of 2022."""
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
    """Write everything but the models: tokenizer, scheduler, image processor, index and licence.

    `spiece` is a sentencepiece model, and `crop` the size of the safety checker's pictures in pixels.
    """
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
    """Write `value` as JSON. The folder of the file is made if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
