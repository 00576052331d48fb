"""Find webdataset shards (tar files of captioned pictures), and read their raw samples.

A raw sample is a dict of file extension -> bytes, for example {"jpg": ..., "txt": ...}.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from webdataset.shardlists import expand_urls
from webdataset.tariterators import tarfile_samples

from jsd.errors import TrainingError
from jsd.language import Text
from jsd.train.samples import NAMES


@dataclass(frozen=True)
class Skipped:
    """Names a sample, or the unreadable rest of a shard (`key` is ""), that was left out in the first epoch. `reason`
    is for people. Files have it in English.
    """

    url: str
    key: str
    reason: Text

    def told(self) -> Text:
        """Return all of it as one line for people."""
        return Text("{} {}: {}", self.url, self.key, self.reason)


def find_shards(pattern: str) -> list[str]:
    """Return the paths or URLs of webdataset shards: all *.tar of a folder, or those of a pattern with braces.

    Patterns are for example data/{00000..00099}.tar and https://host/{000..009}.tar. Several are joined by "::". Raises
    `TrainingError` for a folder without *.tar, and for a pattern of which not one file exists. (A reader reports single
    files that are missing. URLs are not checked.)
    """
    folder, wanted = Path(pattern), Text("name a folder of *.tar, or a pattern such as data/{00000..00099}.tar")
    if folder.is_dir():
        urls = sorted(str(path) for path in folder.glob("[!.]*.tar"))
        if not urls:
            raise TrainingError("{}: no *.tar in this folder; {}", pattern, wanted)
        return urls
    try:
        urls = expand_urls(pattern)
    except (ValueError, AssertionError) as error:  # the latter for a missing environment variable WDS_NAME
        raise TrainingError("{}: not a pattern of files ({}); {}", pattern, error, wanted) from None
    if not any(urlsplit(url).scheme or Path(url).is_file() for url in urls):
        raise TrainingError("{}: no such file; {}", pattern, wanted)
    return urls


def raw_samples(url: str, skipped: list[Skipped]) -> Iterator[dict[str, Any]]:
    """Yield a shard's samples: dicts of extension -> bytes. An error ends the shard, and is appended to `skipped`.

    Hidden files are passed over. Archives made on a Mac have many, called ._NAME.
    """

    def note(error: Exception) -> bool:
        skipped.append(Skipped(url, "", Text("rest of the shard unreadable ({})", _in_words(error))))
        return False

    names: Counter[str] = Counter()
    for sample in tarfile_samples([{"url": url}], note, lambda name: not PurePosixPath(name).name.startswith(".")):
        names[sample["__key__"]] += 1
        yield sample | {NAMES: names}


def _in_words(error: Exception) -> str:
    """Return why a shard can't be read on, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return Text(error.strerror)
    if isinstance(error, tarfile.TarError | EOFError | zlib.error | lzma.LZMAError):
        return Text("not a whole tar file")
    if isinstance(error, ValueError) and "duplicate file name" in str(error):
        return Text("two files of the same name")
    return type(error).__name__
