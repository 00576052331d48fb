"""A file that can't be merged whole is refused by its name and its key, and the settings of an adapter are checked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from jsd import model, settings
from jsd.adapters import Adapters
from jsd.errors import SettingError, WeightsError
from jsd.lora import read_lora
from tests.adapters import UNET, kohya, write
from tests.fakes import Trap

KEY = f"lora_unet_{UNET[5].replace('.', '_')}"
RAW = f"unet.{UNET[5]}"


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """The tiny model without an adapter. Read only."""
    return model.load(tiny_folder)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (f"{KEY}.dora_scale", "dora_scale' belongs to a DoRA, which can't be merged; take a LoRA or LoCon"),
        (f"{RAW}.lora_magnitude_vector", "belongs to a DoRA"),
        (f"{KEY}.hada_w1_a", "belongs to a LoHa"),
        (f"{KEY}.lokr_w1", "belongs to a LoKr"),
        (f"{KEY}.on_input", "belongs to an \\(IA\\)3 adapter"),
        (f"base_model.model.{UNET[5]}.ia3_l", "belongs to an \\(IA\\)3 adapter"),
        (f"{KEY}.oft_blocks", "belongs to an OFT adapter"),
        ("emb_params", "belongs to a textual inversion"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "belongs to an adapter of Stable Diffusion XL"),
        ("ip_adapter.1.to_k_ip.weight", "belongs to an IP-Adapter"),
        ("model.diffusion_model.out.0.weight", "belongs to a whole model"),
        ("<cat>", "'<cat>' is no tensor of a LoRA"),
        (f"{KEY}.diff", "diff' is no tensor of a LoRA"),
        (f"{RAW}.lora_A.bias", "lora_A.bias' is no tensor of a LoRA"),
        ("lora_unet_input_blocks_1_1_proj_in.alpha", "'lora_unet_input_blocks_1_1_proj_in.alpha' has no place in this"),
        ("unet.down_blocks.9.to_q.lora_A.weight", "'unet.down_blocks.9.to_q.lora_A.weight' has no place in this model"),
        (f"{RAW}.lora.up.weight", "the file has up of .* twice"),
        ("unet.conv_out.lora_A.weight", "unet.conv_out: has down; a LoRA has down and up"),
        ("unet.conv_out.alpha", "unet.conv_out: has alpha; a LoRA has down and up"),
        (f"{RAW}.lora_B.bias", "bias .* do not fit"),
    ],
)
def test_no_key_of_a_file_is_left_aside(key, message, plain, tmp_path):
    file = write(tmp_path / "a.safetensors", {**kohya(plain), key: torch.ones(3, 3)})
    with pytest.raises(WeightsError, match=message):
        read_lora(file, plain.unet, plain.text_encoder)


@pytest.mark.parametrize(
    ("role", "value", "message"),
    [
        ("lora_down.weight", torch.full((2, 64), torch.nan), "lora_down.weight' holds numbers that are not finite"),
        ("lora_down.weight", torch.ones(2, 63), r"down \(2, 63\), .* do not fit \(64, 64\)"),
        ("lora_down.weight", torch.ones(2, 64, 3, 3), "do not fit"),
        ("lora_down.weight", torch.ones(2), "do not fit"),
        ("lora_down.weight", torch.ones(0, 64), "do not fit"),
        ("lora_up.weight", torch.ones(64, 3), "do not fit"),
        ("lora_mid.weight", torch.ones(3, 3, 1, 1), "do not fit"),
        ("alpha", torch.ones(2), "an alpha of '2 numbers'; a number is wanted"),
    ],
)
def test_a_tensor_that_is_broken_or_does_not_fit_is_named(role, value, message, plain, tmp_path):
    file = write(tmp_path / "a.safetensors", {**kohya(plain), f"{KEY}.{role}": value})
    with pytest.raises(WeightsError, match=message):
        read_lora(file, plain.unet, plain.text_encoder)


def test_a_core_has_a_limit_because_it_is_multiplied(plain, tmp_path):
    shapes = {"lora_up": (64, 4097), "lora_mid": (4097, 1, 1, 1), "lora_down": (1, 64)}
    file = write(tmp_path / "a.safetensors", {f"{KEY}.{role}.weight": torch.ones(s) for role, s in shapes.items()})
    with pytest.raises(WeightsError, match=r"mid \(4097, 1, 1, 1\), .*do not fit"):
        read_lora(file, plain.unet, plain.text_encoder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"unet.lora_alpha": "many"}', "an alpha of 'many'; a number is wanted"),
        ('{"unet.lora_alpha": Infinity}', "an alpha of inf; a number is wanted"),
        ('{"unet.init_lora_weights": "pissa\\u001b"}', r"made with 'pissa\\x1b', which changes the model too"),
        ('{"unet.alpha_pattern": {"attn2(": 2}}', "alpha_pattern: 'attn2\\(' is refused .*; write out names of layers"),
        ('{"unet.alpha_pattern": {"(.*)*x": 2}}', "alpha_pattern: .* is refused \\(it repeats too much"),
        ('{"unet.alpha_pattern": {"%s": 2}}' % ("x" * 301), "alpha_pattern: .* is refused .* too long"),
        (
            '{"alpha_pattern": {' + ", ".join(f'"{i}": 1' for i in range(2_001)) + "}}",
            "2001 patterns of alphas; at most",
        ),
        ("[1]", "can't be read"),
        ("[" * 100_000, "can't be read"),
    ],
)
def test_wrong_metadata_is_refused(text, message, plain, tmp_path):
    tensors = {f"{RAW}.lora_A.weight": torch.ones(2, 64), f"{RAW}.lora_B.weight": torch.ones(64, 2)}
    file = write(tmp_path / "a.safetensors", tensors, lora_adapter_metadata=text)
    with pytest.raises(WeightsError, match=message):
        read_lora(file, plain.unet, plain.text_encoder)


def test_bytes_of_a_request_may_have_names_as_patterns_but_none_that_repeats(plain, tmp_path):
    tensors = {f"{RAW}.lora_A.weight": torch.ones(2, 64), f"{RAW}.lora_B.weight": torch.ones(64, 2)}
    for pattern, message in ((UNET[5], None), (".*x", "is refused"), ("a|b", "is refused")):
        text = json.dumps({"unet.alpha_pattern": {pattern: 4}})
        file = write(tmp_path / "a.safetensors", tensors, lora_adapter_metadata=text)
        assert read_lora(file, plain.unet, plain.text_encoder)
        with contextlib.nullcontext() if message is None else pytest.raises(WeightsError, match=message):
            changes = read_lora(file.read_bytes(), plain.unet, plain.text_encoder)
            assert changes[f"{RAW}.weight"][0] == 2


def test_only_safetensors_files_of_a_sensible_size_are_read(tiny_folder, tmp_path):
    large, pickle = tmp_path / "large.safetensors", tmp_path / "a.bin"
    with large.open("wb") as file:
        file.truncate(3 << 30)  # a sparse file
    torch.save({"x": Trap(tmp_path / "trap")}, pickle)
    for file, message in (
        (large, "3.2 GB; an adapter has 2.1 GB at most"),
        (pickle, "a '.bin' file; only .safetensors files are read"),
        (tmp_path / "none.safetensors", "no such file or folder"),
        (
            tmp_path,
            "a folder without pytorch_lora_weights.safetensors or adapter_model.safetensors; name the file itself",
        ),
        (write(tmp_path / "empty.safetensors", {}), "holds no tensors"),
    ):
        with pytest.raises(WeightsError, match=f"{file}: {message}"):
            model.load(tiny_folder, lora=file)
    assert not (tmp_path / "trap").exists()


def test_an_adapter_that_is_too_strong_changes_nothing(tiny_folder, tmp_path):
    loaded = model.load(tiny_folder, dtype=torch.float16)
    before = {name: value.clone() for name, value in loaded.unet.state_dict().items()}
    file = write(tmp_path / "a.safetensors", {**kohya(loaded), f"{KEY}.alpha": torch.tensor(1e9)})
    adapters = Adapters(loaded.unet, loaded.text_encoder)
    with pytest.raises(WeightsError, match=f"{UNET[5]}.weight: not finite in torch.float16 .*; lower its scale"):
        adapters.merge("unet", adapters.read(file))
    assert all(torch.equal(value, before[name]) for name, value in loaded.unet.state_dict().items())


@pytest.fixture
def adapter(tiny_folder, tmp_path, plain, monkeypatch):
    """An adapter in the current folder, which JSD_LORA names by a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSD_LORA", "a.safetensors")
    return write(Path("a.safetensors"), kohya(plain))


@pytest.mark.parametrize(("scale", "shown"), [("", ""), ("1.0", ""), ("-0.5", " x -0.5")])
def test_the_environment_sets_the_adapter_and_its_scale(scale, shown, adapter, tiny_folder, plain, monkeypatch, capsys):
    monkeypatch.setenv("JSD_LORA_SCALE", scale)
    unet = settings.load_components(tiny_folder).unet
    assert capsys.readouterr().out.endswith(f", LoRA a.safetensors{shown}\n")
    factor, up, down, _ = read_lora(adapter, plain.unet, plain.text_encoder)[f"{RAW}.weight"]
    name = f"{UNET[5]}.weight"
    changed = unet.get_parameter(name) - plain.unet.get_parameter(name)
    assert torch.allclose(changed, float(scale or 1) * factor * up @ down, atol=1e-5)


@pytest.mark.parametrize("scale", ["2.1", "-3", "nan", "inf", "much", "1" * 5000])
def test_a_wrong_scale_is_refused_by_name(scale, adapter, tiny_folder, monkeypatch):
    monkeypatch.setenv("JSD_LORA_SCALE", scale)
    with pytest.raises(SettingError, match=f"JSD_LORA_SCALE: '{scale[:9]}.* a number from -2 to 2 is wanted"):
        settings.load_components(tiny_folder)


def test_a_scale_needs_an_adapter(tiny_folder, monkeypatch):
    monkeypatch.setenv("JSD_LORA_SCALE", "0.5")
    with pytest.raises(SettingError, match="JSD_LORA_SCALE: given without JSD_LORA"):
        settings.load_components(tiny_folder)
