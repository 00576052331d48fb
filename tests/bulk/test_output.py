"""The folder of a run: whole parts, each row once, whatever an earlier run has left."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: script/bootstrap bulk")

from pyarrow import parquet

from bulk import output as output_module
from bulk.drawing import DRAWINGS
from bulk.output import open_output
from bulk.rows import Problem, Row
from jsd.errors import InputError


def drawing(row: int, picture: int = 0, status: str = "drawn") -> dict[str, object]:
    """A picture of row `row`, whose digest is d and the row's number."""
    found = {"row": row, "picture": picture, "status": status, "seed": row, "prompt": f"猫{row}", "digest": f"d{row}"}
    return found | ({"suffix": "png", "metadata": "{}", "data": b"P%d" % row} if status == "drawn" else {})


def table(*drawings: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(drawings), schema=DRAWINGS)


def rows(*numbers: int) -> list[Row]:
    return [Row(number, "{}", 1, f"d{number}") for number in numbers]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_shard_holds_picture_metadata_and_prompt_and_the_table_says_where(tmp_path):
    with open_output(tmp_path / "out", as_files=False, seconds=60) as output:
        output.add(table(drawing(2, 0), drawing(2, 1, "flagged")))
        output.add(table(drawing(1)))
    assert names(tmp_path / "out") == [".jsd-bulk", "pictures/00000.tar", "table/00000.parquet"]
    with tarfile.open(tmp_path / "out" / "pictures" / "00000.tar") as tar:
        content = {entry.name: tar.extractfile(entry).read() for entry in tar}
    assert content["00000001-0.png"] == b"P1"
    assert json.loads(content["00000001-0.json"]) == {}
    assert content["00000002-0.txt"].decode() == "猫2"
    assert len(content) == 6
    found = parquet.read_table(tmp_path / "out" / "table").select(["row", "picture", "status", "file"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        (1, 0, "drawn", "pictures/00000.tar/00000001-0.png"),
        (2, 0, "drawn", "pictures/00000.tar/00000002-0.png"),
        (2, 1, "flagged", None),
    ]


def test_parts_are_written_when_they_are_old_enough_and_numbered_on(tmp_path):
    for numbers in ((1, 2), (3,)):
        with open_output(tmp_path / "out", as_files=True, seconds=0) as output:
            for number in numbers:
                output.add(table(drawing(number)))
    assert names(tmp_path / "out" / "pictures") == [f"{i}/{i + 1:08d}-0.png".zfill(20) for i in range(3)]
    with open_output(tmp_path / "out", as_files=True, seconds=0) as output:
        assert output.done_of(rows(1, 2, 3, 4), []) == {1, 2, 3}


@pytest.mark.parametrize(("before", "as_files"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_a_killed_run_left_without_a_table_is_removed(tmp_path, before, as_files):
    out = tmp_path / "out"
    with open_output(out, before, seconds=0) as output:
        output.add(table(drawing(1)))
    (out / "table" / "00000.parquet").unlink()
    (out / "table" / f".{'a' * 16}.part.parquet").write_bytes(b"half")
    (out / "pictures" / f".{'b' * 16}.part").mkdir()
    with open_output(out, as_files, seconds=0) as output:
        assert output.done_of(rows(1, 2), []) == set()
        output.add(table(drawing(2)))
    picture = "pictures/00000/00000002-0.png" if as_files else "pictures/00000.tar"
    assert names(out) == [".jsd-bulk", picture, "table/00000.parquet"]
    assert parquet.read_table(out / "table")["row"].to_pylist() == [2]


def test_rows_of_another_run_are_refused(tmp_path):
    with open_output(tmp_path / "out", as_files=False, seconds=0) as output:
        output.add(table(drawing(2)))
        changed = [Row(2, "{}", 1, "other")]
        width, mask = Problem(2, "width", "65 was given"), Problem(2, "mask", "given without an image")
        for others, problems in ((rows(1) + changed, []), (rows(1), []), (rows(1), [width]), (rows(1), [mask])):
            with pytest.raises(InputError, match="--to: row 2 was drawn from other inputs"):
                output.done_of(others, problems)


def test_a_row_whose_picture_was_removed_after_it_was_drawn_is_done(tmp_path):
    with open_output(tmp_path / "out", as_files=False, seconds=0) as output:
        output.add(table(drawing(2)))
        assert output.done_of(rows(1), [Problem(2, "image", "there is no file", unreadable=True)]) == {2}


@pytest.mark.parametrize("content", [b"half", None])
def test_a_table_that_can_not_be_read_is_named(tmp_path, content):
    out = tmp_path / "out"
    with open_output(out, as_files=False, seconds=0) as output:
        output.add(table(drawing(1)))
        if content:
            (out / "table" / "00000.parquet").write_bytes(content)
        else:
            parquet.write_table(pa.table({"mine": [1]}), out / "table" / "mine.parquet")
        with pytest.raises(InputError, match=r"--to: table/.*parquet can't be read .*; remove it"):
            output.done_of(rows(1), [])


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InputError, match="--to: .* has other files"), open_output(folder, False, 1):
            pass
    assert names(tmp_path) == ["mine.txt"]


def test_a_folder_has_one_run_at_a_time(tmp_path):
    code = "import sys, pathlib, bulk.output as o\nwith o.open_output(pathlib.Path(sys.argv[1]), 0, 1): pass"
    with open_output(tmp_path / "out", False, 1):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True)
    assert "another run writes into" in done.stderr


def test_the_table_of_errors_is_there_while_there_are_any(tmp_path):
    with open_output(tmp_path / "out", as_files=False, seconds=1) as output:
        file = output.write_errors([Problem(7, "seed", "x, y"), Problem(3, "row", "empty")])
        assert file.read_text("utf-8").splitlines() == ["row,input,reason", "3,row,empty", '7,seed,"x, y"']
        assert output.write_errors([]) is None
        assert not file.exists()


@pytest.mark.parametrize("as_files", [True, False])
@pytest.mark.parametrize("tries", [1, 2])
def test_a_part_that_a_full_disk_has_no_room_for_is_tried_again_at_the_end(tmp_path, monkeypatch, as_files, tries):
    left, write = iter(range(tries)), parquet.write_table

    def full(*arguments):
        if next(left, None) is not None:
            raise OSError(28, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(output_module.parquet, "write_table", full)
    with pytest.raises(OSError, match="No space left.*table/00000"), open_output(tmp_path / "out", as_files, 0) as out:
        out.add(table(drawing(1)))
    with open_output(tmp_path / "out", as_files, 0) as out:
        assert out.done_of(rows(1), []) == ({1} if tries == 1 else set())


def test_a_full_disk_is_named_with_the_folder_of_the_pictures(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left.*pictures/00000"), open_output(tmp_path / "out", True, 0) as out:
        out.add(table(drawing(1)))
    assert names(tmp_path / "out") == [".jsd-bulk"]
