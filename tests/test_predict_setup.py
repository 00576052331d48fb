"""The Predictor's setup fails for harmed weights and wrong settings, and the error names them."""

import os
import pickle

import pytest
import torch

import predict
from jsd import errors
from tests.fakes import Trap, flip_last_bit


@pytest.mark.parametrize("harm", ["truncated", "one bit", "deleted", "pickle under its name", "pickle in its place"])
def test_the_setup_fails_for_harmed_weights_and_names_the_file(tiny_copy, tmp_path, monkeypatch, harm):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_copy))
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    size = file.stat().st_size
    if harm == "truncated":
        os.truncate(file, size - 1)
    elif harm == "one bit":
        flip_last_bit(file)
    elif harm == "pickle under its name":
        file.write_bytes(pickle.dumps(Trap(tmp_path / "trap")).ljust(size, b"\0"))
    else:
        file.unlink()
    if harm == "pickle in its place":
        file = file.with_suffix(".bin")
        file.write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
    with pytest.raises(errors.WeightsError, match=str(file)):
        predict.Predictor().setup()
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JSD_WEIGHTS", "/nowhere/at/all", "/nowhere/at/all: no such folder"),
        ("JSD_DTYPE", "fp8", "JSD_DTYPE: 'fp8' was given; allowed are fp16, bf16, fp32"),
        ("JSD_INPUT_URLS", "no", "JSD_INPUT_URLS: 'no' was given; allowed are on, off"),
        pytest.param(
            "JSD_DEVICE",
            "cuda",
            "JSD_DEVICE: 'cuda' can't be used",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_the_setup_fails_for_a_wrong_setting_and_names_it(tiny_folder, monkeypatch, name, value, message):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.JSDError, match=message):
        predict.Predictor().setup()
