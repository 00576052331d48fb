"""An adapter is trained on captioned pictures, merged into the UNet, and refused if it belongs to another model."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jsd import cli, model, sampling, settings
from jsd.errors import WeightsError
from jsd.manifest import verify
from jsd.request import Request
from tests.train.shards import picture


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_folder):
    """An adapter of the tiny model, in a folder beside its pictures. Read only."""
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "pictures").mkdir()
    for name, colour in (("one", "red"), ("two", "blue")):
        (folder / "pictures" / f"{name}.png").write_bytes(picture(colour, (80, 64)))
        (folder / "pictures" / f"{name}.txt").write_text("うちの猫", "utf-8")
    file = folder / "cat.safetensors"
    flags = {"model": tiny_folder, "images": folder / "pictures", "to": file, "steps": 8, "rank": 2, "lr": 0.05}
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    assert cli.main(["train", "lora", *words, "--cpu"]) == 0
    return file


def draw(components):
    return np.asarray(sampling.generate(components, Request("うちの猫", seed=1)).images[0], float)


def test_an_adapter_changes_the_pictures_and_leaves_the_folder_alone(adapter, tiny_folder, monkeypatch, capsys):
    plain = settings.load_components(tiny_folder)
    before = draw(plain)
    monkeypatch.setenv("JSD_LORA", str(adapter))
    adapted = settings.load_components(tiny_folder)
    assert f"LoRA {adapter}" in capsys.readouterr().out
    assert np.abs(draw(adapted) - before).mean() > 0.5
    assert {key for key, _ in adapted.unet.named_parameters()} == {key for key, _ in plain.unet.named_parameters()}
    verify(tiny_folder)
    assert sorted(path.name for path in adapter.parent.iterdir()) == ["cat.safetensors", "pictures"]


def test_stock_diffusers_draws_the_same_with_the_same_file(adapter, tiny_folder):
    """Merging gives the same results as peft's layers beside the weights."""
    ours = model.load(tiny_folder, lora=adapter).unet
    stock = model.load(tiny_folder).unet
    stock.load_lora_adapter(load_file(adapter), prefix="unet")
    x, t = torch.randn(1, ours.config.in_channels, 4, 4), torch.tensor(500)
    text = torch.randn(1, 5, ours.config.cross_attention_dim)
    with torch.no_grad():
        assert torch.allclose(ours(x, t, text).sample, stock(x, t, text).sample, atol=1e-4)


def test_an_adapter_of_another_strength_is_merged_as_stock_diffusers_merges_it(tmp_path, tiny_folder):
    """diffusers writes rank and alpha into the file's metadata."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(0)
    stock = model.load(tiny_folder).unet
    x, t = torch.randn(1, stock.config.in_channels, 4, 4), torch.tensor(500)
    text = torch.randn(1, 5, stock.config.cross_attention_dim)
    stock.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(stock),
        unet_lora_adapter_metadata=stock.peft_config["default"].to_dict(),
    )
    file = next(tmp_path.glob("*.safetensors"))
    with torch.no_grad():
        ours = model.load(tiny_folder, lora=file).unet(x, t, text).sample
        assert torch.allclose(ours, stock(x, t, text).sample, atol=1e-4)


@pytest.mark.parametrize("kind", ["missing", "pickle", "broken", "foreign", "shape", "half", "empty", "nan", "alpha"])
def test_a_file_that_is_no_adapter_of_this_model_is_refused(kind, tmp_path, tiny_folder):
    file = tmp_path / ("a.bin" if kind == "pickle" else "a.safetensors")
    if kind in ("pickle", "broken"):
        file.write_bytes(b"no tensors")
    elif kind == "foreign":
        save_file({f"unet.other.to_q.lora_{c}.weight": torch.zeros(2, 2) for c in "AB"}, file)
    elif kind in ("shape", "half"):
        name = next(n for n, _ in model.load(tiny_folder).unet.named_parameters() if n.endswith("to_q.weight"))
        layer = f"unet.{name.removesuffix('.weight')}"
        save_file({f"{layer}.lora_{c}.weight": torch.zeros(2, 2) for c in ("AB" if kind == "shape" else "A")}, file)
    elif kind in ("nan", "alpha"):
        name, value = next(
            (n, p) for n, p in model.load(tiny_folder).unet.named_parameters() if n.endswith("to_q.weight")
        )
        layer, (rows, columns) = f"unet.{name.removesuffix('.weight')}", value.shape
        number = float("nan") if kind == "nan" else 0.0
        state = {
            f"{layer}.lora_A.weight": torch.full((2, columns), number),
            f"{layer}.lora_B.weight": torch.ones(rows, 2),
        }
        save_file(state | ({f"{layer}.alpha": torch.ones(2)} if kind == "alpha" else {}), file)
    elif kind == "empty":
        save_file({}, file)
    with pytest.raises(WeightsError, match=str(file)):
        model.load(tiny_folder, lora=file)


def test_a_file_name_without_the_right_suffix_is_refused(tmp_path, tiny_folder, capsys):
    words = ["--model", str(tiny_folder), "--images", str(tmp_path), "--to", "cat.bin"]
    assert cli.main(["train", "lora", *words]) == 2
    assert "--to: 'cat.bin' was given; a name ending in .safetensors is wanted" in capsys.readouterr().err
