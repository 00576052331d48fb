"""Draw the same prompts whenever a training stage is saved, to watch the progress."""

from pathlib import Path

import numpy as np
from PIL import Image

from embedded.generate import decoded_jobs
from jsd.atomic import atomic_file
from jsd.images import sheet
from jsd.request import Defaults, Request
from jsd.train.parts import Parts, in_training

PROMPTS = {
    "en": "a cat|portrait of a cat, oil painting|a businessman, oil painting|mount fuji, ukiyo-e|"
    "a torii under the night sky|a dog in a meadow|a cherry blossom in front of mount fuji|"
    "a dog to the right of a cat|three cats|a red car|a panda in space, pixel art|onigiri in a tatami room|"
    "a tengu, sumi-e|a hot spring in the snow|a dolphin under the sea|a paper lantern at a festival|"
    "a fox in the forest|mount fuji on a red background",
    "ja": "猫|猫の肖像画 油絵|サラリーマン 油絵|富士山 浮世絵|夜空の下の鳥居|草原の犬|富士山の前の桜|"
    "猫の右に犬|三匹の猫|赤い車|宇宙にいるパンダ ドット絵|和室のおにぎり|天狗 水墨画|雪の中の温泉|"
    "海の中のイルカ|お祭りの提灯|森の中の狐|赤い背景の富士山",
}


def draw_preview(parts: Parts, defaults: Defaults, language: str, count: int, file: Path) -> None:
    """Draw the first `count` of PROMPTS with the model in training, each with seed 0, into one picture."""
    components = in_training(parts, defaults)
    requests = [Request(prompt, seed=0) for prompt in PROMPTS[language].split("|")[:count]]
    pictures = [job.pictures[0] for job in decoded_jobs(components, requests)]
    with atomic_file(file) as part:
        sheet(pictures, 160).save(part)


def draw_restored(pictures: np.ndarray, restored: np.ndarray, file: Path) -> None:
    """Write pictures, uint8 (n, h, w, 3), each above what the autoencoder made of it, into one picture."""
    both = np.concatenate([pictures, restored], 1)
    with atomic_file(file) as part:
        sheet([Image.fromarray(pair) for pair in both], 2 * pictures.shape[1], columns=4).save(part)
