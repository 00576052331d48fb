"""LoRA files in the layouts that people have change the model as the programs that wrote them mean it."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict

from jsd import model, sampling
from jsd.adapters import Adapters
from jsd.errors import WeightsError
from jsd.lora import add_lora, read_lora
from jsd.request import Request
from tests.adapters import ALPHA, ATTENTION, LAYOUTS, RANK, TEXT, UNET, adapter, kohya, matrices, processors, write

LAYER = "lora_unet_" + UNET[2].replace(".", "_")  # a convolution


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """The tiny model without an adapter. Read only."""
    return model.load(tiny_folder)


def draw(components):
    return np.asarray(sampling.generate(components, Request("猫", seed=1)).images[0], float)


def in_stock(tiny_folder, file, scale=1.0):
    """The tiny model with the adapter beside its weights, as stock diffusers loads it."""
    loaded = model.load(tiny_folder)
    parts = {"vae": loaded.vae, "text_encoder": loaded.text_encoder, "unet": loaded.unet}
    none = dict.fromkeys(("tokenizer", "scheduler", "safety_checker", "feature_extractor"))
    pipe = StableDiffusionPipeline(**parts, **none, requires_safety_checker=False)
    pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name="it")
    pipe.set_adapters("it", scale)
    return loaded


def change(plain, file, name, part="unet"):
    """How much merging `file` changes the weight of a layer of the tiny model."""
    changes = read_lora(file, plain.unet, plain.text_encoder)
    return add_lora(torch.zeros_like(getattr(plain, part).get_submodule(name).weight), changes[f"{part}.{name}.weight"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_draws_what_stock_diffusers_draws(layout, tiny_folder, tmp_path, plain):
    file = write(tmp_path / "a.safetensors", LAYOUTS[layout](plain))
    ours = draw(model.load(tiny_folder, lora=file, lora_scale=0.7))
    assert np.abs(ours - draw(in_stock(tiny_folder, file, 0.7))).max() <= 1
    assert np.abs(ours - draw(plain)).mean() > 0.5


def test_keys_without_the_name_of_a_part_belong_to_the_unet(tmp_path, plain):
    """Diffusers' `save_attn_procs` and `save_lora_adapter` write them."""
    bare = {key.removeprefix("unet."): value for key, value in processors(plain).items()}
    file, name = write(tmp_path / "a.safetensors", bare), ATTENTION[0]
    a, b = matrices(plain.unet, name)
    assert torch.allclose(change(plain, file, name), b @ a, atol=1e-5)


def test_keys_may_name_the_adapter_and_a_file_may_end_in_capitals(tmp_path, plain):
    """In peft's own state dict, keys have the adapter's name."""
    keys = {key.replace(".weight", ".default.weight"): value for key, value in LAYOUTS["peft"](plain).items()}
    file, name = write(tmp_path / "A.SAFETENSORS", keys), ATTENTION[0]
    a, b = matrices(plain.unet, name)
    assert torch.allclose(change(plain, file, name), b @ a, atol=1e-5)


def test_every_layer_has_its_own_rank_and_alpha(tmp_path, plain):
    """Stock diffusers applies the most frequent alpha to attentions and to the text encoder."""
    tensors = {}
    wanted = {}
    for number, name in enumerate(TEXT):
        a, b = matrices(plain.text_encoder, name, rank=number + 1)
        layer = f"lora_te_text_model_{name.replace('.', '_')}"
        tensors |= {f"{layer}.lora_down.weight": a, f"{layer}.lora_up.weight": b}
        if number:  # the first has no alpha, which means its rank
            tensors[f"{layer}.alpha"] = torch.tensor(ALPHA)
        wanted[name] = (ALPHA / (number + 1) if number else 1) * b @ a
    file = write(tmp_path / "a.safetensors", tensors)
    for name, value in wanted.items():
        assert torch.allclose(change(plain, file, name, "text_encoder"), value, atol=1e-5)


def test_a_convolution_in_three_factors_is_merged(tmp_path, plain):
    """LoCon with a Tucker decomposition: 1 x 1 down, k x k in the middle, 1 x 1 up."""
    down, mid, up = torch.randn(RANK, 32, 1, 1), torch.randn(RANK, RANK, 3, 3), torch.randn(32, RANK, 1, 1)
    roles = {"lora_down": down, "lora_mid": mid, "lora_up": up}
    file = write(tmp_path / "a.safetensors", {f"{LAYER}.{role}.weight": value for role, value in roles.items()})
    conv = torch.nn.functional.conv2d
    x = torch.randn(1, 32, 5, 5)
    wanted = conv(conv(conv(x, down), mid), up)
    assert torch.allclose(conv(x, change(plain, file, UNET[2])), wanted, atol=1e-2)


def tuned(plain_folder, **settings):
    """A UNet with an adapter of peft, random, with these settings of its `LoraConfig`."""
    torch.manual_seed(0)
    unet = model.load(plain_folder).unet
    config = peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False, **settings)
    unet.add_adapter(config)
    return unet


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"alpha_pattern": {ATTENTION[0]: 1}, "rank_pattern": {ATTENTION[0]: 4}},
        {"alpha_pattern": {".*attn[12].*": 2, "to_q": 3}, "rank_pattern": {r".*\.to_(q|v)": 4}},
        {"alpha_pattern": {"attn2": 2, "^to_q": 3}},
    ],
)
def test_the_settings_that_diffusers_stores_are_followed(settings, tiny_folder, tmp_path, plain):
    unet = tuned(tiny_folder, **settings)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )
    (file,) = tmp_path.iterdir()
    theirs = unet.get_submodule(ATTENTION[0]).get_delta_weight("default")
    assert torch.allclose(change(plain, file, ATTENTION[0]), theirs, atol=1e-5)


def test_what_peft_itself_saves_is_read_with_the_config_beside_it(tiny_folder, tmp_path, plain):
    config = peft.LoraConfig(
        r=RANK, lora_alpha=8, target_modules=["q_proj", "out_proj"], init_lora_weights=False, lora_bias=True
    )
    theirs = peft.get_peft_model(model.load(tiny_folder).text_encoder, config)
    theirs.save_pretrained(tmp_path)
    ours = model.load(tiny_folder, lora=tmp_path).text_encoder
    merged = theirs.merge_and_unload().state_dict()
    assert all(torch.allclose(value, merged[name], atol=1e-5) for name, value in ours.state_dict().items())
    assert not torch.equal(merged[f"{TEXT[0]}.bias"], plain.text_encoder.get_parameter(f"{TEXT[0]}.bias"))
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match="adapter_config.json"):
        model.load(tiny_folder, lora=tmp_path / "adapter_model.safetensors")


def test_an_adapter_is_taken_away_exactly(tiny_folder, tmp_path, plain):
    loaded = model.load(tiny_folder, dtype=torch.float16)
    before = {name: value.clone() for name, value in loaded.unet.named_parameters()}
    adapters = Adapters(loaded.unet, loaded.text_encoder)
    adapters.merge("unet", adapters.read(write(tmp_path / "a.safetensors", kohya(plain))), scale=-2)
    now = dict(loaded.unet.named_parameters())
    assert {name for name in now if not torch.equal(now[name], before[name])} == {f"{name}.weight" for name in UNET}
    adapters.merge("unet", adapters.read(adapter(plain, 1)))
    adapters.merge("unet", None)
    assert all(torch.equal(now[name], before[name]) for name in now)
