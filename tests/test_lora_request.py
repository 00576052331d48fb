"""A request brings its own adapter along, through Python, the command line and the server."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from jsd import adapters, cli, images, model, sampling
from jsd.errors import InputError, QueueFullError
from jsd.request import MAX_LORA, Request
from tests.adapters import adapter, kohya
from tests.fakes import Trap

CAT = Request("猫", seed=1)


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    """The tiny model for this file alone, because adapters change its weights."""
    return model.load(tiny_folder)


def draw(components, request):
    return sampling.generate(components, request).images[0].tobytes()


def broken(components, kind, tmp_path):
    """A file that is no adapter for the tiny model."""
    tensors = kohya(components)
    if kind == "nan":
        next(iter(tensors.values()))[0] = torch.nan
        return save(tensors)
    return {
        "pickle": lambda: pickle.dumps({"x": Trap(tmp_path / "trap")}),
        "zip": lambda: b"PK\3\4" + bytes(60),
        "short": lambda: b"",
        "cut": lambda: save(tensors)[:2000],
        "large": lambda: bytes(MAX_LORA + 1),
        "other": lambda: save({key.replace("down_blocks_0", "down_blocks_7"): tensors[key] for key in tensors}),
        "peft": lambda: save({f"base_model.model.{key}": tensors[key] for key in tensors}),
        "names": lambda: (17 << 20).to_bytes(8, "little") + b"{}".ljust(17 << 20),
        "deep": lambda: (100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995,
    }[kind]()


BROKEN = {
    "pickle": "no .safetensors file, or one that is cut off",
    "names": "no .safetensors file, or one .* has a header of more than 16 MB",
    "zip": "no .safetensors file",
    "short": "no .safetensors file",
    "cut": "no .safetensors file",
    "large": "more than 256 MB were given",
    "other": "'lora_unet_down_blocks_7_.*' has no place in this model",
    "nan": "holds numbers that are not finite",
    "peft": "whose adapter_config.json is not in it",
    "deep": "can't be read as an adapter",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_adapter_for_the_model_is_refused_and_changes_nothing(kind, loaded, tmp_path):
    before = draw(loaded, CAT)
    with pytest.raises(InputError, match=f"^lora: .*{BROKEN[kind]}") as caught:
        sampling.generate(loaded, replace(CAT, lora=broken(loaded, kind, tmp_path)))
    assert caught.value.name == "lora"
    assert not (tmp_path / "trap").exists()
    assert draw(loaded, CAT) == before


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"lora": "my-cat.safetensors"}, "lora: 'my-cat.safetensors' was given; the bytes of a .safetensors file"),
        ({"lora_scale": 0.5}, "lora_scale: given without lora"),
        ({"lora_scale": 2.1}, "lora_scale: 2.1 was given; -2 to 2 are allowed"),
        ({"lora_scale": float("nan")}, "lora_scale: nan was given"),
    ],
)
def test_a_wrong_value_is_refused_by_name(inputs, message):
    with pytest.raises(InputError, match=message):
        Request("猫", **inputs)


def test_adapters_follow_each_other_and_each_draws_what_it_draws_alone(loaded, tiny_folder):
    requests = [CAT, *(replace(CAT, lora=adapter(loaded, i), lora_scale=0.8) for i in range(2))]
    wanted = [draw(model.load(tiny_folder), request) for request in requests]
    assert len(set(wanted)) == 3
    for i in (1, 2, 0, 2, 1, 0):
        assert draw(loaded, requests[i]) == wanted[i]


def test_the_default_adapter_is_drawn_with_unless_a_request_has_its_own(loaded, tiny_folder, tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(adapter(loaded, 0))
    served = model.load(tiny_folder, lora=file, lora_scale=0.7)
    mine, other = (replace(CAT, lora=adapter(loaded, i), lora_scale=0.7) for i in range(2))
    for request, wanted in ((CAT, mine), (other, other), (CAT, mine)):
        assert draw(served, request) == draw(loaded, wanted)
    metadata = sampling.generate(served, CAT).metadata(0)
    assert metadata["lora_scale"] == 0.7
    assert metadata["lora"] == sampling.generate(loaded, mine).metadata(0)["lora"]


def test_an_adapter_is_read_once_and_only_a_few_are_held(loaded, monkeypatch):
    read, original = [], adapters.read_lora
    monkeypatch.setattr(adapters, "read_lora", lambda *source, **parts: read.append(1) or original(*source, **parts))
    files = [adapter(loaded, 10 + i) for i in range(adapters.HELD + 1)]
    for file in [*files, *files[1:], files[0]]:
        loaded.adapters.read(file)
    assert len(read) == len(files) + 1


def test_adapters_of_waiting_requests_have_a_limit(loaded, monkeypatch):
    size = loaded.adapters.read(adapter(loaded, 20)).size
    monkeypatch.setattr(adapters, "MOST_BYTES", 5 * size // 2)
    waiting = [loaded.adapters.read(adapter(loaded, 21 + i)) for i in range(2)]
    with pytest.raises(QueueFullError, match="try again later"):
        loaded.adapters.read(adapter(loaded, 23))
    assert loaded.adapters.read(adapter(loaded, 21)) is waiting[0]
    waiting.clear()
    assert loaded.adapters.read(adapter(loaded, 23))


def test_the_command_line_takes_an_adapter_as_a_file(loaded, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    (tmp_path / "my-cat.safetensors").write_bytes(adapter(loaded))
    inputs = ["-p", "猫", "-i", "seed=1", "-i", "lora=@my-cat.safetensors", "-i", "lora_scale=.8"]
    assert cli.main(["generate", *inputs, "-o", "out.png"]) == 0
    assert Image.open("out.png").tobytes() == draw(loaded, replace(CAT, lora=adapter(loaded), lora_scale=0.8))
    assert images.read_metadata("out.png")["lora_scale"] == 0.8
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(3 << 30)  # a sparse file
    for name, message in (
        ("my-cat.safetensors", "lora: 'my-cat.safetensors' was given; @FILE is wanted"),
        ("@none.safetensors", "lora: there is no file 'none.safetensors'"),
        ("@huge.safetensors", "lora: more than 256 MB were given"),
        ("@out.png", "lora: no .safetensors file"),
    ):
        capsys.readouterr()
        assert cli.main(["generate", "-p", "猫", "-i", f"lora={name}"]) == 2
        assert message in capsys.readouterr().err
