"""The folders of predictions are removed when they are no longer needed, and not before."""

import contextvars
import os
import tempfile
import time

import pytest

from cog_folders import ID, PREFIX, STRAY_SECONDS, PredictionFolders, prediction_id

CURRENT = contextvars.ContextVar(ID)


class Clock:
    """The time in seconds, `ahead` of the real time."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folders(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cog_folders = tmp_path / "coglet" / "predictions"
    cog_folders.mkdir(parents=True)
    folders = PredictionFolders(keep_seconds=60, every_seconds=3600, cog_folders=cog_folders, now=clock)
    yield folders
    folders.close()


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def predict(folders, identifier) -> None:
    """Run a prediction as Cog does: its folder exists, and its id is in the context."""
    folder = folders.cog_folders / identifier
    (folder / "outputs").mkdir(parents=True, exist_ok=True)

    def run():
        CURRENT.set(identifier)
        with folders.prediction():
            assert folder.exists()

    contextvars.copy_context().run(run)


def test_our_own_folders_are_removed_when_they_are_old(folders):
    old, young = folders.new(), folders.new()
    (old / "out-0.png").write_bytes(b"a picture")
    age(old, 61)
    age(young, 30)
    folders.remove_old()
    assert not old.exists()
    assert young.exists()


def test_cogs_folder_of_a_prediction_is_removed_after_its_end(folders, clock):
    predict(folders, "one")
    folders.remove_old()
    assert (folders.cog_folders / "one").exists()
    clock.ahead += 61
    folders.remove_old()
    assert not (folders.cog_folders / "one").exists()


def test_a_second_prediction_with_the_same_id_keeps_its_folder(folders, clock):
    predict(folders, "one")
    clock.ahead += 61
    folders.remove_old()
    (folders.cog_folders / "one").mkdir()  # a second prediction with the same id, which has not ended
    clock.ahead += 61
    folders.remove_old()
    assert (folders.cog_folders / "one").exists()


def test_the_folder_of_another_server_is_kept_for_an_hour(folders):
    running, stray = folders.cog_folders / "running", folders.cog_folders / "stray"
    for path, seconds in ((running, STRAY_SECONDS - 60), (stray, STRAY_SECONDS + 1)):
        (path / "outputs").mkdir(parents=True)
        age(path, seconds)
    folders.remove_old()
    assert running.exists()
    assert not stray.exists()


@pytest.mark.parametrize("identifier", ["../elsewhere", "..", ".", "a/../../elsewhere"])
def test_an_id_that_names_a_folder_elsewhere_removes_nothing(folders, clock, identifier):
    (folders.cog_folders.parent / "elsewhere").mkdir()
    predict(folders, identifier)
    clock.ahead += 61
    folders.remove_old()
    assert (folders.cog_folders.parent / "elsewhere").exists()
    assert folders.cog_folders.exists()


def test_a_link_in_the_place_of_cogs_folders_is_not_followed(folders, clock, tmp_path):
    victim = tmp_path / "victim"
    (victim / "diary").mkdir(parents=True)
    age(victim / "diary", STRAY_SECONDS + 1)
    folders.cog_folders.rmdir()
    folders.cog_folders.symlink_to(victim)
    predict(folders, "diary")
    clock.ahead += 61
    folders.remove_old()
    assert (victim / "diary").exists()


def test_links_and_files_are_not_removed(folders, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (folders.cog_folders / "link").symlink_to(other)
    (folders.cog_folders / "file").write_bytes(b"")
    for path in (other, folders.cog_folders / "file"):
        age(path, STRAY_SECONDS + 1)
    folders.remove_old()
    assert other.exists()
    assert (folders.cog_folders / "file").exists()


def test_the_folder_of_a_killed_server_is_removed_when_the_next_one_starts(folders, tmp_path):
    left, other = tmp_path / f"{PREFIX}killed", tmp_path / "other"
    for path in (left, other):
        path.mkdir()
        age(path, STRAY_SECONDS + 1)
    following = PredictionFolders(every_seconds=0.01, cog_folders=folders.cog_folders)
    deadline = time.monotonic() + 30
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert other.exists()
    following.close()


def test_a_thread_removes_old_folders_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = PredictionFolders(keep_seconds=0.01, every_seconds=0.01, cog_folders=tmp_path)
    path = folders.new()
    deadline = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    folders.close()
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_was_removed_is_made_again(folders):
    folders.root.rmdir()
    folders.remove_old()
    assert folders.new().is_dir()


def test_there_is_no_id_outside_the_server():
    assert prediction_id() is None
