"""The architectures of the embedded model's parts, with random weights, and the noise schedule of its UNet.

All are classes of diffusers and transformers that Stable Diffusion 1.x uses, only smaller, so that stock diffusers
opens the result.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel

from jsd.tokenizer import Tokenizer

SIDE = 256  # pixels per side of the model's own size
CELL = 8  # pixels per latent position
CHANNELS = 8  # of the latents
HEADS = 8
CHECKER_SIDE = 64  # pixels per side of the pictures that the safety checker sees
CHECKER_WIDTH = 64  # of the safety checker's embeddings
NEVER = 2.0  # a threshold that no cosine reaches
# The scaled_linear betas of Stable Diffusion, which every sampler supports, but with a higher last beta. At the last
# timestep the signal is 0.015 instead of 0.068, so that the colour of a ground can't be seen there.
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


@dataclass(frozen=True)
class Sizes:
    """The channels of autoencoder and UNet at their four resolutions, and the text encoder's width and layers."""

    vae: tuple[int, ...]
    unet: tuple[int, ...]
    width: int
    layers: int


FULL = Sizes((32, 64, 128, 128), (64, 128, 256, 320), 320, 5)  # 3.9 M, 29.7 M and 9.4 M parameters
TINY = Sizes((16, 16, 16, 16), (32, 32, 32, 32), 32, 1)  # learns nothing to speak of, in a minute


def make_vae(sizes: Sizes = FULL) -> AutoencoderKL:
    """Return a new autoencoder: 256 x 256 RGB pixels to latents (CHANNELS, 32, 32) and back."""
    levels = len(sizes.vae)
    vae = AutoencoderKL(
        block_out_channels=sizes.vae,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=16,
        sample_size=SIDE,
        scaling_factor=1.0,
    )
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):  # each residual branch starts at zero
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    return vae.to(memory_format=torch.channels_last)


def make_text_encoder(tokenizer: Tokenizer, sizes: Sizes = FULL) -> CLIPTextModel:
    """Return a new CLIP text encoder for the vocabulary and length of `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.vocabulary_size,
            hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=HEADS,
            max_position_embeddings=tokenizer.max_length,
            projection_dim=sizes.width,
            pad_token_id=tokenizer.pad_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_id,
        )
    )


def make_unet(sizes: Sizes = FULL) -> UNet2DConditionModel:
    """Return a new UNet for latents (CHANNELS, 32, 32). Cross-attention is at 16 x 16 and 8 x 8 positions. Besides, it
    pools the text embeddings by attention and adds the result to the time embedding.
    """
    unet = UNet2DConditionModel(
        sample_size=SIDE // CELL,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=sizes.unet,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=sizes.width,
        attention_head_dim=HEADS,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=HEADS,
    )
    for name, parameter in unet.named_parameters():
        if name.endswith(("conv2.weight", "conv2.bias", "proj_out.weight", "proj_out.bias", "conv_out.weight")):
            torch.nn.init.zeros_(parameter)  # each residual branch starts at zero, and so does the prediction
    return unet.to(memory_format=torch.channels_last)


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
