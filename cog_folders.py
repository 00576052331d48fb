"""Remove the files that Cog's server leaves behind (`PredictionFolders`), and end that server (`leave`).

Cog reads the files of a prediction after `predict` has returned, and does not say when it has finished. For every
prediction it also makes a folder, `/tmp/coglet/predictions/ID`, and never removes it.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import coglet

KEEP_SECONDS = 120  # after the end of a prediction
STRAY_SECONDS = 3600  # for folders of predictions that never reached `predict`, and of servers that were killed
EVERY_SECONDS = 10
LEAVE_SECONDS = 5  # for answers to go out, and for health checks
COG_FOLDERS = Path("/tmp/coglet/predictions")
PREFIX = "jsd-predictions-"
ID = "_coglet_prediction_id"  # the context variable in which Cog's server keeps the id of a prediction


class PredictionFolders:
    """Makes folders for the files of predictions. A thread removes each `keep_seconds` after its last change.

    It also removes Cog's folder of a prediction, `keep_seconds` after the prediction's end. `now()` tells the time.
    """

    def __init__(
        self,
        keep_seconds: float = KEEP_SECONDS,
        every_seconds: float = EVERY_SECONDS,
        cog_folders: Path = COG_FOLDERS,
        now: Callable[[], float] = time.time,
    ):
        self.keep_seconds, self.cog_folders, self.now = keep_seconds, cog_folders, now
        self.root = self._make_root()
        self._ended: dict[Path, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(every_seconds,), name="jsd-folders", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @contextlib.contextmanager
    def prediction(self) -> Iterator[None]:
        """Context manager to run a prediction in. Notes its end, so that Cog's folder for it can be removed later."""
        try:
            yield
        finally:
            identifier = prediction_id()
            # Clients choose the id, so it may name a folder elsewhere.
            if identifier not in (None, "..") and Path(identifier).name == identifier:
                self._ended[self.cog_folders / identifier] = self.now()

    def new(self) -> Path:
        """Make a new folder for the files of one prediction, and return its path."""
        if not self.root.is_dir():  # a cleaner of temporary files has removed it
            self.root = self._make_root()
        return Path(tempfile.mkdtemp(dir=self.root))

    def remove_old(self) -> None:
        """Remove our and Cog's folders `keep_seconds` after a prediction, and all others of Cog after STRAY_SECONDS."""
        now = self.now()
        remove_older(self.root, now - self.keep_seconds)
        if is_ours(self.cog_folders):
            for folder, ended in list(self._ended.items()):
                if ended < now - self.keep_seconds:
                    del self._ended[folder]
                    shutil.rmtree(folder, ignore_errors=True)
            remove_older(self.cog_folders, now - STRAY_SECONDS)

    def close(self) -> None:
        """End the thread and remove the folders that `new` made. Cog's folders stay."""
        self._closed.set()
        self._thread.join()
        shutil.rmtree(self.root, ignore_errors=True)
        atexit.unregister(self.close)

    def _run(self, every_seconds: float) -> None:
        remove_older(Path(tempfile.gettempdir()), self.now() - STRAY_SECONDS, PREFIX)
        while not self._closed.wait(every_seconds):
            self.remove_old()

    @staticmethod
    def _make_root() -> Path:
        return Path(tempfile.mkdtemp(prefix=PREFIX))


def prediction_id() -> str | None:
    """Return the id of the current prediction, None outside Cog's server."""
    return next((value for variable, value in contextvars.copy_context().items() if variable.name == ID), None)


def is_ours(folder: Path) -> bool:
    """Whether a folder and its parent are real folders of this user, and not links to somewhere else."""
    for path in (folder, folder.parent):
        try:
            status = path.lstat()
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False
    return True


def remove_older(root: Path, when: float, prefix: str = "") -> None:
    """Remove this user's folders in `root` whose names begin with `prefix` and that were last changed before `when`.

    `when` is a time in seconds, as of `time.time`. A folder that can't be removed stays.
    """
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                old = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and status.st_mtime < when
                if old and entry.name.startswith(prefix):
                    shutil.rmtree(entry.path, ignore_errors=True)


def leave(server: int, error: Exception) -> None:
    """Print `error`, and end Cog's server (process id `server`), if one runs, so that its supervisor can restart it.

    This process is only Cog's worker. If it ended alone, the server would stay and answer 409 for ever.
    """
    print(f"nothing can be drawn any more ({error}): this server ends in {LEAVE_SECONDS} seconds", flush=True)
    for number in (signal.SIGTERM, signal.SIGKILL) if coglet.server.active else ():
        time.sleep(LEAVE_SECONDS)
        if os.getppid() == server:
            os.kill(server, number)
