"""The thread that removes old folders: what it sees of other servers, and what does not stop it."""

import os
import subprocess
import sys
import tempfile
import time

from serving.folders import PREFIX, STRAY_SECONDS, PredictionFolders, other_servers


def test_a_full_disk_does_not_end_the_thread(tmp_path, monkeypatch, capfd):
    def fail(*_):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("serving.folders.remove_roots", fail)
    folders = PredictionFolders(keep_seconds=60, every_seconds=0.01, cog_folders=tmp_path)
    deadline, said = time.monotonic() + 30, ""
    while said.count("can't be removed") < 2:
        said += capfd.readouterr().out
        assert time.monotonic() < deadline
    folders.close()


def test_the_folder_of_a_killed_server_is_removed_when_the_next_one_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    left, running, other = tmp_path / f"{PREFIX}{dead}-a", tmp_path / f"{PREFIX}{os.getppid()}-b", tmp_path / "other"
    for path in (left, running, other):
        path.mkdir()
        os.utime(path, (time.time() - STRAY_SECONDS - 1,) * 2)
    following = PredictionFolders(every_seconds=0.01, cog_folders=tmp_path / "none")
    deadline = time.monotonic() + 30
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert running.exists()
    assert other.exists()
    following.close()


def test_another_server_is_seen_by_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr("serving.folders.SERVER", b"tests.only.this.one")
    assert not other_servers(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()", "tests.only.this.one"], stdin=subprocess.PIPE):
        deadline = time.monotonic() + 30
        while not other_servers(tmp_path):
            assert time.monotonic() < deadline
        assert not other_servers(tmp_path / "missing")  # which it can't share
    assert not other_servers(tmp_path)


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
