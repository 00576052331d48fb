"""The judge's network: what is in a picture, read on a grid of cells.

It is fully convolutional, with a path up again from its coarsest features (Lin et al. 2017, arXiv 1612.03144), and sees
things as points (Zhou et al. 2019, arXiv 1904.07850, sec. 3): a heat map says in which cells a thing has its middle.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

SIDE = 128  # pixels per side of the pictures that the judge sees
STRIDE = 32  # pixels per side that one position of its coarsest features stands for
CELLS = 16  # per side of its grid
WIDTHS = (48, 96, 192, 256, 320)  # channels at 64, 32, 16, 8 and 4 positions a side


class _Block(nn.Module):
    """A residual block (He et al. 2016, arXiv 1512.03385, fig. 5)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and channels_in == channels
        skip = (nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.skip = nn.Identity() if same else nn.Sequential(*skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.body(x) + self.skip(x)).relu()


class Network(nn.Module):
    """A network that knows so many concepts, colours, styles and grounds. It has 11.8 M parameters with WIDTHS."""

    def __init__(self, known: Sequence[int], widths: Sequence[int] = WIDTHS):
        super().__init__()
        concepts, colours, styles, grounds = known
        self.widths, self.split = tuple(widths), (styles, grounds)
        a, b, c, d, e = widths
        stem = (nn.Conv2d(3, a, 5, 2, 2, bias=False), nn.BatchNorm2d(a), nn.ReLU(), _Block(a, a))
        down = (nn.Sequential(_Block(i, o, 2), _Block(o, o)) for i, o in ((a, b), (b, c), (c, d), (d, e)))
        self.down = nn.ModuleList([nn.Sequential(*stem), *down])
        self.up8, self.up16, self.across = nn.Conv2d(e, d, 1), nn.Conv2d(d, d, 1), nn.Conv2d(c, d, 1)
        self.mix8, self.mix16 = _Block(d, d), nn.Sequential(_Block(d, d), _Block(d, d))
        self.heat = nn.Conv2d(d, 1, 1)
        nn.init.constant_(self.heat.bias, -3.0)  # at first there is nothing anywhere
        self.concept = nn.Linear(d, concepts)
        # What colour a thing has shows in the fine features; which of its parts count, in the coarse ones.
        self.colour = nn.Sequential(nn.Linear(a + b + c + d, 128), nn.ReLU(), nn.Linear(128, colours))
        self.whole = nn.Sequential(nn.Linear(sum(widths), 256), nn.ReLU(), nn.Linear(256, styles + grounds))
        self.to(memory_format=torch.channels_last)

    def look(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map pictures (n, 3, SIDE, SIDE) in [-1, 1] to features of the cells (n, f, CELLS, CELLS), the logits of the
        heat map (n, CELLS, CELLS), and the logits of style and ground, (n, styles) and (n, grounds). Pictures of other
        sizes, in multiples of STRIDE, have as many cells as they have room for.
        """
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        f64, f32, f16, f8, f4 = levels
        x = self.mix8(f8 + F.interpolate(self.up8(f4), scale_factor=2.0))
        x = self.mix16(self.across(f16) + F.interpolate(self.up16(x), scale_factor=2.0))
        cells = torch.cat([x, f16, F.avg_pool2d(f32, 2), F.avg_pool2d(f64, 4)], 1)
        whole = self.whole(torch.cat([level.mean((2, 3)) for level in levels], 1)).float()
        return cells, self.heat(x)[:, 0].float(), *whole.split(self.split, 1)

    def name(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map features of cells (m, f), one row for each thing, to the logits of its concept and its colour."""
        return self.concept(cells[:, : self.widths[3]]).float(), self.colour(cells).float()

    def forward(self, x: torch.Tensor, picture: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> tuple:
        """Return all logits of pictures whose things are known: heat, style, ground, and for each thing, whose cell is
        given by the numbers of its picture, row and column, concept and colour.
        """
        cells, heat, style, ground = self.look(x)
        return heat, style, ground, *self.name(cells[picture, :, row, column])
