"""Files that are needed for a while: the folders of finished predictions, our own and those Cog leaves.

Cog reads our files after `predict` has returned and tells nobody when it is done; and for every prediction it makes a
folder of its own, `/tmp/coglet/predictions/ID`, which it never removes.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

KEEP_SECONDS = 120  # after the end of a prediction
STRAY_SECONDS = 3600  # folders of predictions that never reached `predict`, and of servers that were killed
EVERY_SECONDS = 10
COGS = Path("/tmp/coglet/predictions")
OURS = "jsd-predictions-"
ID = "_coglet_prediction_id"  # the context variable that Cog's server keeps a prediction's id in


class TemporaryFolders:
    """Folders for predictions, removed `keep_seconds` after they were last written to, by a thread of its own; and
    Cog's folders for them, as long after their ends.
    """

    def __init__(self, keep_seconds: float = KEEP_SECONDS, every_seconds: float = EVERY_SECONDS, cogs: Path = COGS):
        self.keep_seconds = keep_seconds
        self.cogs = cogs
        self._root = self._make_root()
        self._ended: dict[Path, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(every_seconds,), name="jsd-temporary", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @contextlib.contextmanager
    def prediction(self) -> Iterator[None]:
        """To be entered where a prediction runs: after its end Cog's folder for it is not needed any more."""
        try:
            yield
        finally:
            identifier = prediction_id()
            # Ids come from clients: this one may name a folder elsewhere.
            if identifier not in (None, "..") and Path(identifier).name == identifier:
                self._ended[self.cogs / identifier] = time.time()

    def new(self) -> Path:
        """A new folder, for the files of one prediction."""
        if not self._root.is_dir():  # a cleaner of temporary files has removed it
            self._root = self._make_root()
        return Path(tempfile.mkdtemp(dir=self._root))

    def remove_old(self) -> None:
        """Remove what is not needed any more."""
        now = time.time()
        remove_older(self._root, now - self.keep_seconds)
        if is_ours(self.cogs):
            for folder, ended in list(self._ended.items()):
                if ended < now - self.keep_seconds:
                    del self._ended[folder]
                    shutil.rmtree(folder, ignore_errors=True)
            remove_older(self.cogs, now - STRAY_SECONDS)

    def close(self) -> None:
        """Remove our own folders, and end the thread."""
        self._closed.set()
        self._thread.join()
        shutil.rmtree(self._root, ignore_errors=True)
        atexit.unregister(self.close)

    def _run(self, every_seconds: float) -> None:
        remove_older(Path(tempfile.gettempdir()), time.time() - STRAY_SECONDS, OURS)
        while not self._closed.wait(every_seconds):
            self.remove_old()

    @staticmethod
    def _make_root() -> Path:
        return Path(tempfile.mkdtemp(prefix=OURS))


def prediction_id() -> str | None:
    """The id of the prediction that runs here, None outside Cog's server."""
    return next((value for variable, value in contextvars.copy_context().items() if variable.name == ID), None)


def is_ours(folder: Path) -> bool:
    """Whether a folder and the one it lies in are real ones, of this user: no link to somewhere else."""
    for path in (folder, folder.parent):
        try:
            status = path.lstat()
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False
    return True


def remove_older(root: Path, when: float, prefix: str = "") -> None:
    """Remove this user's folders in `root` whose names begin with `prefix` and that were last changed before `when`, a
    time in seconds. What can't be removed stays.
    """
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                old = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and status.st_mtime < when
                if old and entry.name.startswith(prefix):
                    shutil.rmtree(entry.path, ignore_errors=True)
