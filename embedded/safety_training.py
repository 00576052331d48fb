"""Train the safety checker of the embedded model on, with more of the model's own pictures.

    python -m embedded.safety_training weights/embedded

Two cores take an hour, most of it for drawing. npm fetches the icons. What is drawn stays in --workdir: the same
command with a larger --drawn adds to it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from embedded import safety_checker, safety_examples, workers
from embedded.networks import CHECKER_SIDE, make_checker, make_image_processor
from embedded.replacing import check_places, replace_parts
from embedded.safety_examples import FIRST_SEED, Examples, drawn, rendered, start
from embedded.scenes import Assets, load_assets
from embedded.scenes.concepts import CONCEPTS_FILE
from embedded.scenes.icons import fetch
from embedded.training_data import digest_of
from jsd.atomic import atomic_file
from jsd.cli import CommandParser, exit_code
from jsd.cpu import cores
from jsd.errors import InputError, shown
from jsd.language import Text, speak
from jsd.manifest import MANIFEST, find_weights, read_json
from jsd.model import Components, load, read_part
from jsd.train.options import number, whole
from jsd.train.trainer import check_single, make_accelerator

REPLACED = ("safety_checker", "feature_extractor")
DRAWING = ("tokenizer/", "text_encoder/", "unet/", "vae/", "scheduler/")  # what pictures depend on
EACH = 240  # of the model's own pictures in a file
GOING_ON = replace(safety_checker.PLAN, lr=1e-3, muon=1e-3, flat=0.3)  # from a trained checker


def own_pictures(components: Components, assets: Assets, count: int, folder: Path) -> Examples:
    """Return `count` pictures that the model drew, rounded up to a multiple of EACH. Those that are in `folder` from an
    earlier run are not drawn again.
    """
    found = Examples(np.empty((0, CHECKER_SIDE, CHECKER_SIDE, 3), np.uint8), np.empty((0, len(assets.concepts)), bool))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST_SEED, FIRST_SEED + count, EACH):
        file = folder / f"drawn-{seed}.npz"
        if not file.is_file():
            part = drawn(components, assets, EACH, seed)
            with atomic_file(file) as path, path.open("wb") as data:
                np.savez(data, pixels=part.pixels, shown=part.shown)
        with np.load(file, allow_pickle=False) as part:
            found += Examples(part["pixels"], part["shown"])
    return found


def checker_of(folder: Path) -> StableDiffusionSafetyChecker | None:
    """Return the safety checker of a model folder, None if it has none. Raises `InputError` if the checker has other
    shapes than this project's, since one that knows weapons alone must not replace it.
    """
    if not (folder / "safety_checker").is_dir():
        return None
    checker = read_part(folder, "safety_checker", torch.float32).requires_grad_(True)
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (checker, make_checker())]
    if shapes[0] != shapes[1]:
        raise InputError("folder", "{} has a safety checker of another kind; keep it", shown(str(folder)))
    return checker


def train(arguments: argparse.Namespace) -> None:
    """Train a safety checker as the command line says, and put it into the model's folder."""
    folder = find_weights(arguments.folder).resolve()
    check_places(folder, {"--workdir": arguments.workdir, "--icons": arguments.icons})
    accelerator = make_accelerator(bf16_on_cpu=False)
    check_single(accelerator)
    components = load(folder, accelerator.device, safety_checker=False)
    before = checker_of(folder)
    fetch(arguments.icons)
    sprites = arguments.workdir / "sprites"
    assets = load_assets(arguments.icons, CONCEPTS_FILE, sprites, cores())
    own = own_pictures(components, assets, arguments.drawn, arguments.workdir / _digest(folder))
    with workers.start(arguments.icons, CONCEPTS_FILE, sprites, cores()) as pool:
        examples = rendered(start(pool, arguments.rendered), assets)
    plan = replace(GOING_ON if before else safety_checker.PLAN, seconds=60 * arguments.minutes)
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as work:
        checker = safety_checker.train(assets, examples, own, plan, Path(work), accelerator, arguments.batch, before)
    figures = {"drawn": len(own.pixels), "rendered": arguments.rendered, "minutes": arguments.minutes}
    replace_parts(folder, dict(zip(REPLACED, (checker, make_image_processor()), strict=True)), "safety", figures)
    print(Text("wrote {}", folder / "safety_checker"))


def _digest(folder: Path) -> str:
    """Return a name for pictures: another model, other defaults, concepts or scenes for them have another."""
    about = read_json(folder / MANIFEST)
    files = {path: entry["sha256"] for path, entry in about["files"].items() if path.startswith(DRAWING)}
    asked = Path(safety_examples.__file__).read_bytes()
    return digest_of(sorted(files.items()), about.get("defaults"), asked, table=CONCEPTS_FILE)[:12]


def main(argv: Sequence[str]) -> int:
    """Train the checker on as the command line `argv` says. Returns the exit code: 0, or 2 after an error."""
    speak()
    parser = CommandParser(prog="python -m embedded.safety_training", description=Text("Train the safety checker on."))
    add = parser.add_argument
    add("folder", type=Path, help="the model, whose safety checker is replaced")
    add("--icons", type=Path, default=Path("runs/icons"), help="icon sets (default: runs/icons)")
    add("--workdir", type=Path, default=Path("runs/safety"), help="drawn pictures (default: runs/safety)")
    add(
        "--drawn",
        type=whole(EACH),
        default=4800,
        help="pictures that the model draws, in 240s (default: 4800)",
    )
    add("--rendered", type=whole(1), default=8000, help="how many scenes are rendered (default: 8000)")
    add("--minutes", type=number(positive=True), default=10.0, help="minutes of training (default: 10)")
    add("--batch", type=whole(2), default=96, help="pictures in a step (default: 96)")
    return exit_code(train, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
