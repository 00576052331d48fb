"""The judge of generated pictures: it tells which things a picture shows, where, in which colour, on which ground, and
in which style.

It is trained on renderings of scenes alone, held-out compositions included, and never on a generated picture (see
`embedded.judge_training`). The file holds its own accuracy on renderings that it has not seen.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from embedded.judge_network import SIDE, STRIDE, Network
from embedded.packing import pack, unpack
from jsd.atomic import atomic_file, give_usual_permissions, write_text
from jsd.errors import WeightsError, shown
from jsd.manifest import ROOT
from jsd.vae import to_tensor

FILE = ROOT / "judge" / "judge.safetensors"
KINDS = ("concepts", "colours", "styles", "grounds")  # what a judge knows the names of
THRESHOLD = 0.35  # the least heat of a cell with a thing in it
MOST = 6  # things seen in one picture


@dataclass(frozen=True)
class Sight:
    """A thing in a picture: a concept's id, the colour of THING_COLOURS that comes nearest, and its middle in shares of
    the width and the height.
    """

    concept: str
    colour: str
    x: float
    y: float


@dataclass(frozen=True)
class Verdict:
    """The judge's answer for a picture: its things, the surest first, its style and its ground (a colour or a place).
    A picture always has a thing. A missing picture has the verdict NOTHING.
    """

    things: tuple[Sight, ...]
    style: str
    ground: str


NOTHING = Verdict((), "", "")


class Judge:
    """A network that knows the names of KINDS. `accuracy` holds the shares of unseen renderings, from 0 to 1, that it
    is right about, by the rows of `embedded.scores`. It is empty until they are measured.
    """

    def __init__(self, names: Mapping[str, Sequence[str]], network: Network, accuracy: Mapping | None = None):
        self.names = {kind: list(names[kind]) for kind in KINDS}
        self.network, self.accuracy = network, dict(accuracy or {})

    def __call__(self, images: Sequence[Image.Image | None]) -> list[Verdict]:
        """Return one `Verdict` per picture. The pictures may have any size, and None is a missing one."""
        by_shape: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
        for i, image in enumerate(images):
            if image is not None:
                small = shrink(image)
                by_shape.setdefault(small.shape, {})[i] = small
        found: dict[int, Verdict] = {}
        for pictures in by_shape.values():
            found |= zip(pictures, self.judge(np.stack(list(pictures.values()))), strict=True)
        return [found.get(i, NOTHING) for i in range(len(images))]

    @torch.inference_mode()
    def judge(self, images: np.ndarray) -> list[Verdict]:
        """Return one `Verdict` per picture of `images`, uint8 (n, h, w, 3), whose sides are multiples of STRIDE."""
        device = next(self.network.parameters()).device
        verdicts = []
        for part in np.split(images, range(64, len(images), 64)):
            cells, heat, style, ground = self.network.look(to_tensor(part, device))
            heat, (down, across) = heat.sigmoid(), heat.shape[1:]
            highest = heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]
            # The surest cell counts even below the threshold.
            there = highest & (heat >= heat.amax((1, 2), keepdim=True).clamp(max=THRESHOLD))
            picture, row, column = there.nonzero(as_tuple=True)
            concept, colour = (y.argmax(1) for y in self.network.name(cells[picture, :, row, column]))
            columns = (picture, row, column, heat[picture, row, column], concept, colour)
            things: list[list[tuple[float, Sight]]] = [[] for _ in part]
            for i, y, x, sure, c, k in zip(*(values.tolist() for values in columns), strict=True):
                names = self.names["concepts"][c], self.names["colours"][k]
                things[i].append((sure, Sight(*names, (x + 0.5) / across, (y + 0.5) / down)))
            for found, s, g in zip(things, style.argmax(1).tolist(), ground.argmax(1).tolist(), strict=True):
                surest = sorted(found, key=lambda pair: -pair[0])[:MOST]
                about = self.names["styles"][s], self.names["grounds"][g]
                verdicts.append(Verdict(tuple(sight for _, sight in surest), *about))
        return verdicts

    def save(self, file: Path) -> None:
        """Write the judge to `file`, a safetensors file with weights in few bits, and its sha256 to `file`.sha256."""
        about = self.names | {"accuracy": self.accuracy, "widths": self.network.widths}
        with atomic_file(file) as part:
            save_file(pack(self.network.state_dict()), part, {"about": json.dumps(about, ensure_ascii=False)})
            give_usual_permissions(part)
        write_text(_sum_of(file), f"{_sha256(file)}  {file.name}\n")

    @classmethod
    def load(cls, file: Path = FILE) -> "Judge":
        """Read a judge from a file that `save` wrote, on the CPU. Raises `WeightsError` if the file is missing or
        unreadable, or if it is not the one that `file`.sha256, where there is one, was written for.
        """
        name = shown(str(file))
        if not file.is_file():
            raise WeightsError(
                "{}: no such file; check out weights/judge, or train one: python -m embedded.judge_training --help",
                name,
            )
        if _sum_of(file).is_file() and _sum_of(file).read_text("utf-8").split()[:1] != [_sha256(file)]:
            raise WeightsError(
                "{}: its sha256 is not the one in {}; check the file out again", name, _sum_of(file).name
            )
        try:
            with safe_open(file, "pt") as data:
                about = json.loads(data.metadata()["about"])
                network = Network([len(about[kind]) for kind in KINDS], about["widths"])
                packed = {key: data.get_tensor(key) for key in data.keys()}  # noqa: SIM118
            network.load_state_dict(unpack(packed, network.state_dict()))
            return cls(about, network.eval(), about["accuracy"])
        except Exception as error:
            raise WeightsError("{}: no judge is readable from it ({})", name, shown(str(error))[:200]) from error


def shrink(image: Image.Image) -> np.ndarray:
    """Return a picture of any size as the judge sees it: uint8 (h, w, 3), with about as many pixels as a square of
    SIDE, in about its proportions. Its sides are multiples of STRIDE.
    """
    scale = SIDE / math.sqrt(image.width * image.height)
    width, height = (max(1, round(side * scale / STRIDE)) * STRIDE for side in image.size)
    return np.asarray(image.convert("RGB").resize((width, height), Image.BOX))


def _sum_of(file: Path) -> Path:
    return file.with_name(file.name + ".sha256")


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
