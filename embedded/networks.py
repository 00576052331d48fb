"""The architectures of the embedded model's parts, with random weights, and the noise schedule of its UNet.

All are classes of diffusers and transformers that Stable Diffusion 1.x uses, only smaller, so that stock diffusers
opens the result.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel

from jsd.tokenizer import Tokenizer

CHANNELS = 64  # of the latents; one latent position covers 32 x 32 pixels
WIDTH = 192  # of the text embeddings
CHECKER_SIDE = 64  # pixels per side of the pictures that the safety checker sees
CHECKER_WIDTH = 64  # of the safety checker's embeddings
NEVER = 2.0  # a threshold that no cosine reaches
# The scaled_linear betas of Stable Diffusion, which every sampler supports, but with a higher last beta. At the last
# timestep the signal is 0.015 instead of 0.068. With 0.068 the UNet could still see the background's colour there,
# because these latents are few and strongly correlated.
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def make_vae() -> AutoencoderKL:
    """Return a new autoencoder of 4.7 M parameters: 256 x 256 RGB pixels to latents (64, 8, 8) and back."""
    levels = (16, 24, 48, 96, 128, 128)
    vae = AutoencoderKL(
        block_out_channels=levels,
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=1.0,
    )
    for module in vae.decoder.modules():
        if isinstance(module, ResnetBlock2D):  # each residual branch starts at zero
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    return vae.to(memory_format=torch.channels_last)  # trains a sixth faster on a CPU


def make_text_encoder(tokenizer: Tokenizer) -> CLIPTextModel:
    """Return a new CLIP text encoder with 3 layers of width 192, for the vocabulary and length of `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.vocabulary_size,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=6,
            max_position_embeddings=tokenizer.max_length,
            projection_dim=WIDTH,
            pad_token_id=tokenizer.pad_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """Return a new UNet of 11.8 M parameters for latents (64, 8, 8): 64 channels, 8 x 8 positions. Besides
    cross-attention, it pools the text embeddings by attention and adds the result to the time embedding.
    """
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(144, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
        attention_head_dim=(6, 6),
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=6,
    )
    for name, parameter in unet.named_parameters():
        if name.endswith(("conv2.weight", "conv2.bias", "proj_out.weight", "proj_out.bias")):
            torch.nn.init.zeros_(parameter)  # each residual branch starts at zero
    return unet


def make_checker() -> StableDiffusionSafetyChecker:
    """Return a new safety checker of 0.4 M parameters, for pictures of 64 x 64 pixels. It flags nothing."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": CHECKER_SIDE,
        "patch_size": 8,
        "projection_dim": CHECKER_WIDTH,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=CHECKER_WIDTH))
    checker.concept_embeds_weights.data.fill_(NEVER)
    checker.special_care_embeds_weights.data.fill_(NEVER)
    return checker


def make_image_processor() -> CLIPImageProcessorPil:
    """Return the safety checker's image processor: it scales pictures to 64 x 64 pixels with values in [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"height": CHECKER_SIDE, "width": CHECKER_SIDE},
        do_resize=True,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
