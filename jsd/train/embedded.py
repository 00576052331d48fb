"""The embedded model, from nothing to a folder: `python -m jsd train embedded` (or `script/train-embedded`).

Drawings -> pictures -> closed-form latents -> tokenizer -> text encoder and UNet -> autoencoder -> safety checker ->
`weights/embedded`. Every
stage writes its checkpoints and its curve (`*.jsonl`) to the work folder; run it again and it goes on where it stopped.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from tqdm import tqdm
from transformers import CLIPImageProcessorPil, CLIPTextModel

from jsd.tokenizer import Tokenizer
from jsd.train import autoencoder, pictures, safety_checker, text_to_image
from jsd.train.captions import caption, swap_kana
from jsd.train.drawings import ICON_SETS, Drawing, fetch, load_concepts, load_drawings
from jsd.train.loop import Plan, make_accelerator, save_atomically
from jsd.train.styles import PAIRS, STYLES, render
from jsd.train.tokenizer import EDGE, train_tokenizer
from jsd.weights import MANIFEST, write_manifest

MAX_LENGTH = 32
DEFAULTS = {
    "width": 256,
    "height": 256,
    "num_inference_steps": 12,
    "guidance_scale": 2.0,
    "scheduler": "DDIM",
}
# (plan, batch size) for the decoder up to 32, 64, 128 and 256 pixels.
DECODER = [
    (Plan(1500, 3e-3, seed=1), 32),
    (Plan(500, 2e-3, seed=2), 16),
    (Plan(400, 2e-3, seed=3), 12),
    (Plan(1200, 1.5e-3, seed=4, ema=0.995), 8),
]
ENCODER = Plan(1200, 2e-3, warmup=50, seed=6, ema=0.99)
TEXT = Plan(2000, 1.5e-3, seed=7)
DIFFUSION = Plan(15500, 1.5e-3, seed=8, ema=0.999, save_every=500)
SAFETY = Plan(2500, 2e-3, warmup=100, seed=9, ema=0.99)
PREVIEW = (
    "猫 油絵|サラリーマン 油絵|青い背景の富士山|天狗 水彩画|東京タワー|鳥居|"
    "桜|鯉のぼり|寿司|ラーメン|新幹線 ドット絵|犬 鉛筆画"
)


def tokenizer_texts(drawings: list[Drawing], count: int = 60_000) -> list[str]:
    """Captions for the tokenizer to learn from, and every name once by itself in both kana."""
    rng = np.random.default_rng(0)
    names = [name for concept in load_concepts() for name in concept.ja]
    chosen = rng.integers(len(drawings), size=count)
    styles = list(STYLES)
    captions = [caption(drawings[i], styles[rng.integers(len(styles))], rng, EDGE) for i in chosen]
    return captions + names + [swap_kana(name) for name in names]


def picture_weights(drawings: list[Drawing], index: pictures.Pictures) -> np.ndarray:
    """How often each picture is drawn: every concept alike but for the square root of its drawings, plain ones
    2.5 times.
    """
    count = {}
    for drawing in drawings:
        count[drawing.concept.id] = count.get(drawing.concept.id, 0) + 1
    share = [count[drawings[i].concept.id] ** -0.5 for i in index.drawing]
    weights = np.array(share) * np.where(np.array(index.style) == "plain", 2.5, 1.0)
    return weights / weights.sum()


def encode_all(latents: autoencoder.LinearLatents, images: np.ndarray, file: Path) -> torch.Tensor:
    """The latents of all pictures as fp16 (n, 64, 8, 8), computed once."""
    if not file.exists():
        parts = [
            latents.encode(autoencoder.to_tensor(images[i : i + 100])).half()
            for i in tqdm(range(0, len(images), 100), "latents")
        ]
        save_atomically(torch.cat(parts), file)
    encoded = torch.load(file, weights_only=True)
    if len(encoded) != len(images):
        raise ValueError(
            f"{file} holds {len(encoded)} latents, but there are {len(images)} pictures; delete its folder"
        )
    return encoded


def preview(
    prompts: list[str],
    tokenizer: Tokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    decode: Callable[[torch.Tensor], torch.Tensor],
    file: Path,
    guidance: float = 1.5,
) -> None:
    """Draw the prompts with 10 DDIM steps from fixed noise into one picture, a multiple of six of them."""
    scheduler = DDIMScheduler(**text_to_image.NOISE_SCHEDULE)
    scheduler.set_timesteps(10)
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text).ids for text in [*prompts, *[""] * len(prompts)]])
        states = text_encoder(ids).last_hidden_state
        x_t = torch.randn(len(prompts), autoencoder.CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            v, v_none = unet(torch.cat([x_t, x_t]), t, states).sample.chunk(2)
            x_t = scheduler.step(v_none + guidance * (v - v_none), t, x_t).prev_sample
        images = decode(x_t).clamp(-1, 1)
    rows = images.unflatten(0, (-1, 6)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    Image.fromarray(((rows + 1) * 127.5).byte().numpy()).save(file)


def export(folder: Path, parts: dict, tokenizer: Path, about: dict) -> None:
    """Write the model as a standard diffusers folder in fp16 with its manifest: to a temporary name first, then
    renamed.
    """
    work = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    for name, part in parts.items():
        part.half().save_pretrained(work / name, safe_serialization=True)
        part.float()
        config = work / name / "config.json"
        settings = json.loads(config.read_text())
        if (
            "dtype" in settings
        ):  # else transformers would load its parts in fp16, and stock diffusers the others in fp32
            config.write_text(json.dumps(settings | {"dtype": "float32"}, indent=2) + "\n")
    shutil.copytree(tokenizer, work / "tokenizer")
    DDIMScheduler(**text_to_image.NOISE_SCHEDULE, set_alpha_to_one=False, steps_offset=1).save_pretrained(
        work / "scheduler"
    )
    safety_checker.image_processor().save_pretrained(work / "feature_extractor")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": ["transformers", CLIPImageProcessorPil.__name__],
        "requires_safety_checker": True,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (work / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    write_manifest(work, name="jsd-embedded", defaults=DEFAULTS, **about)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(work, folder)
    shutil.rmtree(old, ignore_errors=True)


def check_target(folder: Path) -> None:
    """Raises FileExistsError, before any work, if `folder` holds anything but a model, which `export` replaces."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is there and is no model folder; name one that can be replaced, or a new one")


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
            digest.update(caption(drawings[0], style, rng).encode())
    file = work / "sources.sha256"
    if file.exists() and file.read_text() != digest.hexdigest():
        raise FileExistsError(
            f"{work}: was made from other drawings, names or styles; delete it or take another --workdir"
        )
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(digest.hexdigest())


def about(count: int) -> dict:
    """What the manifest says of the training, the data and their licences."""
    return {
        "training": f"script/train-embedded: {count} pictures, {DIFFUSION.steps} diffusion steps of 64, v-prediction",
        "data": {name: f"{package} {version}: {licence}" for name, (package, version, licence) in ICON_SETS.items()},
        "names": "jsd/train/concepts.tsv, with Unicode CLDR annotations (Unicode-3.0) as a source",
        "licence": "Apache-2.0",
        "held_out": "one (concept, style) pair in ten: jsd.train.pictures.held_out",
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m jsd train embedded", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="checkpoints, curves, icons (default: runs)")
    parser.add_argument("--to", type=Path, default=Path("weights/embedded"), help="where the model goes")
    args = parser.parse_args(argv)
    work = args.workdir / "embedded"
    check_target(args.to)
    fetch(args.workdir / "icons")
    drawings = load_drawings(args.workdir / "icons")
    check_sources(work, drawings)
    index = pictures.build(work, drawings)
    accelerator = make_accelerator(cpu=True)

    latents = autoencoder.LinearLatents.cached(work / "latents.pt", index.images)
    tokenizer_folder = work / "tokenizer"
    if not (tokenizer_folder / "spiece.model").exists():
        train_tokenizer(tokenizer_texts(drawings), tokenizer_folder, vocab_size=4000, max_length=MAX_LENGTH)
    tokenizer = Tokenizer.from_folder(tokenizer_folder)
    data = text_to_image.Batches(
        encode_all(latents, index.images, work / "encoded.pt"),
        picture_weights(drawings, index),
        lambda i, rng: caption(drawings[index.drawing[i]], index.style[i], rng),
        tokenizer,
    )
    torch.manual_seed(0)
    text_encoder, unet = text_to_image.make_text_encoder(tokenizer), text_to_image.make_unet()
    text_to_image.pretrain_text(text_encoder, data, TEXT, work, accelerator)

    def show(step: int) -> None:
        preview(PREVIEW.split("|"), tokenizer, text_encoder, unet, latents.decode, work / f"preview-{step:06d}.png")

    text_to_image.train_diffusion(text_encoder, unet, data, DIFFUSION, work, accelerator, on_save=show)

    torch.manual_seed(0)
    vae = autoencoder.make_vae()
    autoencoder.train_decoder(vae, index.images, latents, DECODER, work, accelerator)
    autoencoder.train_encoder(vae, index.images, latents, ENCODER, work, accelerator, batch=4)
    checker = safety_checker.train(drawings, index, SAFETY, work, accelerator)
    parts = {"text_encoder": text_encoder, "unet": unet, "vae": vae, "safety_checker": checker}
    export(args.to, parts, tokenizer_folder, about(len(index.images)))
    print(f"wrote {args.to}")
