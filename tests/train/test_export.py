"""The command `train export`: a run becomes a model folder that opens and draws."""

import json

import torch
from safetensors.torch import load_file

from jsd import cli, model, sampling
from jsd.manifest import MANIFEST
from jsd.request import Request
from jsd.tokenizer import Tokenizer
from tests.train.runs import run_loop


def export(*words):
    return cli.main(["train", "export", *map(str, words)])


def tensors(folder, part):
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def changed(one, other):
    return {key for key in one if not torch.equal(one[key].float(), other[key].float())}


def test_stage_1_then_stage_2_give_folders_that_draw(settings, tmp_path, tiny_folder):
    one, two, base = tmp_path / "one", tmp_path / "two", tiny_folder
    assert run_loop(settings) == 0
    assert export(tmp_path / "run", one) == 0
    assert not changed(tensors(one, "unet"), tensors(base, "unet"))
    assert not changed(tensors(one, "vae"), tensors(base, "vae"))
    assert tensors(one, "text_encoder")["embeddings.token_embedding.weight"].shape[0] == len(
        Tokenizer.from_folder(tmp_path / "tokenizer").pieces
    )

    assert run_loop(settings, stage="stage2", model=one, tokenizer=None, out=tmp_path / "run2") == 0
    assert export(tmp_path / "run2", two, "--name", "mine") == 0
    assert len(changed(tensors(two, "unet"), tensors(one, "unet"))) > 0.9 * len(tensors(one, "unet"))
    assert len(changed(tensors(two, "text_encoder"), tensors(one, "text_encoder"))) > 10
    assert not changed(tensors(two, "vae"), tensors(base, "vae"))

    components = model.load(two, safety_checker=False)
    assert components.name == "mine"
    assert sampling.generate(components, Request("猫の絵", num_inference_steps=1)).images[0].size == (64, 64)
    assert "stage2, 4 steps of 4" in (two / "README.md").read_text("utf-8")


def test_a_download_with_pickles_beside_its_safetensors_can_be_exported(settings, tmp_path, tiny_copy):
    (tiny_copy / MANIFEST).unlink()  # a download from the hub has none
    (tiny_copy / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"old")
    (tiny_copy / "LICENSE").write_text("Open RAIL-M")
    assert run_loop(settings, model=tiny_copy, steps=1) == 0
    assert export(tmp_path / "run", tmp_path / "one") == 0
    assert not list((tmp_path / "one").rglob("*.bin"))
    assert (tmp_path / "one" / "LICENSE").read_text() == "Open RAIL-M"
    assert model.load(tmp_path / "one").name == "one"


def test_a_run_without_a_checkpoint_is_refused(tmp_path, capsys):
    assert export(tmp_path, tmp_path / "one") == 2
    assert "run.json: no such file" in capsys.readouterr().err
    settings = {"stage": "stage1", "model": "x", "tokenizer": None, "batch": 1, "accumulate": 1, "shards": "x"}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    assert export(tmp_path, tmp_path / "one") == 2
    assert "no checkpoint of stage1" in capsys.readouterr().err
