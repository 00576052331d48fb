"""The pictures of the page's visitors as files, which their browsers fetch. The oldest are removed."""

from __future__ import annotations

import shutil
import time
import uuid
from collections import deque
from pathlib import Path
from threading import Lock

from jsd import images
from jsd.request import OUTPUT_FORMATS
from jsd.result import Result


def file_name(seed: int, suffix: str) -> str:
    """Return the name of the picture of a seed, under which visitors also save it."""
    return f"jsd-{seed}.{suffix}"


class Album:
    """Writes each result to a folder of its own in `root`, from any thread. With the next result, folders older than
    `seconds` and those beyond `most` are removed. Their names are random, so nobody finds the pictures of others.
    """

    def __init__(self, root: Path, seconds: float = 3600, most: int = 500):
        self.root, self.seconds, self.most = root, seconds, most
        self._folders: deque[tuple[float, Path]] = deque()
        self._lock = Lock()  # guards _folders

    def add(self, result: Result) -> Path:
        """Write a result and return its folder: the files of `file_name` with metadata, in every format.

        For a result from a picture `picture.png` and `mask.png` are in it too, at the size at which they were used.
        """
        now, folder = time.monotonic(), self.root / uuid.uuid4().hex
        folder.mkdir(parents=True)
        with self._lock:
            while self._folders and (len(self._folders) >= self.most or now - self._folders[0][0] > self.seconds):
                shutil.rmtree(self._folders.popleft()[1], ignore_errors=True)
            self._folders.append((now, folder))
        for i, image in enumerate(result.images):
            for suffix in OUTPUT_FORMATS:
                file = folder / file_name(result.seeds[i], suffix)
                images.save(image, file, suffix, result.request.output_quality, result.metadata(i))
        for name, picture in (("picture", result.request.image), ("mask", result.request.mask)):
            if picture is not None:
                picture.save(folder / f"{name}.png")
        return folder
