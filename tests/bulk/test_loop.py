"""The loop of a run, with Ray replaced: which rows go to the actors together."""

from __future__ import annotations

import contextlib
import io
import json

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is missing: script/bootstrap bulk")

from bulk import loop, ray_pool
from bulk.output import open_output
from bulk.rows import Row


def test_a_run_that_goes_on_has_the_batches_of_the_whole_file(tmp_path, monkeypatch, tiny_folder):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_MAX_BATCH", "4")
    given: list[str] = []
    monkeypatch.setattr(ray_pool, "quiet", lambda: contextlib.nullcontext(io.StringIO()))
    monkeypatch.setattr(ray_pool, "running", contextlib.nullcontext)
    monkeypatch.setattr(ray_pool, "machines", lambda: [{"CPU": 1.0}])
    monkeypatch.setattr(ray_pool, "draw_all", lambda batches, *_: given.extend(batches) or ())
    rows = [Row(number, "{}", pictures=2 if number == 9 else 1, digest="") for number in range(1, 10)]
    with open_output(tmp_path / "out", False, 1) as output:
        loop.draw(rows, {3, 4, 6}, output, None, None)
    assert [[row for row, _, _ in json.loads(batch)] for batch in given] == [[1, 2], [5], [7, 8], [9]]
