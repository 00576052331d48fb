"""Drawings of plain shapes, which need no download, and a judge that learns them in seconds."""

from __future__ import annotations

import pytest

from embedded import judge
from embedded.drawings import Concept, Drawing
from embedded.judge import Judge
from jsd.train.trainer import Plan
from tests.train.conftest import fresh_accelerator

__all__ = ["fresh_accelerator"]  # used by every test in this folder

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{}</svg>'
SHAPES = {
    "circle": (("丸", "まる", "円"), '<circle cx="16" cy="16" r="13" fill="#d33"/>'),
    "bars": (("縞", "しま", "シマ"), '<path fill="#2a6" d="M3 3h26v5H3zM3 13h26v5H3zM3 23h26v5H3z"/>'),
    "triangle": (("三角", "さんかく", "円"), '<path fill="#36c" d="M16 3 30 29H2z"/>'),
    "ring": (("輪", "わ", "リング"), '<circle cx="16" cy="16" r="10" fill="none" stroke="#a70" stroke-width="5"/>'),
    "cross": (("十字", "じゅうじ"), '<path fill="#555" d="M12 2h8v10h10v8H20v10h-8V20H2v-8h10z"/>'),
}


@pytest.fixture(scope="session")
def shapes() -> list[Drawing]:
    """One drawing for each of SHAPES, in this order. The names of circle and triangle share one spelling."""
    return [
        Drawing(Concept(name, ("x",), names, (name,)), "noto", "x", False, SVG.format(body))
        for name, (names, body) in SHAPES.items()
    ]


@pytest.fixture(scope="session")
def trained(shapes: list[Drawing], tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """A judge of `shapes`. Read only."""
    plan = Plan(steps=150, lr=3e-3, warmup=20, ema=0.9)
    return judge.train(shapes, tmp_path_factory.mktemp("judge"), plan, batch=32)
