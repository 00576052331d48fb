"""Processes that render scenes: each opens the sprites once, and computes on one core."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from embedded.scenes import Assets, load_assets

_opened: list[Assets] = []


def open_assets(icons: Path, table: Path, cache: Path) -> None:
    """Open the sprites in this process, for `assets`. OpenCV gets one thread."""
    import cv2

    cv2.setNumThreads(1)
    _opened[:] = [load_assets(icons, table, cache, 1)]


def assets() -> Assets:
    """Return the sprites that this process opened."""
    return _opened[0]


def start(icons: Path, table: Path, cache: Path, count: int) -> ProcessPoolExecutor:
    """Return a pool of `count` processes in which `assets` works. The sprites of `table` are already in `cache`."""
    return ProcessPoolExecutor(count, get_context("spawn"), open_assets, (icons, table, cache))
