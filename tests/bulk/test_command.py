"""`python -m jsd bulk`: bad rows are named, and a run that was killed ends with every picture once."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from bulk import prompts
from bulk.command import read_rows
from bulk.rows import batches_of, make_request
from jsd import cli
from tests.server import ROOT

COUNT = 40
SLOW = 100  # steps, so that a run of COUNT rows can be killed in the middle
SECONDS = 120  # longer than Ray's start takes


@pytest.fixture(autouse=True)
def settings(monkeypatch, tiny_folder):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "prompt,promt\n猫,1\n", "error: PROMPTS: there is no input called 'promt'"),
        ("a.txt", "", "error: PROMPTS: 'a.txt' has no rows"),
        ("a.png", "猫\n", "error: PROMPTS: 'a.png' was given; a name ending in .txt, .csv,"),
    ],
)
def test_a_file_that_can_not_be_drawn_is_refused_and_nothing_is_written(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_text(content)
    assert cli.main(["bulk", str(tmp_path / name), "--to", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_that_is_stopped_while_it_reads_says_so(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prompts, "read", stop)
    assert cli.main(["bulk", str(tmp_path / "a.txt"), "--to", str(tmp_path / "out")]) == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is missing: script/bootstrap bulk")
def test_a_run_that_was_killed_goes_on_and_ends_with_every_picture_once(tmp_path, components):
    """First one actor is killed, and Ray starts it again. Then the whole run is killed."""
    from bulk.drawing import draw

    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    lines = [json.dumps({"prompt": f"猫 {i}", "steps": SLOW}) for i in range(1, COUNT + 1)]
    lines[4], lines[6] = "", '{"prompt": "犬", "width": 65}'
    prompts.write_text("\n".join(lines))
    for name in ("torch", "pandas", "bulk"):  # modules of the caller's, which nobody may import
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the caller was imported')\n")
    command = [sys.executable, "-m", "jsd", "bulk", prompts.name, "--to", "out", "--actors", "2", "--save-every", "1"]
    # Two rows a batch, so that few are with the actors at a time.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JSD_MAX_BATCH": "4"}

    def parts() -> list[Path]:
        return list((out / "table").glob("*.parquet"))

    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            wait(parts, process)
            actors = [p for p in psutil.Process(process.pid).children(recursive=True) if "MapWorker" in p.cmdline()[0]]
            actors[0].kill()
            number = len(parts())
            wait(lambda: len(parts()) > number, process)
        finally:
            process.send_signal(signal.SIGKILL)
    before = len(rows_of(out))
    assert 0 < before < COUNT - 2

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1, done.stderr
    assert f"{COUNT} rows: {before} drawn before, {COUNT - 1 - before} to draw" in done.stdout
    assert "row 5: empty; every row needs a prompt" in done.stderr
    assert "row 7: width: 65 was given; this model draws multiples of 16" in done.stderr
    assert "Traceback" not in done.stderr

    found = rows_of(out)
    good = [number for number in range(1, COUNT + 1) if number not in (5, 7)]
    assert sorted(row["row"] for row in found) == good
    assert {row["status"] for row in found} == {"drawn"}
    rows = read_rows(prompts, 0, "")[0]
    asked = {row.number: make_request(row.inputs) for row in rows}
    assert [row["seed"] for row in found] == [asked[row["row"]].seed for row in found]
    files = {row["row"]: row["file"] for row in found}
    for batch in list(batches_of(rows, 4))[::6]:  # as a run that is not killed draws them
        for row in draw(components, [(row.number, row.digest, row.inputs) for row in batch], 4):
            if row.number != 7:
                assert picture(out, files[row.number]).tobytes() == row.future.result().images[0].tobytes()
    assert [line.split(",")[0] for line in (out / "errors.csv").read_text().splitlines()] == ["row", "5", "7"]


def rows_of(out: Path) -> list[dict]:
    from pyarrow import parquet

    return parquet.read_table(out / "table").to_pylist()


def picture(out: Path, file: str) -> Image.Image:
    """The picture at FOLDER/pictures/PART.tar/NAME."""
    shard, name = os.path.split(file)
    with tarfile.open(out / shard) as tar:
        return Image.open(io.BytesIO(tar.extractfile(name).read())).convert("RGB")


def wait(condition, process: subprocess.Popen) -> None:
    """Wait until `condition()` is true, while the process runs."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, "the run has ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
