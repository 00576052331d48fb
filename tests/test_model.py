"""A model folder is loaded whole and unchanged, or not at all."""

from __future__ import annotations

import json
import pickle
import time

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from jsd import manifest
from jsd.errors import WeightsError
from jsd.genuine.folder import write_manifest
from jsd.manifest import begin_verification
from jsd.model import PARTS, load
from tests.fakes import CELL, NATIVE, Trap, flip_last_bit

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_folder_is_loaded_ready_to_serve(components):
    assert components.name == "tiny"
    defaults = components.defaults
    assert (defaults.width, defaults.height, defaults.cell) == (NATIVE, NATIVE, CELL)
    assert (defaults.num_inference_steps, defaults.guidance_scale, defaults.scheduler) == (4, 2.0, "DDIM")
    for part in (components.text_encoder, components.unet, components.vae, components.safety_checker):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())
        # The files hold float16, but a CPU computes in float32.
        assert {p.dtype for p in part.parameters()} == {torch.float32}


def test_only_the_autoencoder_has_the_memory_layout_in_which_it_is_fastest(components):
    kernels = [p for p in components.vae.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in kernels)
    assert all(p.is_contiguous() for p in components.unet.parameters())


def test_every_tensor_comes_from_its_file(components, tiny_folder):
    stored = load_file(tiny_folder / UNET)
    loaded = components.unet.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[key].float(), loaded[key]) for key in stored)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_the_same_as_with_from_pretrained(components, tiny_folder, part):
    ours = getattr(components, part)
    stock = type(ours).from_pretrained(tiny_folder / part, local_files_only=True, dtype=torch.float32)
    assert ours.config == stock.config
    for kind in ("named_parameters", "named_buffers"):
        mine, theirs = dict(getattr(ours, kind)()), dict(getattr(stock, kind)())
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_verification_that_has_begun_can_be_loaded(tiny_folder):
    verification = begin_verification(tiny_folder)
    assert load(verification).name == verification.finish()["name"] == "tiny"


def test_an_altered_file_of_the_right_size_fails_the_loading(tiny_copy):
    flip_last_bit(tiny_copy / UNET)
    verification = begin_verification(tiny_copy)
    with pytest.raises(WeightsError, match=f"{UNET}: altered"):
        load(verification)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "harm", ["first byte", "middle byte", "last byte", "deleted", "pickle", "pickle of its size", "pickle beside it"]
)
def test_a_harmed_weights_file_is_named_and_no_pickle_runs(tiny_copy, tmp_path, part, harm):
    (file,) = (tiny_copy / part).glob("*.safetensors")
    data, trap = bytearray(file.read_bytes()), tmp_path / "trap"
    if harm.endswith(" byte"):
        data[{"first byte": 0, "middle byte": len(data) // 2, "last byte": -1}[harm]] ^= 1
        file.write_bytes(data)
    elif harm == "deleted":
        file.unlink()
    else:
        file = file.with_name("pytorch_model.bin") if harm == "pickle beside it" else file
        size = len(data) if harm == "pickle of its size" else 0
        file.write_bytes(pickle.dumps(Trap(trap), protocol=2).ljust(size, b"\0"))
    with pytest.raises(WeightsError, match=f"{part}/{file.name}"):
        load(tiny_copy)
    assert not trap.exists()


def test_no_weights_are_read_from_a_folder_with_a_wrong_hash(tiny_copy, monkeypatch):
    opened, right = [], manifest.sha256
    monkeypatch.setattr(safetensors, "safe_open", lambda *args, **kwargs: opened.append(args))
    monkeypatch.setattr(manifest, "sha256", lambda file: time.sleep(0.1) or right(file))
    flip_last_bit(tiny_copy / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="vae.*altered"):
        load(tiny_copy)
    assert not opened


def test_a_folder_without_defaults_gets_those_of_2022(tiny_copy):
    write_manifest(tiny_copy, name="bare", defaults={})
    defaults = load(tiny_copy).defaults
    assert (defaults.width, defaults.num_inference_steps, defaults.guidance_scale) == (NATIVE, 50, 7.5)
    assert defaults.scheduler == "K_LMS"


def test_the_safety_checker_is_left_out_only_on_request(tiny_copy):
    assert load(tiny_copy, safety_checker=False).safety_checker is None
    for path in (tiny_copy / "safety_checker").iterdir():
        path.unlink()
    (tiny_copy / "safety_checker").rmdir()
    write_manifest(tiny_copy, name="unsafe", defaults={})
    with pytest.raises(WeightsError, match="safety_checker"):
        load(tiny_copy)


def test_a_hidden_file_is_never_read(tiny_copy):
    hidden = tiny_copy / "unet" / ".diffusion_pytorch_model.safetensors"
    hidden.write_bytes(b"from another machine")
    assert load(tiny_copy).name == "tiny"
    (tiny_copy / UNET).replace(hidden)
    listed = json.loads((tiny_copy / "MANIFEST.json").read_text())
    del listed["files"][UNET]
    (tiny_copy / "MANIFEST.json").write_text(json.dumps(listed))
    with pytest.raises(WeightsError, match="unet: .* are wanted"):
        load(tiny_copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attn_implementation", "somebody/kernels"),
        ("_attn_implementation", "flash_attention_2"),
        ("transformers_weights", ".hidden.safetensors"),
        ("quantization_config", {"quant_method": "torchao"}),
    ],
)
def test_a_config_can_not_name_code_or_files_to_read(tiny_copy, name, value):
    config = tiny_copy / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    write_manifest(tiny_copy, name="tiny", defaults={})
    with pytest.raises(WeightsError, match=rf"text_encoder/config\.json: the setting {name} is not allowed"):
        load(tiny_copy)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("name", ["index.json", "other.safetensors"])
def test_a_part_with_another_file_that_a_loader_might_read_is_refused(tiny_copy, part, name):
    """An index may name files outside the folder, or pickles under other names."""
    (weights,) = (tiny_copy / part).glob("*.safetensors")
    file = weights.with_name(f"{weights.name}.index.json") if name == "index.json" else weights.with_name(name)
    file.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}))
    write_manifest(tiny_copy, name="tiny", defaults={})
    with pytest.raises(WeightsError, match=f"{part}: .* are wanted"):
        load(tiny_copy)


@pytest.mark.parametrize("halves", [0, 1])
def test_a_loaded_model_does_not_change_with_its_file(tiny_copy, halves):
    part = tiny_copy / "unet"
    tensors = {name: tensor.float() for name, tensor in load_file(tiny_copy / UNET).items()}
    for name in sorted(tensors)[:halves]:
        tensors[name] = tensors[name].half()
    save_file(tensors, tiny_copy / UNET, metadata={"format": "pt"})
    write_manifest(tiny_copy, name="tiny", defaults={})
    unet = load(tiny_copy).unet
    with next(part.glob("*.safetensors")).open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\xff" * 1000)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize("change", ["drop", "add", "resize"])
@pytest.mark.parametrize(
    ("path", "key"),
    [("safety_checker/model.safetensors", "concept_embeds"), (UNET, "conv_in.weight")],
    ids=["transformers", "diffusers"],
)
def test_a_tensor_that_is_missing_or_left_over_or_of_another_size_is_an_error(tiny_copy, change, path, key):
    """The file matches the manifest, but a part of the model would stay random."""
    tensors = load_file(tiny_copy / path)
    if change == "drop":
        tensors.pop(key)
    elif change == "add":
        tensors["stranger"] = torch.zeros(1)
    else:
        tensors[key] = torch.zeros(3, 3)
    save_file(tensors, tiny_copy / path, metadata={"format": "pt"})
    write_manifest(tiny_copy, name="tiny", defaults={})
    with pytest.raises(WeightsError, match=path.split("/")[0]):
        load(tiny_copy)


def test_a_tokenizer_too_long_for_its_encoder_is_an_error(tiny_copy):
    config = tiny_copy / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps({"model_max_length": 77}))
    write_manifest(tiny_copy, name="tiny", defaults={})
    with pytest.raises(WeightsError, match="too long"):
        load(tiny_copy)
