"""Generate pictures for a few fixed prompts during training, to watch the progress."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel

from embedded.captions import ENGLISH, JAPANESE, Language
from embedded.networks import CHANNELS, NOISE_SCHEDULE
from embedded.training_data import TrainingData
from jsd.images import sheet
from jsd.vae import to_pixels

PROMPTS = {
    ENGLISH: "cat, oil painting|salaryman, oil painting|mount fuji on a blue background|tengu, watercolour|tokyo tower|"
    "torii|cherry blossom|carp streamer|sushi|ramen|bullet train, pixel art|dog and cat",
    JAPANESE: "猫 油絵|サラリーマン 油絵|青い背景の富士山|天狗 水彩画|東京タワー|鳥居|"
    "桜|鯉のぼり|寿司|ラーメン|新幹線 ドット絵|犬と猫",
}
STEPS = 10
GUIDANCE = 1.5


@torch.no_grad()
def draw_preview(
    data: TrainingData, language: Language, text_encoder: CLIPTextModel, unet: UNet2DConditionModel, file: Path
) -> None:
    """Generate a picture for each of PROMPTS with DDIM on the UNet's device, always from the same noise, and write them
    into one PNG file. The latents are decoded with the closed-form map, so the autoencoder is not needed. The pictures
    are blurred.
    """
    prompts, tokenizer = PROMPTS[language].split("|"), data.tokenizer(language)
    scheduler = DDIMScheduler(**NOISE_SCHEDULE)
    scheduler.set_timesteps(STEPS)
    ids = torch.tensor([tokenizer(text).ids for text in [*prompts, *[""] * len(prompts)]], device=unet.device)
    context = text_encoder(ids).last_hidden_state
    x_t = torch.randn(len(prompts), CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0)).to(unet.device)
    for t in scheduler.timesteps:
        v_prompt, v_empty = unet(torch.cat([x_t, x_t]), t, context).sample.chunk(2)
        x_t = scheduler.step(v_empty + GUIDANCE * (v_prompt - v_empty), t, x_t).prev_sample
    sheet([Image.fromarray(picture.cpu().numpy()) for picture in to_pixels(data.latents.decode(x_t))], 160).save(file)
