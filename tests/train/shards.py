"""Small webdataset shards (tar files of pictures and captions) for the tests of training, good and bad."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


def picture(colour: object = "red", size: tuple[int, int] = (40, 32), kind: str = "PNG", mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Image.new(mode, size, colour).save(data, kind)
    return data.getvalue()


def write(file: Path, samples: dict[str, dict[str, object]]) -> Path:
    """Write `samples` as a tar file, and return its path.

    `samples` is key -> {file extension: content}. A content is bytes, text, or any value, which is written as JSON.
    """
    with tarfile.open(file, "w") as archive:
        for key, members in samples.items():
            for extension, value in members.items():
                if not isinstance(value, bytes):
                    value = (value if isinstance(value, str) else json.dumps(value)).encode()
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
    return file


def good(folder: Path, shards: int, each: int) -> list[str]:
    """Write `shards` tar files of `each` samples, every one a PNG picture of another colour and its caption.

    Returns the paths of the files.
    """
    folder.mkdir(exist_ok=True)
    return [
        str(
            write(
                folder / f"{s:05d}.tar",
                {f"{s}-{i}": {"png": picture((s * 20, i * 5, 90)), "txt": f"{s}-{i}"} for i in range(each)},
            )
        )
        for s in range(shards)
    ]
