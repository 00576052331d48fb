"""`from_pretrained` takes what code for diffusers passes, and opens folders of diffusers that have no manifest."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline
from transformers import CLIPTokenizer

import jsd
from jsd import manifest, model
from jsd.errors import InputError, WeightsError
from jsd.genuine.tokenizer import PipelineTokenizer
from tests.fakes import flip_last_bit
from tests.genuine.hub import Hub, serve

PIPELINE = jsd.JapaneseStableDiffusionPipeline
MODELS = ("unet", "vae", "text_encoder", "safety_checker")


def draw(pipe):
    """The pixels of a picture."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(7)}
    return pipe("猫", output_type="np", **settings).images[0]


def types(pipe):
    return [getattr(pipe, name).dtype for name in MODELS]


def test_what_people_pass_changes_nothing(tiny_folder):
    pipe = PIPELINE.from_pretrained(
        tiny_folder,
        use_safetensors=True,
        low_cpu_mem_usage=True,
        variant="fp16",
        device_map="balanced",
        force_download=True,
        proxies={},
        cache_dir=tiny_folder.parent / "cache",
        torch_dtype=None,
    )
    assert types(pipe) == [torch.float32] * 4
    assert np.array_equal(draw(pipe), draw(PIPELINE.from_pretrained(tiny_folder)))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("auto", ["float16"] * 4),
        ("bfloat16", ["bfloat16"] * 4),
        ("torch.float16", ["float16"] * 4),
        ("fp16", ["float16"] * 4),
        (torch.float64, ["float64"] * 4),
        ({"unet": torch.bfloat16, "default": "fp16"}, ["bfloat16", "float16", "float16", "float16"]),
        ({"vae": "auto"}, ["float32", "float16", "float32", "float32"]),
    ],
)
def test_a_dtype_is_a_type_its_name_auto_or_a_dict(tiny_folder, plain, given, wanted):
    wanted = [getattr(torch, name) for name in wanted]
    assert types(PIPELINE.from_pretrained(tiny_folder, torch_dtype=given)) == wanted
    with pytest.warns(UserWarning, match="nothing vouches"):
        assert types(PIPELINE.from_pretrained(plain, dtype=given)) == wanted


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"torch_dtype": torch.int8}, "torch_dtype: torch.int8 was given; allowed are torch.float16"),
        ({"dtype": "float8"}, "dtype: 'float8' was given; allowed are"),
        ({"torch_dtype": {"unet": 16}}, "torch_dtype: 16 was given"),
        (
            {"torch_dtype": {"unett": "fp16"}},
            "torch_dtype: 'unett' is no part of a pipeline; allowed are default, feature",
        ),
        ({"device_map": "gpu"}, "device_map: 'gpu' was given"),
        ({"device_map": {"unet": "cpu", "vae": "cpu"}}, "all parts go to one"),
        ({"use_safetensors": False}, "use_safetensors: False was given; nothing but safetensors is read"),
        ({"variant": "ema"}, "variant: 'ema' was given; a model folder has none"),
        ({"scheduler": "DDIM"}, "scheduler: 'DDIM' was given; make one of diffusers"),
        ({"scheduler": DDIMScheduler}, "make one of diffusers, DDIMScheduler(...)"),
    ],
)
def test_a_wrong_value_is_an_error_about_it(tiny_folder, option, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}|{re.escape(message)}$"):
        PIPELINE.from_pretrained(tiny_folder, **option)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is asked for one")
def test_a_device_map_names_a_device_of_this_machine(tiny_folder):
    for given in ("cpu", torch.device("cpu"), {"": "cpu"}, "auto"):
        assert PIPELINE.from_pretrained(tiny_folder, device_map=given).device.type == "cpu"
    with pytest.raises(InputError, match=r"device_map: 'cuda' was given \(Torch not compiled with CUDA"):
        PIPELINE.from_pretrained(tiny_folder, device_map="cuda")


def test_force_download_fetches_a_repository_again(old, connect, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROOT", tmp_path / "weights")
    with serve(Hub(old.folder)) as hub:
        connect(hub)
        PIPELINE.from_pretrained("owner/name")
        fetched = len(hub.fetched)
        with pytest.warns(UserWarning, match="set the environment variable HTTPS_PROXY"):
            PIPELINE.from_pretrained("owner/name", proxies={"https": "http://127.0.0.1:9"})
        assert len(hub.fetched) == fetched
        PIPELINE.from_pretrained("owner/name", force_download=True)
        assert len(hub.fetched) == 2 * fetched


def test_a_folder_without_a_manifest_opens_with_one_line_of_warning(tiny_folder, plain):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipe = PIPELINE.from_pretrained(plain)
    assert [str(one.message) for one in caught if one.category is UserWarning] == [
        f"{plain}: has no MANIFEST.json, so nothing vouches for its files; "
        "python -m jsd weights convert makes a model folder of it, which is verified"
    ]
    assert isinstance(pipe.tokenizer, PipelineTokenizer)
    assert pipe.safety_checker is not None
    assert np.abs(draw(pipe) - draw(PIPELINE.from_pretrained(tiny_folder))).max() < 1e-4
    with pytest.raises(WeightsError, match="MANIFEST.json: missing"):  # the server stays strict
        model.load(plain)


@pytest.mark.filterwarnings("ignore:.*nothing vouches")
def test_a_folder_that_diffusers_saved_opens(tiny_folder, tmp_path):
    ours = PIPELINE.from_pretrained(tiny_folder)
    stock = StableDiffusionPipeline.from_pipe(ours)
    stock.save_pretrained(tmp_path / "stock")
    stock.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size="200KB")
    for pipe in (
        PIPELINE.from_pretrained(tmp_path / "stock"),
        PIPELINE.from_pretrained(tmp_path / "half", variant="fp16"),
        DiffusionPipeline.from_pretrained(tmp_path / "stock", local_files_only=True),
    ):
        assert np.abs(draw(pipe) - draw(ours)).max() < 1e-4
    with pytest.raises(WeightsError, match="variant=fp16"):
        PIPELINE.from_pretrained(tmp_path / "stock", variant="fp16")


@pytest.mark.filterwarnings("ignore:.*nothing vouches")
def test_a_model_of_another_tokenizer_is_saved_and_opened_like_one_of_diffusers(tiny_folder, tmp_path):
    pieces = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    pipe = PIPELINE.from_pretrained(tiny_folder, tokenizer=CLIPTokenizer(vocab=pieces, merges=[], model_max_length=24))
    with pytest.warns(UserWarning, match="safetensors are written all the same, no pickles"):
        pipe.save_pretrained(tmp_path / "new", safe_serialization=False)
    assert not list((tmp_path / "new").rglob("*.bin"))
    for kind in (PIPELINE, DiffusionPipeline):
        again = kind.from_pretrained(tmp_path / "new")
        assert isinstance(again.tokenizer, CLIPTokenizer)
        assert again("a", num_inference_steps=1, output_type="np").images[0].shape == (64, 64, 3)


def test_a_scheduler_for_a_folder_without_a_manifest_follows_its_noise(plain):
    with pytest.warns(UserWarning, match="DDIMScheduler: changed to beta_start=0.00085"):
        assert PIPELINE.from_pretrained(plain, scheduler=DDIMScheduler()).scheduler.config.beta_end == 0.012


def test_a_folder_with_a_manifest_is_still_verified(tiny_copy):
    flip_last_bit(tiny_copy / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="altered"):
        PIPELINE.from_pretrained(tiny_copy)


def test_what_is_saved_opens_as_any_pipeline_of_diffusers(tiny_folder, tmp_path):
    pipe = PIPELINE.from_pretrained(tiny_folder)
    pipe.save_pretrained(tmp_path / "new")
    wanted = draw(pipe)
    for kind in (DiffusionPipeline, StableDiffusionPipeline, PIPELINE):
        assert np.abs(draw(kind.from_pretrained(tmp_path / "new")) - wanted).max() < 1e-4
