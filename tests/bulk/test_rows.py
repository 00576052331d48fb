"""A row is checked when it is made. Its seed and its digest depend on the row and the run alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from bulk.command import read_rows
from bulk.rows import Problem, Row, batches_of, make_request, make_row, model_digest
from jsd.errors import InputError
from tests.fakes import flip_last_bit


def row(number=1, run_seed=0, model="", **values):
    return make_row(number, {"prompt": "猫", **values}, Path.cwd(), run_seed, model)


def test_a_row_without_a_seed_gets_that_of_its_number_and_the_run():
    seeds = [make_request(row(number, seed).inputs).seed for seed in (0, 1) for number in (1, 2, 3)]
    assert len(set(seeds)) == 6
    assert seeds == [make_request(row(number, seed).inputs).seed for seed in (0, 1) for number in (1, 2, 3)]
    assert make_request(row(seed=5).inputs).seed == 5


def test_the_digest_tells_rows_apart_that_give_other_pictures():
    first = row(seed=3)
    assert row(seed=3).digest == first.digest
    assert row(seed=3, width=64.0).digest == row(seed=3, width=64).digest
    assert row(2, seed=3).digest == first.digest  # it is the same picture
    others = [row(), row(2), row(run_seed=1), row(seed=4), row(seed=3, model="b"), row(seed=3, width=64)]
    assert len({first.digest, *(other.digest for other in others)}) == 7


def test_pictures_are_read_from_paths_relative_to_the_file_of_prompts(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "in" / "cat.png")
    file = tmp_path / "prompts.csv"
    file.write_text(
        f"prompt,image,mask,prompt_strength\n猫,in/cat.png,{tmp_path}/in/cat.png,.5\n犬,no.png,,\n馬,,,.5\n"
    )
    rows, problems = read_rows(file, 0, "")
    request = make_request(rows[0].inputs)
    assert (request.image.size, request.mask.mode, request.prompt_strength) == ((8, 8), "L", 0.5)
    assert problems[0] == Problem(2, "image", "there is no file 'no.png'")
    assert (problems[1].row, problems[1].input) == (3, "prompt_strength")


@pytest.mark.parametrize(
    ("values", "name", "reason"),
    [
        ({"prompt": " \u3164"}, "prompt", "is blank"),
        ({"prompt": "猫" * 2001}, "prompt", "2001 characters were given"),
        ({"seed": 1.5}, "seed", "an integer is wanted"),
        ({"seed": "5"}, "seed", "an integer is wanted"),
        ({"promt": "猫"}, "input", "there is no input called 'promt'"),
        ({"image": b"PNG"}, "image", "the path of a file is wanted, b'PNG' was given"),
        ({"image": "a\0b"}, "image", "there is no file"),
        ({"image": "a" * 5000}, "image", "there is no file"),
        ({"mask": __file__}, "mask", "given without an image"),
        ({"width": float("nan")}, "width", "an integer is wanted"),
    ],
)
def test_a_bad_value_names_its_input(values, name, reason):
    with pytest.raises(InputError) as caught:
        row(**values)
    problem = Problem.of(4, caught.value)
    assert (problem.row, problem.input) == (4, name)
    assert reason in problem.reason


def test_the_model_digest_changes_with_the_model_and_its_adapter(tiny_copy, tmp_path, monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_copy))
    adapter = tmp_path / "a.safetensors"
    adapter.write_bytes(b"a")
    digests = [model_digest(), model_digest()]
    monkeypatch.setenv("JSD_LORA", str(adapter))
    digests.append(model_digest())
    monkeypatch.setenv("JSD_LORA_SCALE", "0.5")
    digests.append(model_digest())
    flip_last_bit(adapter)
    digests.append(model_digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_a_batch_has_as_many_rows_as_fill_the_unet_and_at_least_one():
    rows = [Row(number, "", pictures, "") for number, pictures in enumerate((1, 1, 1, 1, 2, 3, 1, 8, 1), 1)]
    batches = [[row.number for row in batch] for batch in batches_of(rows, unet_rows=8)]
    assert batches == [[1, 2, 3, 4], [5], [6, 7], [8], [9]]
    assert list(batches_of([], unet_rows=8)) == []
