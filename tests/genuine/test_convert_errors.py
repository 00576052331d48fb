"""A repository that can't be converted is refused with the name of the file, and nothing is left behind."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from jsd.errors import WeightsError
from jsd.genuine.convert import convert
from jsd.genuine.tensors import read_tensors
from jsd.manifest import verify
from tests.genuine.layout_2022 import write_json

PARTS = ("text_encoder", "unet", "vae", "safety_checker")


class Evil:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return (open, (self.file, "w"))


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(old_copy, tmp_path, protocol):
    file = old_copy / "unet" / "diffusion_pytorch_model.bin"
    if protocol == "torch":
        torch.save({"conv_in.weight": Evil(tmp_path / "pwned")}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(tmp_path / "pwned"), protocol=2))
    with pytest.raises(WeightsError, match=f"{file}: refused, a pickle that does more than hold tensors"):
        convert(old_copy, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def change(file, edit):
    """Edit the tensors in a pickle."""
    tensors = torch.load(file, weights_only=True)
    edit(tensors)
    torch.save(tensors, file)


@pytest.mark.parametrize(
    ("part", "edit", "message"),
    [
        ("unet", lambda t: t.pop("conv_in.bias"), "missing keys, conv_in.bias first"),
        ("unet", lambda t: t.update(extra=torch.zeros(3)), "unexpected keys, extra first"),
        ("unet", lambda t: t.update({"conv_in.bias": torch.zeros(3)}), "conv_in.bias"),
        ("vae", lambda t: t.pop("encoder.mid_block.attentions.0.query.weight"), "missing keys"),
        ("safety_checker", lambda t: t.pop("concept_embeds"), "missing keys, concept_embeds first"),
        ("text_encoder", lambda t: t.pop("text_model.final_layer_norm.weight"), "missing keys, final_layer_norm"),
        ("text_encoder", lambda t: t.update(epoch=3), "'epoch' is not a tensor"),
        (
            "text_encoder",
            lambda t: t.update({"text_model.embeddings.position_ids": torch.zeros(16).long()}),
            "position_ids are not 0, 1, 2",
        ),
    ],
)
def test_a_tensor_that_is_missing_left_over_or_wrong_is_named(old_copy, tmp_path, part, edit, message):
    (file,) = (old_copy / part).glob("*.bin")
    change(file, edit)
    with pytest.raises(WeightsError, match=message) as error:
        convert(old_copy, tmp_path / "new")
    assert str(old_copy / part) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_or_truncated_file_of_tensors_is_named(old_copy, tmp_path, part):
    (file,) = (old_copy / part).glob("*.bin")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=f"{file}: can't be read"):
        convert(old_copy, tmp_path / "new")
    file.unlink()
    with pytest.raises(WeightsError, match=f"{file.parent}: has none of model.safetensors"):
        convert(old_copy, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_files_of_tensors_and_repositories_get_advice(old_copy, tmp_path):
    (file,) = (old_copy / "unet").glob("*.bin")
    file.rename(file.with_name("diffusion_pytorch_model.non_ema.bin"))
    with pytest.raises(WeightsError, match="rename the one you want: diffusion_pytorch_model.non_ema.bin$"):
        convert(old_copy, tmp_path / "new")
    with pytest.raises(WeightsError, match="weights pull fetches a repository"):
        convert("owner/name", tmp_path / "new")


@pytest.mark.parametrize(
    "file",
    [
        "tokenizer/spiece.model",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "feature_extractor/preprocessor_config.json",
        "text_encoder/config.json",
    ],
)
def test_a_missing_config_is_named(old_copy, tmp_path, file):
    (old_copy / file).unlink()
    with pytest.raises(WeightsError, match=f"{old_copy / file}: missing"):
        convert(old_copy, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}),
        ("feature_extractor/preprocessor_config.json", {"size": {"odd": 1}}),
    ],
)
def test_a_config_with_a_wrong_setting_is_named(old_copy, tmp_path, file, settings):
    write_json(old_copy / file, json.loads((old_copy / file).read_text()) | settings)
    with pytest.raises(WeightsError, match=f"{old_copy / file}: "):
        convert(old_copy, tmp_path / "new")


def test_a_tokenizer_with_more_tokens_than_the_text_encoder_has_embeddings_is_refused(old_copy, tmp_path):
    file = old_copy / "text_encoder" / "config.json"
    write_json(file, json.loads(file.read_text()) | {"vocab_size": 50})
    with pytest.raises(WeightsError, match="the text encoder has 50 embeddings"):
        convert(old_copy, tmp_path / "new")


def test_numbers_too_large_for_half_precision_are_refused(old_copy, tmp_path):
    change(old_copy / "unet" / "diffusion_pytorch_model.bin", lambda t: t["conv_in.bias"].fill_(1e6))
    with pytest.raises(WeightsError, match="conv_in.bias holds numbers that are not finite in torch.float16; try"):
        convert(old_copy, tmp_path / "new")
    convert(old_copy, tmp_path / "new", torch.float32)
    verify(tmp_path / "new")


@pytest.mark.parametrize(
    "junk", [b"hello world", b"version https://git-lfs.github.com/spec/v1\noid", b"<!DOCTYPE html>", b"", b"PK\3\4 zip"]
)
def test_a_file_that_holds_no_tensors_can_not_be_read(tmp_path, junk):
    file = tmp_path / "diffusion_pytorch_model.bin"
    file.write_bytes(junk)
    with pytest.raises(WeightsError, match=f"{file}: can't be read"):
        read_tensors(file)


def test_a_pickle_of_a_list_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.bin")
    with pytest.raises(WeightsError, match="holds a list; it must hold tensors by name"):
        read_tensors(tmp_path / "list.bin")
