"""The folders of predictions are removed when they are no longer needed, and not before."""

import contextvars
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.folders import ID, STRAY_SECONDS, PredictionFolders, folder_of, prediction_id

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
    monkeypatch.setattr("serving.folders.other_servers", lambda folder: False)  # that of another test may run
    folders = PredictionFolders(keep_seconds=60, every_seconds=3600, cog_folders=cog_folders, now=clock)
    yield folders
    folders.close()


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def predict(folders, identifier, make=True) -> None:
    """Run a prediction as Cog does: its id is in the context and, unless `make` is False, its folder exists."""
    folder = folders.cog_folders / identifier
    if make:
        (folder / "outputs").mkdir(parents=True, exist_ok=True)

    def run():
        CURRENT.set(identifier)
        with folders.prediction():
            assert not make or folder.exists()

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


@pytest.mark.parametrize("others", [True, False])
def test_a_stray_folder_goes_only_if_it_can_not_be_another_servers(folders, monkeypatch, others):
    """Cog makes one and then refuses the request, for instance when the disk is full."""
    monkeypatch.setattr("serving.folders.other_servers", lambda folder: others)
    stray, young = folders.cog_folders / "stray", folders.cog_folders / "young"
    for path in (stray, young):
        (path / "inputs").mkdir(parents=True)
    age(stray, 61)
    folders.remove_old()
    assert stray.exists() == others
    assert young.exists()


def test_the_folder_of_a_running_prediction_stays(folders, clock):
    """Also when the prediction runs for long, and when a second one with its id has ended."""
    (folders.cog_folders / "one" / "outputs").mkdir(parents=True)

    def run():
        CURRENT.set("one")
        with folders.prediction():
            predict(folders, "one")
            age(folders.cog_folders / "one", 1000)
            clock.ahead += 1000
            folders.remove_old()
            assert (folders.cog_folders / "one").exists()

    contextvars.copy_context().run(run)
    clock.ahead += 61
    folders.remove_old()
    assert not (folders.cog_folders / "one").exists()


def test_a_folder_that_was_there_before_the_prediction_is_not_its_own(folders, clock, monkeypatch):
    """Another server on this machine may be drawing under the same id."""
    monkeypatch.setattr("serving.folders.other_servers", lambda folder: True)
    (folders.cog_folders / "one" / "outputs").mkdir(parents=True)
    age(folders.cog_folders / "one", 61)
    predict(folders, "one")
    clock.ahead += 61
    folders.remove_old()
    assert (folders.cog_folders / "one").exists()


def test_a_folder_in_a_folder_goes_with_its_empty_parents(folders, clock):
    predict(folders, "a/b")
    clock.ahead += 61
    folders.remove_old()
    assert list(folders.cog_folders.iterdir()) == []


def test_a_folder_in_a_folder_stays_while_its_prediction_runs(folders, clock):
    predict(folders, "a")
    (folders.cog_folders / "a" / "b" / "outputs").mkdir(parents=True)

    def run():
        CURRENT.set("a/b")
        with folders.prediction():
            clock.ahead += 61
            folders.remove_old()
            assert (folders.cog_folders / "a" / "b" / "outputs").exists()

    contextvars.copy_context().run(run)


def test_what_another_server_made_in_a_folder_stays(folders, clock, monkeypatch):
    monkeypatch.setattr("serving.folders.other_servers", lambda folder: True)
    predict(folders, "a")
    (folders.cog_folders / "a" / "of-another" / "outputs").mkdir(parents=True)
    clock.ahead += 61
    folders.remove_old()
    assert (folders.cog_folders / "a" / "of-another" / "outputs").exists()
    assert not (folders.cog_folders / "a" / "outputs").exists()


def test_predictions_that_end_together_share_one_place(folders, tmp_path):
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: folders.new(), range(32)))
    assert len(set(made)) == 32
    assert len({path.parent for path in made}) == 1


def test_cogs_folders_go_with_the_server(folders):
    predict(folders, "one")
    folders.close()
    assert list(folders.cog_folders.iterdir()) == []


@pytest.mark.parametrize("identifier", ["", "../elsewhere", "..", ".", "a/../../elsewhere", "/", "a//b", "/etc", "a/"])
def test_an_id_that_names_another_folder_removes_nothing(folders, clock, monkeypatch, identifier):
    monkeypatch.setattr("serving.folders.other_servers", lambda folder: True)
    (folders.cog_folders.parent / "elsewhere").mkdir()
    (folders.cog_folders / "another").mkdir()
    assert folder_of(identifier, folders.cog_folders) is None
    predict(folders, identifier, make=False)
    clock.ahead += 61
    folders.remove_old()
    assert (folders.cog_folders.parent / "elsewhere").exists()
    assert (folders.cog_folders / "another").exists()


@pytest.mark.parametrize("identifier", ["a\0b", "a" * 300])
def test_an_id_that_no_file_can_be_named_is_harmless(folders, clock, identifier):
    predict(folders, identifier, make=False)
    clock.ahead += 61
    folders.remove_old()
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


def test_a_root_that_was_removed_is_made_again(folders):
    shutil.rmtree(folders.new().parent)
    folders.remove_old()
    assert folders.new().is_dir()


def test_there_is_no_id_outside_the_server():
    assert prediction_id() is None
