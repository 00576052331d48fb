"""A model folder is loaded whole and as it was made, or refused with the name of the file at fault."""

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
from jsd.manifest import begin_verification, find_weights, verify
from jsd.model import load
from tests.fakes import CELL, NATIVE

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_folder_loads_ready_to_serve(components):
    assert components.name == "tiny"
    defaults = components.defaults
    assert (defaults.width, defaults.height, defaults.cell) == (NATIVE, NATIVE, CELL)
    assert (defaults.num_inference_steps, defaults.guidance_scale, defaults.scheduler) == (4, 2.0, "DDIM")
    for part in (components.text_encoder, components.unet, components.vae, components.safety_checker):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())
        # Stored as float16, computed in float32 on a CPU.
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    # As the VAE is fastest.
    kernels = [p for p in components.vae.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert kernels
    assert all(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in kernels)
    assert all(p.is_contiguous() for p in components.unet.parameters())


def test_every_tensor_comes_from_its_file(components, tiny_folder):
    stored = load_file(tiny_folder / UNET)
    loaded = components.unet.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[key].float(), loaded[key]) for key in stored)


def test_a_part_is_what_from_pretrained_makes_of_it(components, tiny_folder):
    for part in ("text_encoder", "unet", "vae", "safety_checker"):
        ours = getattr(components, part)
        stock = type(ours).from_pretrained(tiny_folder / part, local_files_only=True, dtype=torch.float32)
        assert getattr(ours.config, "_attn_implementation", None) == getattr(stock.config, "_attn_implementation", None)
        for kind in ("named_parameters", "named_buffers"):
            mine, theirs = dict(getattr(ours, kind)()), dict(getattr(stock, kind)())
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_what_is_wrong_is_told_before_and_after_loading(tiny_copy):
    verification = begin_verification(tiny_copy)
    assert load(verification).name == verification.finish()["name"] == "tiny"
    data = bytearray((tiny_copy / UNET).read_bytes())
    data[-1] ^= 1
    (tiny_copy / UNET).write_bytes(data)
    verification = begin_verification(tiny_copy)  # sizes are right
    with pytest.raises(WeightsError, match=f"{UNET}: altered"):
        load(verification)


def test_nothing_is_read_from_a_folder_whose_hashes_are_wrong(tiny_copy, monkeypatch):
    opened, right = [], manifest.sha256
    monkeypatch.setattr(safetensors, "safe_open", lambda *args, **kwargs: opened.append(args))
    monkeypatch.setattr(manifest, "sha256", lambda file: time.sleep(0.1) or right(file))
    file = tiny_copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="vae.*altered"):
        load(tiny_copy)
    assert not opened


def test_a_folder_without_defaults_takes_those_of_2022(tiny_copy):
    write_manifest(tiny_copy, name="bare", defaults={})
    defaults = load(tiny_copy).defaults
    assert (defaults.width, defaults.num_inference_steps, defaults.guidance_scale) == (NATIVE, 50, 7.5)
    assert defaults.scheduler == "K_LMS"


def test_the_safety_checker_is_left_out_only_by_choice(tiny_copy):
    assert load(tiny_copy, safety_checker=False).safety_checker is None
    for path in (tiny_copy / "safety_checker").iterdir():
        path.unlink()
    (tiny_copy / "safety_checker").rmdir()
    write_manifest(tiny_copy, name="unsafe", defaults={})
    with pytest.raises(WeightsError, match="safety_checker"):
        load(tiny_copy)


def test_a_missing_file_is_named(tiny_copy):
    (tiny_copy / UNET).unlink()
    with pytest.raises(WeightsError, match=f"{UNET}: missing"):
        load(tiny_copy)


def test_a_truncated_file_is_named(tiny_copy):
    data = (tiny_copy / UNET).read_bytes()
    (tiny_copy / UNET).write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=f"{UNET}: {len(data) - 1} bytes, {len(data)} expected"):
        load(tiny_copy)


def test_one_altered_bit_is_found(tiny_copy):
    data = bytearray((tiny_copy / UNET).read_bytes())
    data[-1] ^= 1
    (tiny_copy / UNET).write_bytes(data)
    with pytest.raises(WeightsError, match=f"{UNET}: altered"):
        load(tiny_copy)


@pytest.mark.parametrize("path", ["unet/extra.safetensors", "text_encoder/generation_config.json"])
def test_an_unlisted_file_that_a_loader_might_read_is_named(tiny_copy, path):
    (tiny_copy / path).write_bytes(b"{}")
    with pytest.raises(WeightsError, match=f"{path}: not listed"):
        verify(tiny_copy)


def test_what_is_not_listed_is_not_read_hidden_or_behind_a_link(tiny_copy):
    hidden = tiny_copy / "unet" / ".diffusion_pytorch_model.safetensors"
    hidden.write_bytes(b"from another machine")
    assert load(tiny_copy).name == "tiny"
    (tiny_copy / UNET).replace(hidden)
    listed = json.loads((tiny_copy / "MANIFEST.json").read_text())
    del listed["files"][UNET]
    (tiny_copy / "MANIFEST.json").write_text(json.dumps(listed))
    with pytest.raises(WeightsError, match="unet: .*no file named"):
        load(tiny_copy)
    (tiny_copy / "unet").rename(tiny_copy.parent / "elsewhere")
    (tiny_copy / "unet").symlink_to(tiny_copy.parent / "elsewhere")
    with pytest.raises(WeightsError, match="unet: a link to a folder"):
        verify(tiny_copy)


def test_a_config_is_not_read_before_it_is_verified(tiny_copy):
    config = tiny_copy / "text_encoder" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("quick_gelu", "quick_GELU") if "quick_gelu" in text else text.replace("1", "2", 1))
    with pytest.raises(WeightsError, match=r"text_encoder/config\.json: altered"):
        begin_verification(tiny_copy)


def test_a_listed_config_can_name_no_code_to_fetch(tiny_copy):
    config = tiny_copy / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attn_implementation": "somebody/kernels"}))
    write_manifest(tiny_copy, name="tiny", defaults={})
    with pytest.raises(WeightsError, match=r"text_encoder/config\.json: attn_implementation names code"):
        load(tiny_copy)


def test_a_loaded_model_does_not_change_with_its_file(tiny_copy):
    part = tiny_copy / "unet"
    tensors = {name: tensor.float() for name, tensor in load_file(tiny_copy / UNET).items()}
    save_file(tensors, tiny_copy / UNET, metadata={"format": "pt"})
    write_manifest(tiny_copy, name="tiny", defaults={})
    unet = load(tiny_copy).unet
    with next(part.glob("*.safetensors")).open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\xff" * 1000)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"files": {"a" * 5000: {"size": 1, "sha256": ""}}})])
def test_an_absurd_manifest_is_refused_as_any_other(tiny_copy, text):
    (tiny_copy / "MANIFEST.json").write_text(text)
    with pytest.raises(WeightsError):
        verify(tiny_copy)


def test_a_note_beside_the_weights_does_no_harm(tiny_copy):
    (tiny_copy / "README.md").write_text("Weights.")
    (tiny_copy / ".DS_Store").write_bytes(b"\0")
    assert verify(tiny_copy)["name"] == "tiny"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "model.PT"])
def test_a_pickle_is_refused_listed_or_not(tiny_copy, name):
    (tiny_copy / "unet" / name).write_bytes(pickle.dumps({}))
    with pytest.raises(WeightsError, match=f"{name}: a pickle"):
        verify(tiny_copy)
    with pytest.raises(WeightsError, match=f"{name}: a pickle"):
        write_manifest(tiny_copy, name="evil", defaults={})


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"files": {}}', '{"files": {"../a": {"size": 1}}}'])
def test_a_manifest_that_says_nothing_is_refused(tiny_copy, manifest):
    (tiny_copy / "MANIFEST.json").unlink()
    if manifest is not None:
        (tiny_copy / "MANIFEST.json").write_text(manifest)
    for path in [p for p in tiny_copy.rglob("*") if p.is_file() and p.name != "MANIFEST.json"]:
        path.unlink()
    with pytest.raises(WeightsError, match=r"MANIFEST\.json"):
        verify(tiny_copy)


def test_a_path_out_of_the_folder_is_refused(tiny_copy):
    outside = tiny_copy.parent / "outside.safetensors"
    outside.write_bytes((tiny_copy / UNET).read_bytes())
    manifest = json.loads((tiny_copy / "MANIFEST.json").read_text())
    manifest["files"]["../outside.safetensors"] = manifest["files"][UNET]
    (tiny_copy / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="malformed"):
        verify(tiny_copy)


@pytest.mark.parametrize("change", ["drop", "add", "resize"])
@pytest.mark.parametrize(
    ("path", "key"),
    [("safety_checker/model.safetensors", "concept_embeds"), (UNET, "conv_in.weight")],
    ids=["transformers", "diffusers"],
)
def test_a_tensor_missing_left_over_or_of_another_size_is_an_error(tiny_copy, change, path, key):
    """The manifest is right and so is the file; but it would leave a part of the model random."""
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


@pytest.mark.parametrize("defaults", [{"steps": 4}, {"guidance_scale": 0}, {"scheduler": "EULER"}, {"width": "256"}])
def test_defaults_out_of_range_are_refused_when_written_and_when_read(tiny_copy, defaults):
    with pytest.raises(WeightsError, match="defaults"):
        write_manifest(tiny_copy, name="tiny", defaults=defaults)
    manifest = json.loads((tiny_copy / "MANIFEST.json").read_text())
    (tiny_copy / "MANIFEST.json").write_text(json.dumps({**manifest, "defaults": defaults}))
    with pytest.raises(WeightsError, match="defaults"):
        load(tiny_copy)


def test_a_manifest_keeps_what_is_said_about_the_model(tiny_copy):
    path = write_manifest(tiny_copy, name="猫", defaults={"width": 128}, licences={"code": "Apache-2.0"})
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert (manifest["name"], manifest["licences"]) == ("猫", {"code": "Apache-2.0"})
    assert "MANIFEST.json" not in manifest["files"]
    assert not [p.name for p in tiny_copy.iterdir() if p.name.startswith(".")]
    assert verify(tiny_copy) == manifest


def test_the_folder_is_the_argument_then_the_setting_then_the_genuine_then_the_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    monkeypatch.delenv("JSD_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"embedded.*JSD_WEIGHTS"):
        find_weights()
    for name in ("embedded", "japanese-stable-diffusion", "other", "argument"):
        (tmp_path / name).mkdir()
        if name == "embedded":
            assert find_weights() == tmp_path / "embedded"
    assert find_weights() == tmp_path / "japanese-stable-diffusion"
    monkeypatch.setenv("JSD_WEIGHTS", str(tmp_path / "other"))
    assert find_weights() == tmp_path / "other"
    assert find_weights(tmp_path / "argument") == tmp_path / "argument"
    with pytest.raises(WeightsError, match="nowhere"):
        find_weights(tmp_path / "nowhere")


PARTS = ("text_encoder", "unet", "vae", "safety_checker")


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return (open, (self.file, "w"))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("harm", ["first byte", "middle byte", "last byte", "deleted", "pickle", "pickle beside"])
def test_no_harm_to_any_weights_file_goes_unseen_and_nothing_runs(tiny_copy, tmp_path, part, harm):
    (file,) = (tiny_copy / part).glob("*.safetensors")
    data, pwned = bytearray(file.read_bytes()), tmp_path / "pwned"
    if harm.endswith("byte"):
        data[{"first byte": 0, "middle byte": len(data) // 2, "last byte": -1}[harm]] ^= 1
        file.write_bytes(data)
    elif harm == "deleted":
        file.unlink()
    elif harm == "pickle":
        file.write_bytes(pickle.dumps(Evil(pwned), protocol=2))
    else:
        file = file.with_name("pytorch_model.bin")
        file.write_bytes(pickle.dumps(Evil(pwned), protocol=2))
    with pytest.raises(WeightsError, match=f"{part}/{file.name}"):
        load(tiny_copy)
    assert not pwned.exists()
