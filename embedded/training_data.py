"""The training data of the embedded model: latents of all pictures, captions and tokenizers in both languages."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from embedded import pictures
from embedded.captions import ENGLISH, JAPANESE, Language, caption, swap_kana
from embedded.drawings import Drawing, load_concepts
from embedded.latents import LinearLatents, read_tensors
from embedded.styles import PAIRS, STYLES, render
from jsd.atomic import atomic_file, write_text
from jsd.errors import TrainingError
from jsd.tokenizer import Tokenizer
from jsd.train.tokenizer import EDGE, train_tokenizer
from jsd.vae import to_tensor

MAX_LENGTH = 32  # tokens per caption
VOCABULARY = 4000  # tokens at most


@dataclass
class Batches:
    """A source of training batches (latents and captions) in one language.

    `latents` (n, channels, 8, 8) are those of all pictures. `weights` (n) are the probabilities with which the pictures
    are chosen. `caption(i, rng)` composes a caption for picture i.
    """

    latents: torch.Tensor
    weights: np.ndarray
    caption: Callable[[int, np.random.Generator], str]
    tokenizer: Tokenizer

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Choose pictures at random and compose a caption for each. Returns latents (batch, channels, 8, 8), token ids
        (batch, tokens) and, for each sample, a text that seeds its noise and timestep.
        """
        chosen = rng.choice(len(self.latents), batch, p=self.weights)
        texts = [self.caption(i, rng) for i in chosen]
        # A picture may be drawn twice. The place in the batch keeps the keys different.
        keys = [f"{place} {i}" for place, i in enumerate(chosen)]
        return self.latents[torch.from_numpy(chosen)].float(), self.ids(texts), keys

    def ids(self, texts: list[str]) -> torch.Tensor:
        """Return the token ids of captions, (captions, tokens)."""
        return torch.tensor([self.tokenizer(text).ids for text in texts])


@dataclass
class TrainingData:
    """All that the stages of `jsd.train.stages` are trained on, kept in the folder `work`. Make it with `prepare`.

    `index` holds the rendered pictures, `latents` the linear encoder, and `encoded` the latents of all
    pictures, float16 (n, channels, 8, 8).
    """

    work: Path
    drawings: list[Drawing]
    index: pictures.Pictures
    latents: LinearLatents
    encoded: torch.Tensor

    @classmethod
    def prepare(cls, work: Path, drawings: list[Drawing], device: torch.device) -> "TrainingData":
        """Render all pictures and compute their latents on `device`, or read both from `work` if they are there. Raises
        `TrainingError` if the files in `work` were made from other drawings, names, styles or captions.
        """
        check_sources(work, drawings)
        index = pictures.build(work, drawings)
        latents = LinearLatents.cached(work / "latents.pt", index.images, device)
        return cls(work, drawings, index, latents, encode_all(latents, index.images, work / "encoded.pt"))

    def batches(self, language: Language, share_of_two: float) -> Batches:
        """Return the source of batches with captions in `language`. On average, the share `share_of_two` of a batch are
        pictures of two concepts.
        """
        return Batches(
            self.encoded,
            picture_weights(self.drawings, self.index, share_of_two),
            partial(self._caption, language),
            self.tokenizer(language),
        )

    def tokenizer(self, language: Language) -> Tokenizer:
        """Return the tokenizer of `language`. If it does not exist yet, it is trained first."""
        folder = self.tokenizer_folder(language)
        if not (folder / "spiece.model").exists():
            texts = tokenizer_texts(self.drawings, language)
            # The English tokenizer falls back to bytes, as CLIP's does. Without that, all Japanese would be unknown.
            train_tokenizer(texts, folder, VOCABULARY, MAX_LENGTH, byte_fallback=language is ENGLISH)
        return Tokenizer.from_folder(folder)

    def tokenizer_folder(self, language: Language) -> Path:
        return self.work / f"tokenizer-{language.code}"

    def _caption(self, language: Language, i: int, rng: np.random.Generator) -> str:
        drawings = tuple(self.drawings[k] for k in self.index.drawings[i])
        return caption(drawings, self.index.style[i], rng, language)


def check_sources(work: Path, drawings: list[Drawing]) -> None:
    """Raise `TrainingError` if the files in `work` were made from other drawings, names, styles or captions. Otherwise
    a hash of these is written there for the next check.
    """
    # The hash covers what the code makes instead of its text, so that an edited comment does not cost hours.
    digest, rng = hashlib.sha256(), np.random.default_rng(0)
    for drawing in drawings:
        digest.update(repr((drawing.concept, drawing.svg, pictures.styles_of(drawing))).encode())
    for style in [*STYLES, *PAIRS]:
        digest.update(render(drawings[0].rgba, style).tobytes())
        for _ in range(20):
            for language in (ENGLISH, JAPANESE):
                digest.update(caption((drawings[0],), style, rng, language).encode())
    file = work / "sources.sha256"
    if file.exists() and file.read_text("utf-8", "replace") != digest.hexdigest():
        raise TrainingError(
            f"{work}: made from other drawings, names or styles; delete the folder or choose another --workdir"
        )
    work.mkdir(parents=True, exist_ok=True)
    write_text(file, digest.hexdigest())


def encode_all(latents: LinearLatents, pixels: np.ndarray, file: Path) -> torch.Tensor:
    """Return the latents of all pictures, float16 (n, channels, 8, 8) on the CPU, from `file`. If it is missing, they
    are computed first, on the device of `latents`.
    """
    if not file.exists():
        parts = [
            latents.encode(to_tensor(pixels[i : i + 100]).to(latents.basis.device)).half().cpu()
            for i in tqdm(range(0, len(pixels), 100), "latents")
        ]
        with atomic_file(file) as part:
            torch.save(torch.cat(parts), part)
    return read_tensors(file, "cpu")


def picture_weights(drawings: list[Drawing], index: pictures.Pictures, share_of_two: float) -> np.ndarray:
    """Return the probability of each picture to be chosen. They sum to 1.

    A picture's weight is one over the square root of the number of drawings that its first concept has, times 2.5 for
    the plain style. Weights are then scaled so that all pictures of two concepts together have the probability
    `share_of_two`.
    """
    count: dict[str, int] = {}
    for drawing in drawings:
        count[drawing.concept.id] = count.get(drawing.concept.id, 0) + 1
    weights = np.array([count[drawings[chosen[0]].concept.id] ** -0.5 for chosen in index.drawings])
    weights *= np.where(np.array(index.style) == "plain", 2.5, 1.0)
    two = np.array([len(chosen) == 2 for chosen in index.drawings])
    for part, share in ((two, share_of_two), (~two, 1 - share_of_two)):
        weights[part] *= share / max(weights[part].sum(), 1e-9)
    return weights / weights.sum()


def tokenizer_texts(drawings: list[Drawing], language: Language, count: int = 60_000) -> list[str]:
    """Return a tokenizer's training texts: `count` random captions, and all names, kana names in both kana."""
    rng = np.random.default_rng(0)
    names = [name for concept in load_concepts() for name in language.names(concept)]
    if language.kana:
        names += [swap_kana(name) for name in names]
    styles = list(STYLES)
    chosen = rng.integers(len(drawings), size=count)
    return [caption((drawings[i],), styles[rng.integers(len(styles))], rng, language, EDGE) for i in chosen] + names
