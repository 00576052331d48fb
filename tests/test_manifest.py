"""A model folder is verified against its manifest. A file that is missing, altered or not listed is named."""

from __future__ import annotations

import json
import pickle

import pytest

from jsd import manifest
from jsd.errors import WeightsError
from jsd.genuine.folder import write_manifest
from jsd.manifest import begin_verification, find_weights, verify
from tests.fakes import Trap, flip_last_bit

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_the_error_says_what_is_wrong_with_the_file(tiny_copy):
    size = (tiny_copy / UNET).stat().st_size
    flip_last_bit(tiny_copy / UNET)
    with pytest.raises(WeightsError, match=f"{UNET}: altered"):
        verify(tiny_copy)
    (tiny_copy / UNET).write_bytes((tiny_copy / UNET).read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"{UNET}: {size - 1} bytes, {size} expected"):
        verify(tiny_copy)
    (tiny_copy / UNET).unlink()
    with pytest.raises(WeightsError, match=f"{UNET}: missing"):
        verify(tiny_copy)


@pytest.mark.parametrize("path", ["unet/extra.safetensors", "text_encoder/generation_config.json"])
def test_an_unlisted_file_that_a_loader_might_read_is_named(tiny_copy, path):
    (tiny_copy / path).write_bytes(b"{}")
    with pytest.raises(WeightsError, match=f"{path}: not listed"):
        verify(tiny_copy)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "model.PT"])
def test_a_pickle_beside_the_weights_is_refused(tiny_copy, tmp_path, name):
    (tiny_copy / "unet" / name).write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises(WeightsError, match=f"{name}: a pickle"):
        verify(tiny_copy)
    with pytest.raises(WeightsError, match=f"{name}: a pickle"):
        write_manifest(tiny_copy, name="evil", defaults={})
    assert not (tmp_path / "trap").exists()


def test_a_link_to_a_folder_is_refused(tiny_copy):
    (tiny_copy / "unet").rename(tiny_copy.parent / "elsewhere")
    (tiny_copy / "unet").symlink_to(tiny_copy.parent / "elsewhere")
    with pytest.raises(WeightsError, match="unet: a link to a folder"):
        verify(tiny_copy)


def test_a_note_beside_the_weights_is_allowed(tiny_copy):
    (tiny_copy / "README.md").write_text("Weights.")
    (tiny_copy / ".DS_Store").write_bytes(b"\0")
    assert verify(tiny_copy)["name"] == "tiny"


def test_a_config_is_verified_before_it_is_read(tiny_copy):
    config = tiny_copy / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace("1", "2", 1))
    with pytest.raises(WeightsError, match=r"text_encoder/config\.json: altered"):
        begin_verification(tiny_copy)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"files": {}}', '{"files": {"../a": {"size": 1}}}'])
def test_a_manifest_without_files_is_refused(tiny_copy, text):
    for path in [p for p in tiny_copy.rglob("*") if p.is_file()]:
        path.unlink()
    if text is not None:
        (tiny_copy / "MANIFEST.json").write_text(text)
    with pytest.raises(WeightsError, match=r"MANIFEST\.json"):
        verify(tiny_copy)


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"files": {"a" * 5000: {"size": 1, "sha256": ""}}})])
def test_a_manifest_made_to_do_harm_is_refused(tiny_copy, text):
    (tiny_copy / "MANIFEST.json").write_text(text)
    with pytest.raises(WeightsError):
        verify(tiny_copy)


def test_a_path_out_of_the_folder_is_refused(tiny_copy):
    outside = tiny_copy.parent / "outside.safetensors"
    outside.write_bytes((tiny_copy / UNET).read_bytes())
    listed = json.loads((tiny_copy / "MANIFEST.json").read_text())
    listed["files"]["../outside.safetensors"] = listed["files"][UNET]
    (tiny_copy / "MANIFEST.json").write_text(json.dumps(listed))
    with pytest.raises(WeightsError, match="malformed"):
        verify(tiny_copy)


@pytest.mark.parametrize("defaults", [{"steps": 4}, {"guidance_scale": 0}, {"scheduler": "EULER"}, {"width": "256"}])
def test_wrong_defaults_are_refused_when_they_are_written_and_when_they_are_read(tiny_copy, defaults):
    with pytest.raises(WeightsError, match="defaults"):
        write_manifest(tiny_copy, name="tiny", defaults=defaults)
    written = json.loads((tiny_copy / "MANIFEST.json").read_text())
    (tiny_copy / "MANIFEST.json").write_text(json.dumps({**written, "defaults": defaults}))
    with pytest.raises(WeightsError, match="defaults"):
        verify(tiny_copy)


def test_a_manifest_keeps_all_facts_about_the_model(tiny_copy):
    path = write_manifest(tiny_copy, name="猫", defaults={"width": 128}, licences={"code": "Apache-2.0"})
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["name"], written["licences"]) == ("猫", {"code": "Apache-2.0"})
    assert "MANIFEST.json" not in written["files"]
    assert not [p.name for p in tiny_copy.iterdir() if p.name.startswith(".")]
    assert verify(tiny_copy) == written


def test_the_argument_comes_before_the_setting_and_the_genuine_model_before_the_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    monkeypatch.delenv("JSD_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"embedded.*JSD_WEIGHTS"):
        find_weights()
    (tmp_path / "embedded").mkdir()
    assert find_weights() == tmp_path / "embedded"
    for name in ("japanese-stable-diffusion", "other", "argument"):
        (tmp_path / name).mkdir()
    assert find_weights() == tmp_path / "japanese-stable-diffusion"
    monkeypatch.setenv("JSD_WEIGHTS", str(tmp_path / "other"))
    assert find_weights() == tmp_path / "other"
    assert find_weights(tmp_path / "argument") == tmp_path / "argument"
    with pytest.raises(WeightsError, match="nowhere"):
        find_weights(tmp_path / "nowhere")
