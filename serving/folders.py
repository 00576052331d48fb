"""Remove the files that Cog's server leaves behind.

Cog reads the files of a prediction after `predict` has returned, and does not say when it has finished. For every
prediction it also makes a folder, `/tmp/coglet/predictions/ID`, and never removes it. All of Cog's servers on a machine
share that place, and clients choose the id.
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
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.memory import give_back

KEEP_SECONDS = 120  # after the end of a prediction
STRAY_SECONDS = 3600  # for the folders of servers that were killed
FRESH_SECONDS = 10  # between Cog's making a folder and the prediction's start
EVERY_SECONDS = 10
COG_FOLDERS = Path("/tmp/coglet/predictions")
PREFIX = "jsd-predictions-"
ID = "_coglet_prediction_id"  # the context variable in which Cog's server keeps the id of a prediction
SERVER = b"cog.server.http"  # an argument of every Cog server's process


class PredictionFolders:
    """Makes folders for the files of predictions. A thread removes each `keep_seconds` after its last change.

    It also removes Cog's folder of a prediction, `keep_seconds` after the prediction's end. What requests left there
    that never became a prediction goes at the same age, but only while no other Cog server shares the place: the folder
    might be the other's. When nothing runs any more, freed memory is given back too. `now()` tells the time.
    """

    def __init__(
        self,
        keep_seconds: float = KEEP_SECONDS,
        every_seconds: float = EVERY_SECONDS,
        cog_folders: Path = COG_FOLDERS,
        now: Callable[[], float] = time.time,
    ):
        self.keep_seconds, self.cog_folders, self.now = keep_seconds, cog_folders, now
        self.root: Path | None = None  # made when it is first needed: the disk may be full while the server starts
        self._lock = threading.Lock()  # guards root, _running and _ended
        self._running: Counter[Path] = Counter()
        self._ended: dict[Path, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(every_seconds,), name="jsd-folders", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @contextlib.contextmanager
    def prediction(self) -> Iterator[None]:
        """Context manager to run a prediction in. Notes its end, so that Cog's folder for it can be removed later."""
        folder = folder_of(prediction_id(), self.cog_folders)
        # An older folder is not this prediction's: another server may be drawing under the same id.
        ours = folder in self._ended or age(folder, self.now()) < FRESH_SECONDS
        with self._lock:
            self._running[folder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[folder] -= 1
                self._running += Counter()  # drops those at zero
                if folder and ours:
                    self._ended[folder] = self.now()

    def new(self) -> Path:
        """Make a new folder for the files of one prediction, and return its path."""
        with self._lock:
            if self.root is None or not self.root.is_dir():  # a cleaner of temporary files may have removed it
                self.root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            return Path(tempfile.mkdtemp(dir=self.root))

    def remove_old(self) -> None:
        """Remove our folders `keep_seconds` after their last change, and those of Cog as the class's text says."""
        before = self.now() - self.keep_seconds
        if self.root:
            remove_older(self.root, before)
        if not is_ours(self.cog_folders):
            return
        with self._lock:
            old = [folder for folder, ended in self._ended.items() if ended < before and not self._runs_in(folder)]
            for folder in old:
                del self._ended[folder]
                self._remove(folder)
            known = {
                folder.relative_to(self.cog_folders).parts[0] for folder in {*self._running, *self._ended} if folder
            }
        if not other_servers(self.cog_folders):
            remove_older(self.cog_folders, before, keep=known)

    def close(self) -> None:
        """End the thread, and remove the folders that `new` made and Cog's folders of ended predictions."""
        self._closed.set()
        self._thread.join()
        if self.root:
            shutil.rmtree(self.root, ignore_errors=True)
        if is_ours(self.cog_folders):
            for folder in self._ended:
                self._remove(folder)
        atexit.unregister(self.close)

    def _runs_in(self, folder: Path) -> bool:
        """Whether a prediction runs that has this folder or one inside it: an id can be `a/b`."""
        return any(running and running.is_relative_to(folder) for running in self._running)

    def _remove(self, folder: Path) -> None:
        """Remove what Cog made for one prediction, and each folder from there up that is empty then."""
        for name in ("inputs", "outputs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for empty in (folder, *folder.parents):
            if empty == self.cog_folders:
                break
            with contextlib.suppress(OSError):
                empty.rmdir()

    def _run(self, every_seconds: float) -> None:
        used, first = False, True
        while not self._closed.wait(every_seconds):
            try:
                if first:
                    remove_roots(self.now() - STRAY_SECONDS)
                    first = False
                self.remove_old()
            except OSError as error:  # the disk is full, for instance; the next time may be better
                print(f"temporary files can't be removed: {error}", flush=True)
            used = used or bool(self._running or self._ended)
            if used and not self._running:
                give_back()
                used = False


def prediction_id() -> str | None:
    """Return the id of the current prediction, None outside Cog's server."""
    return next((value for variable, value in contextvars.copy_context().items() if variable.name == ID), None)


def folder_of(identifier: str | None, root: Path) -> Path | None:
    """Return the folder in `root` that Cog makes for an id, None if it would lie elsewhere or be `root` itself."""
    parts = (identifier or "").split("/")
    return None if {"", ".", ".."} & set(parts) else root.joinpath(*parts)


def age(folder: Path | None, now: float) -> float:
    """Return the seconds since a folder's last change, infinity if there is none."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: an id with a NUL
        if folder:
            return now - folder.lstat().st_mtime
    return float("inf")


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


def other_servers(folder: Path = COG_FOLDERS) -> bool:
    """Whether a Cog server other than this process's own shares `folder`. Without /proc (macOS) True, to be safe."""
    if not Path("/proc/self").exists():
        return True
    return any(
        process.name != str(os.getppid()) and _is_server(process) and _sees(process, folder)
        for process in Path("/proc").glob("[0-9]*")
    )


def _is_server(process: Path) -> bool:
    try:
        return SERVER in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return False


def _sees(process: Path, folder: Path) -> bool:
    """Whether a process has this `folder` under the same name: a container has a /tmp of its own."""
    try:
        return os.path.samefile(process / "root" / folder.relative_to("/"), folder)
    except FileNotFoundError:
        return False
    except OSError:  # another user's process
        return True


def remove_older(root: Path, when: float, keep: set[str] = frozenset()) -> None:
    """Remove this user's folders in `root`, without those named in `keep`, that were last changed before `when`.

    `when` is a time in seconds, as of `time.time`. A folder that can't be removed stays.
    """
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                old = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and status.st_mtime < when
                if old and entry.name not in keep:
                    shutil.rmtree(entry.path, ignore_errors=True)


def remove_roots(when: float) -> None:
    """Remove what killed servers left: the folders of `PredictionFolders` last changed before `when`, of no process."""
    place = Path(tempfile.gettempdir())
    running = {path.name for path in place.glob(f"{PREFIX}*-*") if lives(path.name.removeprefix(PREFIX).split("-")[0])}
    others = {path.name for path in place.iterdir() if not path.name.startswith(PREFIX)}
    remove_older(place, when, keep=running | others)


def lives(process: str) -> bool:
    """Whether another process has this id. An id of this process is a dead one's: containers count from 1 again."""
    return process.isdecimal() and int(process) != os.getpid() and Path(f"/proc/{process}").exists()
