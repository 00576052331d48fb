"""A row is checked when it is made. Its seed and its digest depend on the row and the run alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from PIL import Image

from bulk.command import read_rows
from bulk.rows import Problem, Row, batches_of, make_request, make_row, model_digest
from jsd.errors import InputError, WeightsError
from jsd.request import MAX_LORA
from tests.adapters import adapter
from tests.fakes import Trap, flip_last_bit


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
    assert [problem.unreadable for problem in problems] == [True, False]


def test_an_adapter_is_read_from_its_path(tmp_path, components):
    (tmp_path / "my cat.safetensors").write_bytes(adapter(components))
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"prompt": "猫", "lora": "my cat.safetensors", "lora_scale": -0.5}\n{"prompt": "犬", "lora": null}'
    )
    rows, problems = read_rows(file, 0, "")
    requests = [make_request(row.inputs) for row in rows]
    assert [(request.lora, request.lora_scale) for request in requests] == [(adapter(components), -0.5), (None, 1)]
    assert problems == []


def test_files_are_told_apart_by_their_content(tmp_path, components):
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / f"{name}.safetensors").write_bytes(adapter(components, number % 2))
        Image.new("L", (8, 8), number % 2).save(tmp_path / f"{name}.png")
    for name, end in (("lora", "safetensors"), ("image", "png")):
        a, b, c = (row(seed=3, **{name: f"{tmp_path}/{letter}.{end}"}).digest for letter in "abc")
        assert a == c
        assert len({a, b, row(seed=3).digest}) == 3


def test_a_file_that_changes_before_it_is_drawn_is_refused(tmp_path, components):
    """Its row would be known by the file that it had."""
    (tmp_path / "a.safetensors").write_bytes(adapter(components, 0))
    Image.new("L", (8, 8), 0).save(tmp_path / "a.png")
    asked = {name: row(**{name: f"{tmp_path}/a.{end}"}) for name, end in (("lora", "safetensors"), ("image", "png"))}
    (tmp_path / "a.safetensors").write_bytes(adapter(components, 1))
    Image.new("L", (8, 8), 1).save(tmp_path / "a.png")
    for name, sent in asked.items():
        with pytest.raises(InputError, match=f"{name}: .*has changed since the run began"):
            make_request(sent.inputs)


def test_a_file_that_is_no_adapter_is_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"x": Trap(tmp_path / "trap")}))
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(MAX_LORA + 1)
    for name, reason in (
        ("pickle", "no .safetensors file"),
        ("large", "more than 256 MB were given"),
        ("no", "no file"),
    ):
        for _ in range(2):
            with pytest.raises(InputError, match=f"lora: .*{reason}"):
                row(lora=str(tmp_path / f"{name}.safetensors"))
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("values", "name", "reason"),
    [
        ({"prompt": " \u3164"}, "prompt", "is blank"),
        ({"prompt": "猫" * 2001}, "prompt", "2001 characters were given"),
        ({"seed": 1.5}, "seed", "an integer is wanted"),
        ({"seed": "5"}, "seed", "an integer is wanted"),
        ({"promt": "猫"}, "input", "there is no input called 'promt'"),
        ({"image": b"PNG"}, "image", "the path of a file is wanted, b'PNG' was given"),
        ({"lora": 5}, "lora", "the path of a file is wanted, 5 was given"),
        ({"lora_scale": 0.5}, "lora_scale", "given without lora"),
        ({"guidance_interval": [0.5]}, "guidance_interval", "two numbers are wanted"),
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
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"a")
    digests = [model_digest(), model_digest()]
    monkeypatch.setenv("JSD_LORA", str(file))
    digests.append(model_digest())
    monkeypatch.setenv("JSD_LORA_SCALE", "0.5")
    digests.append(model_digest())
    flip_last_bit(file)
    digests.append(model_digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    (tmp_path / "peft").mkdir()
    file.rename(tmp_path / "peft" / "adapter_model.safetensors")
    monkeypatch.setenv("JSD_LORA", str(tmp_path / "peft"))
    assert model_digest() == digests[-1]
    monkeypatch.setenv("JSD_LORA", str(tmp_path))
    with pytest.raises(WeightsError, match=f"{tmp_path}: a folder without"):
        model_digest()


def test_a_batch_has_as_many_rows_as_fill_the_unet_and_at_least_one():
    rows = [Row(number, "", pictures, "") for number, pictures in enumerate((1, 1, 1, 1, 2, 3, 1, 8, 1), 1)]
    batches = [[row.number for row in batch] for batch in batches_of(rows, unet_rows=8)]
    assert batches == [[1, 2, 3, 4], [5], [6, 7], [8], [9]]
    assert list(batches_of([], unet_rows=8)) == []
