"""Prompts are read from each kind of file. A bad row is an error of its own, and the others are read."""

from __future__ import annotations

import pytest

from bulk import prompts
from jsd.errors import InputError


@pytest.fixture
def read(tmp_path):
    """A function that writes a file and reads it: a dict of row -> values, or the message of its error."""

    def read(name: str, content: str | bytes) -> dict[int, object]:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {row: str(found) if isinstance(found, InputError) else found for row, found in prompts.read(file)}

    return read


def test_a_text_file_has_a_prompt_a_line(read):
    assert read("a.txt", '\ufeff猫 油絵\r\n\n城, "赤い"\n') == {
        1: {"prompt": "猫 油絵"},
        2: "row: empty; every row needs a prompt",
        3: {"prompt": '城, "赤い"'},
    }


def test_a_csv_file_has_an_input_a_column(read):
    content = '\ufeffprompt,seed,steps,guidance_scale,image,lora,lora_scale\r\n"猫, 赤い\n背景",1.0,4,,cat.png,,\r\n'
    assert read("a.CSV", content + "犬,null,,1.5,,a b=c.safetensors,.8\r\n") == {
        1: {"prompt": "猫, 赤い\n背景", "seed": 1, "num_inference_steps": 4, "image": "cat.png"},
        2: {"prompt": "犬", "guidance_scale": 1.5, "lora": "a b=c.safetensors", "lora_scale": 0.8},
    }


def test_a_bad_row_of_a_csv_file_is_named_and_the_others_are_read(read):
    rows = ["猫,1", "", ",", "犬,x", "城,1,2", "馬", '鳥"a"b,"c"d', "鹿,2"]
    found = read("a.csv", "\n".join(["prompt,seed", *rows, ""]))
    assert found == {
        1: {"prompt": "猫", "seed": 1},
        2: "row: empty; every row needs a prompt",
        3: "row: empty; every row needs a prompt",
        4: "seed: 'x' was given; an integer is wanted, or null for the default",
        5: "row: 3 values were given for 2 columns; quote a value with a comma",
        6: "row: 1 values were given for 2 columns; quote a value with a comma",
        7: "row: not CSV (',' expected after '\"')",
        8: {"prompt": "鹿", "seed": 2},
    }


def test_a_jsonl_file_has_an_object_a_line(read):
    lines = ['{"prompt": "猫", "seed": 7, "steps": 4, "width": null}', "", "[1]", '{"prompt": "犬"']
    lines += [
        '{"steps": 1, "num_inference_steps": 1}',
        "[" * 100_000,
        '{"prompt": "城"}',
        '{"prompt": "馬", "seed": 1, "seed": 2}',
    ]
    found = read("a.jsonl", "\n".join(lines))
    assert found[1] == {"prompt": "猫", "seed": 7, "num_inference_steps": 4}
    assert found[2] == "row: empty; every row needs a prompt"
    assert found[3] == 'row: [1] was given; an object is wanted, e.g. {"prompt": "猫", "seed": 1}'
    assert found[4].startswith("row: not JSON (Expecting ',' delimiter")
    assert found[5] == "num_inference_steps: given twice"
    assert found[6].startswith("row: not JSON (")
    assert found[7] == {"prompt": "城"}
    assert found[8] == "seed: given twice"


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.txt", b"%s\n\x96\x7b\n\xe5\x9f\x8e\n", "prompt: byte 0x96 at character 1"),
        ("a.csv", b"prompt\n%s\n\x96\x7b\n\xe5\x9f\x8e\n", "prompt: byte 0x96 at character 1"),
        (
            "a.jsonl",
            b'{"prompt":"%s"}\n{"prompt":"\x96\x7b"}\n{"prompt":"\xe5\x9f\x8e"}\n',
            "row: byte 0x96 at character 12",
        ),
    ],
)
def test_broken_utf_8_spoils_its_row_alone(read, name, content, place):
    found = read(name, content % "猫".encode())
    assert found[1] == {"prompt": "猫"}
    assert found[2] == f"{place} is not UTF-8; save the file as UTF-8, not as Shift_JIS"
    assert found[3] == {"prompt": "城"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "'a.tsv' was given; a name ending in .txt, .csv, .jsonl, .parquet is wanted"),
        ("a.txt", "猫".encode("utf-16"), "'a.txt' is UTF-16; save it as UTF-8"),
        ("a.csv", "prompt,promt\n猫,1\n", "there is no input called 'promt'; columns may be prompt,"),
        ("a.csv", "prompt,steps,num_inference_steps\n猫,1,1\n", "two columns are num_inference_steps"),
        ("a.csv", "seed\n1\n", "there is no column prompt"),
        ("a.csv", '"prompt\n猫\n', "not CSV (unexpected end of data)"),
    ],
)
def test_a_file_without_one_good_row_is_refused(read, name, content, message):
    with pytest.raises(InputError) as caught:
        read(name, content)
    assert str(caught.value).startswith(f"PROMPTS: {message}")


def test_a_parquet_file_has_an_input_a_column(read, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: script/bootstrap bulk")
    parquet = pytest.importorskip("pyarrow.parquet")
    broken = pa.array([b"\xe7\x8c\xab", None, b"\x96\x7b", b"\xe5\x9f\x8e"]).cast(pa.binary()).view(pa.string())
    table = {"prompt": broken, "seed": [1, None, 2, None], "steps": [None, None, 3.0, 4.0]}
    parquet.write_table(pa.table(table), tmp_path / "made.parquet")
    content = (tmp_path / "made.parquet").read_bytes()
    assert read("a.parquet", content) == {
        1: {"prompt": "猫", "seed": 1},
        2: "row: empty; every row needs a prompt",
        3: "prompt: byte 0x96 is not UTF-8; write the file with UTF-8 strings",
        4: {"prompt": "城", "num_inference_steps": 4.0},
    }
    with pytest.raises(InputError, match="PROMPTS: 'a.parquet' can't be read as Parquet"):
        read("a.parquet", content[:-9])
    parquet.write_table(pa.table({"caption": ["猫"]}), tmp_path / "made.parquet")
    with pytest.raises(InputError, match="PROMPTS: there is no input called 'caption'"):
        read("a.parquet", (tmp_path / "made.parquet").read_bytes())
