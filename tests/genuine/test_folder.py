"""A model folder is written whole or not at all, and replaces nothing but another model."""

from __future__ import annotations

import os
import resource

import pytest

from jsd.errors import WeightsError
from jsd.genuine import folder
from jsd.genuine.convert import convert
from jsd.genuine.folder import new_folder, write_manifest
from jsd.manifest import verify


def write(folder, text="new", **defaults):
    with new_folder(folder) as work:
        (work / "README.md").write_text(text)
        write_manifest(work, name="tiny", defaults=defaults)


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    write(tmp_path / "far" / "away")
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["away"]
    verify(tmp_path / "far" / "away")


def test_a_folder_that_is_not_a_model_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(WeightsError, match=f"{tmp_path / 'mine'}: exists and is not a model folder"):
        write(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_model_is_replaced(tmp_path):
    write(tmp_path / "model", "old")
    write(tmp_path / "model", "new")
    assert (tmp_path / "model" / "README.md").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folders_with_names_like_a_backup_stay(tmp_path):
    for name in ("model.old", "model.tmp", "model.new"):
        write(tmp_path / name, name)
    for text in ("old", "new"):
        write(tmp_path / "model", text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.new", "model.old", "model.tmp"]
    assert (tmp_path / "model.old" / "README.md").read_text() == "model.old"


def test_an_error_leaves_the_old_model(tmp_path):
    write(tmp_path / "model", "old")
    with pytest.raises(WeightsError, match="colour"):
        write(tmp_path / "model", "half", colour="red")
    assert (tmp_path / "model" / "README.md").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_interrupt_between_the_two_renames_leaves_the_old_model(tmp_path, monkeypatch):
    write(tmp_path / "model", "old")
    replace, done = os.replace, []

    def interrupted(*paths):
        done.append(paths)
        if len(done) == 2:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(folder.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "model", "new")
    assert (tmp_path / "model" / "README.md").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.fixture
def small_disk():
    """Let no file of this process become larger than 300 kB. The UNet's is."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_model(old, converted, tmp_path, small_disk):
    write(tmp_path / "model", "old")
    with pytest.raises(OSError, match=f"{tmp_path / 'model'}: can't be written .*File too large"):
        convert(old.folder, tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_to_another_disk_stays_a_link(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "large")
    for _ in range(2):
        write(tmp_path / "model")
        assert (tmp_path / "model").is_symlink()
        verify(tmp_path / "large")
