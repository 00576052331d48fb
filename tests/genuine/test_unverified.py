"""A folder without a manifest is opened by the pipelines only if nothing in it is code or a pickle."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

import jsd
from jsd.errors import WeightsError

PIPELINE = jsd.JapaneseStableDiffusionPipeline
pytestmark = pytest.mark.filterwarnings("ignore:.*nothing vouches")


def set_value(file, **values):
    """Change a JSON file, or make it."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))


def name_class(folder, **entries):
    set_value(folder / "model_index.json", **entries)


def nest(folder):
    """Put a pipeline, whose index names a module of any origin, where a part is expected."""
    name_class(folder, image_encoder=["diffusers", "StableDiffusionPipeline"])
    set_value(folder / "image_encoder" / "model_index.json", _class_name="StableDiffusionPipeline", unet=["os", "x"])


def shard(folder, part, name):
    """Store the weights of a part as a pickle, and name it in an index of safetensors."""
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()
    torch.save(tensors, folder / part / "weights.dat")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, name)}
    set_value(file.with_name(f"{file.name}.index.json"), **index)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "unet" / "model.bin").write_bytes(b"x"), "a pickle can run code"),
        (lambda folder: shard(folder, "unet", "weights.dat"), "names 'weights.dat'; only safetensors beside it"),
        (lambda folder: shard(folder, "text_encoder", "weights.dat"), "names 'weights.dat'; only safetensors"),
        (
            lambda folder: shard(folder, "text_encoder", "../a.safetensors"),
            "names '../a.safetensors'; only safetensors",
        ),
        (lambda folder: (folder / "unet" / "mine.py").write_text("boom"), "mine.py: code, which is never run"),
        (lambda folder: (folder / "MINE.PY").write_text("boom"), "MINE.PY: code, which is never run"),
        (lambda folder: name_class(folder, unet=["os", "system"]), r"unet is of \['os', 'system'\]; only classes of"),
        (
            lambda folder: name_class(folder, _class_name=["../mine", "Mine"]),
            r"_class_name is of \['../mine', 'Mine'\]",
        ),
        (lambda folder: name_class(folder, scheduler=["diffusers", ["a"]]), "diffusers can't open it"),
        (nest, "image_encoder: a pipeline, where a part is wanted"),
        (
            lambda folder: set_value(
                folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": "a--b.C"}
            ),
            r"tokenizer_config.json: names code \(auto_map\)",
        ),
        (
            lambda folder: set_value(folder / "vae" / "config.json", quantization_config={"a": 1}),
            "quantization_config is not allowed",
        ),
    ],
)
def test_a_folder_that_may_do_harm_is_refused(plain, spoil, message):
    spoil(plain)
    with pytest.raises(WeightsError, match=message):
        PIPELINE.from_pretrained(plain)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "can't be opened as it is"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer: missing"),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler: missing"),
        (lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(), "unet: can't be loaded"),
        (lambda folder: set_value(folder / "unet" / "config.json", out_channels=5), "can't be loaded as UNet2DCond"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(plain, spoil, message):
    spoil(plain)
    with pytest.raises(WeightsError, match=message):
        PIPELINE.from_pretrained(plain)


def test_a_part_that_is_given_may_be_missing_in_the_folder(tiny_folder, plain):
    own = PIPELINE.from_pretrained(tiny_folder)
    for part in ("tokenizer", "unet"):
        shutil.rmtree(plain / part)
    assert PIPELINE.from_pretrained(plain, tokenizer=own.tokenizer, unet=own.unet).unet is own.unet


def test_auto_is_the_type_of_the_files_that_are_read(tiny_folder, tmp_path):
    stock = StableDiffusionPipeline.from_pipe(PIPELINE.from_pretrained(tiny_folder))
    stock.save_pretrained(tmp_path / "new")
    stock.to(torch.float16).save_pretrained(tmp_path / "new", variant="fp16", max_shard_size="200KB")
    for variant, wanted in ((None, torch.float32), ("fp16", torch.float16)):
        pipe = PIPELINE.from_pretrained(tmp_path / "new", variant=variant, torch_dtype="auto")
        assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == wanted


def test_auto_leaves_a_broken_file_to_those_who_load_it(plain):
    next((plain / "unet").glob("*.safetensors")).write_bytes(b"broken")
    with pytest.raises(WeightsError, match="unet: can't be loaded"):
        PIPELINE.from_pretrained(plain, torch_dtype="auto")
