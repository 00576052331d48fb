"""What the embedded model's stages share: drawings as latents, captions, tokenizers, and pictures to watch by."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from tqdm import tqdm
from transformers import CLIPTextModel

from embedded import autoencoder, pictures, text_to_image
from embedded.captions import ENGLISH, JAPANESE, Language, caption, swap_kana
from embedded.drawings import Drawing, load_concepts
from embedded.styles import PAIRS, STYLES, render
from jsd.images import sheet
from jsd.tokenizer import Tokenizer
from jsd.train.tokenizer import EDGE, train_tokenizer
from jsd.train.trainer import save_atomically

MAX_LENGTH = 32
PREVIEW = {
    ENGLISH: "cat, oil painting|salaryman, oil painting|mount fuji on a blue background|tengu, watercolour|tokyo tower|"
    "torii|cherry blossom|carp streamer|sushi|ramen|bullet train, pixel art|dog and cat",
    JAPANESE: "猫 油絵|サラリーマン 油絵|青い背景の富士山|天狗 水彩画|東京タワー|鳥居|"
    "桜|鯉のぼり|寿司|ラーメン|新幹線 ドット絵|犬と猫",
}


def tokenizer_texts(drawings: list[Drawing], language: Language, count: int = 60_000) -> list[str]:
    """Captions for the tokenizer to learn from, and every name once by itself, in Japanese in both kana."""
    rng = np.random.default_rng(0)
    names = [name for concept in load_concepts() for name in language.names(concept)]
    if language.kana:
        names += [swap_kana(name) for name in names]
    styles = list(STYLES)
    chosen = rng.integers(len(drawings), size=count)
    return [caption((drawings[i],), styles[rng.integers(len(styles))], rng, language, EDGE) for i in chosen] + names


def picture_weights(drawings: list[Drawing], index: pictures.Pictures, share_of_two: float) -> np.ndarray:
    """How often each picture is drawn: every concept alike but for the square root of its drawings, plain ones
    2.5 times; all those of two things together `share_of_two`.
    """
    count: dict[str, int] = {}
    for drawing in drawings:
        count[drawing.concept.id] = count.get(drawing.concept.id, 0) + 1
    weights = np.array([count[drawings[shown[0]].concept.id] ** -0.5 for shown in index.drawings])
    weights *= np.where(np.array(index.style) == "plain", 2.5, 1.0)
    two = np.array([len(shown) == 2 for shown in index.drawings])
    for part, share in ((two, share_of_two), (~two, 1 - share_of_two)):
        weights[part] *= share / max(weights[part].sum(), 1e-9)
    return weights / weights.sum()


def encode_all(latents: autoencoder.LinearLatents, pixels: np.ndarray, file: Path) -> torch.Tensor:
    """The latents of all pictures as fp16 (n, 64, 8, 8), computed once."""
    if not file.exists():
        parts = [
            latents.encode(autoencoder.to_tensor(pixels[i : i + 100])).half()
            for i in tqdm(range(0, len(pixels), 100), "latents")
        ]
        save_atomically(torch.cat(parts), file)
    return torch.load(file, weights_only=True)


def check_sources(work: Path, drawings: list[Drawing]) -> None:
    """What `work` keeps was made from certain drawings, names, styles and captions: raises FileExistsError if they have
    changed since.
    """
    # By what the code makes, not by its text: a comment should not cost hours.
    digest, rng = hashlib.sha256(), np.random.default_rng(0)
    for drawing in drawings:
        digest.update(repr((drawing.concept, drawing.svg, pictures.styles_of(drawing))).encode())
    for style in [*STYLES, *PAIRS]:
        digest.update(render(drawings[0].rgba, style).tobytes())
        for _ in range(20):
            for language in (ENGLISH, JAPANESE):
                digest.update(caption((drawings[0],), style, rng, language).encode())
    file = work / "sources.sha256"
    if file.exists() and file.read_text() != digest.hexdigest():
        raise FileExistsError(f"{work}: made from other drawings, names or styles; delete it or take another --workdir")
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(digest.hexdigest())


@dataclass
class Studio:
    """What the stages share: where they work, the data, and how latents become pictures."""

    work: Path
    drawings: list[Drawing]
    index: pictures.Pictures
    latents: autoencoder.LinearLatents
    encoded: torch.Tensor

    def data(self, language: Language, share_of_two: float) -> text_to_image.Batches:
        """The pictures with captions in a language."""
        return text_to_image.Batches(
            self.encoded,
            picture_weights(self.drawings, self.index, share_of_two),
            partial(self._caption, language),
            self.tokenizer(language),
        )

    def tokenizer(self, language: Language) -> Tokenizer:
        """A language's tokenizer, trained first if it is not there."""
        folder = self.tokenizer_folder(language)
        if not (folder / "spiece.model").exists():
            texts = tokenizer_texts(self.drawings, language)
            # The base's reads bytes where it has no piece, as CLIP's does: so Japanese is not silently nothing to it.
            train_tokenizer(texts, folder, 4000, MAX_LENGTH, byte_fallback=language is ENGLISH)
        return Tokenizer.from_folder(folder)

    def tokenizer_folder(self, language: Language) -> Path:
        return self.work / f"tokenizer-{language.code}"

    def _caption(self, language: Language, i: int, rng: np.random.Generator) -> str:
        shown = tuple(self.drawings[k] for k in self.index.drawings[i])
        return caption(shown, self.index.style[i], rng, language)

    def preview(
        self,
        language: Language,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        file: Path,
        guidance: float = 1.5,
    ) -> None:
        """Draw PREVIEW with 10 DDIM steps from fixed noise into one picture."""
        prompts, tokenizer = PREVIEW[language].split("|"), self.tokenizer(language)
        scheduler = DDIMScheduler(**text_to_image.NOISE_SCHEDULE)
        scheduler.set_timesteps(10)
        with torch.no_grad():
            ids = torch.tensor([tokenizer(text).ids for text in [*prompts, *[""] * len(prompts)]])
            states = text_encoder(ids).last_hidden_state
            x_t = torch.randn(len(prompts), autoencoder.CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
            for t in scheduler.timesteps:
                v, v_none = unet(torch.cat([x_t, x_t]), t, states).sample.chunk(2)
                x_t = scheduler.step(v_none + guidance * (v - v_none), t, x_t).prev_sample
            pixels = ((self.latents.decode(x_t).clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
        sheet([Image.fromarray(picture) for picture in pixels], 160).save(file)
