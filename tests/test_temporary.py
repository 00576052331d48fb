"""Folders of predictions go when nobody needs them any more, and not before."""

import contextvars
import os
import tempfile
import time

import pytest

from jsd import temporary
from jsd.temporary import ID, OURS, STRAY_SECONDS, TemporaryFolders

CURRENT = contextvars.ContextVar(ID)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "coglet" / "predictions").mkdir(parents=True)
    folders = TemporaryFolders(keep_seconds=60, every_seconds=3600, cogs=tmp_path / "coglet" / "predictions")
    yield folders
    folders.close()


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def predict(folders, identifier) -> None:
    """A prediction as Cog runs one: its folder made, its id in the context."""
    folder = folders.cogs / identifier
    (folder / "outputs").mkdir(parents=True, exist_ok=True)

    def run():
        CURRENT.set(identifier)
        with folders.prediction():
            assert folder.exists()

    contextvars.copy_context().run(run)


def pass_time(folders, seconds) -> None:
    for path in folders._ended:
        folders._ended[path] -= seconds


def test_our_own_go_when_they_are_old(folders):
    old, young = folders.new(), folders.new()
    (old / "out-0.png").write_bytes(b"a picture")
    age(old, 61)
    age(young, 30)
    folders.remove_old()
    assert not old.exists()
    assert young.exists()


def test_cogs_folder_of_a_prediction_goes_after_its_end(folders):
    predict(folders, "one")
    folders.remove_old()
    assert (folders.cogs / "one").exists()
    pass_time(folders, 61)
    folders.remove_old()
    assert not (folders.cogs / "one").exists()
    assert folders._ended == {}


def test_another_servers_prediction_is_left_alone_for_an_hour(folders):
    running, stray = folders.cogs / "running", folders.cogs / "stray"
    for path, seconds in ((running, STRAY_SECONDS - 60), (stray, STRAY_SECONDS + 1)):
        (path / "outputs").mkdir(parents=True)
        age(path, seconds)
    folders.remove_old()
    assert running.exists()
    assert not stray.exists()


@pytest.mark.parametrize("identifier", ["../elsewhere", "..", ".", "a/../../elsewhere"])
def test_an_id_that_names_a_folder_elsewhere_removes_nothing(folders, identifier):
    (folders.cogs.parent / "elsewhere").mkdir()
    predict(folders, identifier)
    pass_time(folders, 61)
    folders.remove_old()
    assert (folders.cogs.parent / "elsewhere").exists()
    assert folders.cogs.exists()


def test_a_link_in_the_place_of_cogs_folders_is_not_followed(folders, tmp_path):
    victim = tmp_path / "victim"
    (victim / "diary").mkdir(parents=True)
    age(victim / "diary", STRAY_SECONDS + 1)
    folders.cogs.rmdir()
    folders.cogs.symlink_to(victim)
    predict(folders, "diary")
    pass_time(folders, 61)
    folders.remove_old()
    assert (victim / "diary").exists()


def test_links_and_files_are_left(folders, tmp_path):
    other = tmp_path / "somebody"
    other.mkdir()
    (folders.cogs / "link").symlink_to(other)
    (folders.cogs / "file").write_bytes(b"")
    for path in (other, folders.cogs / "file"):
        age(path, STRAY_SECONDS + 1)
    folders.remove_old()
    assert other.exists()
    assert (folders.cogs / "file").exists()


def test_what_a_killed_server_left_goes_when_the_next_one_starts(folders, tmp_path):
    left, other = tmp_path / f"{OURS}killed", tmp_path / "other"
    for path in (left, other):
        path.mkdir()
        age(path, STRAY_SECONDS + 1)
    following = TemporaryFolders(every_seconds=0.01, cogs=folders.cogs)
    deadline = time.monotonic() + 30
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert other.exists()
    following.close()


def test_it_is_done_without_anybody_asking(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = TemporaryFolders(keep_seconds=0.01, every_seconds=0.01, cogs=tmp_path)
    path = folders.new()
    deadline = time.monotonic() + 30
    while path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    folders.close()
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_somebody_removed_is_made_again(folders):
    folders._root.rmdir()
    folders.remove_old()
    assert folders.new().is_dir()


def test_outside_the_server_there_is_no_id(folders):
    assert temporary.prediction_id() is None
    with folders.prediction():
        pass
    assert folders._ended == {}
