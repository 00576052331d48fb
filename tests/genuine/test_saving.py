"""What `save_pretrained` writes opens unchanged: in the pipelines, the server, `weights convert` and diffusers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DEISMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

import jsd
from jsd import cli, model
from jsd.errors import InputError, WeightsError
from jsd.genuine.folder import write_manifest
from jsd.manifest import verify
from jsd.schedulers import make_scheduler
from tests.adapters import diffusers, write

PIPELINE = jsd.JapaneseStableDiffusionPipeline
PROMPT = "富士山 水彩画"


def draw(pipe):
    """The pixels of a picture, without the watermark's rounding."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 3, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(7)}
    return pipe(PROMPT, output_type="np", **settings).images[0]


@pytest.fixture(scope="module")
def opened(tiny_folder, tmp_path_factory):
    """The tiny model, with a licence and settings of its own."""
    folder = tmp_path_factory.mktemp("opened") / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "LICENSE").write_text("be kind\n")
    defaults = {"width": 96, "num_inference_steps": 5, "scheduler": "UNI_PC"}
    write_manifest(folder, name="mine", defaults=defaults, licence="see LICENSE")
    return folder


@pytest.fixture(scope="module")
def saved(opened, tmp_path_factory):
    """What an image-to-image pipeline writes that was made from a loaded one. Read only."""
    folder = tmp_path_factory.mktemp("saved") / "copy"
    pipe = jsd.JapaneseStableDiffusionImg2ImgPipeline.from_pipe(PIPELINE.from_pretrained(opened))
    pipe.save_pretrained(folder, max_shard_size="1MB")
    return folder


def test_a_saved_pipeline_draws_the_same_when_it_is_opened_again(opened, saved):
    wanted = draw(PIPELINE.from_pretrained(opened))
    assert np.array_equal(draw(PIPELINE.from_pretrained(saved)), wanted)
    assert [path.name for path in saved.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("folder", ["saved", "converted"])
def test_other_users_may_read_the_weights_as_they_may_read_other_files(folder, request, tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    modes = {file.stat().st_mode for file in request.getfixturevalue(folder).rglob("*") if file.is_file()}
    assert modes == {usual.stat().st_mode}


def test_the_server_gets_the_same_model_with_the_same_defaults_and_licence(opened, saved):
    before, after = model.load(opened), model.load(saved)
    assert after.defaults == before.defaults
    assert after.tokenizer("サラリーマン 油絵") == before.tokenizer("サラリーマン 油絵")
    assert (verify(saved)["name"], verify(saved)["licence"]) == ("copy", "see LICENSE")
    assert (saved / "LICENSE").read_text() == "be kind\n"
    for name in ("DDIM", "K_EULER", "PNDM"):  # none inherits a setting of the pipeline's UNI_PC
        configs = [dict(make_scheduler(name, one.scheduler_config).config) for one in (before, after)]
        for config in configs:
            config.pop("_use_default_values", None)  # which of them were not given
        assert configs[0] == configs[1]


def test_stock_diffusers_draws_the_same(opened, saved):
    pipe = StableDiffusionPipeline.from_pretrained(saved, local_files_only=True)
    assert type(pipe.scheduler).__name__ == "UniPCMultistepScheduler"
    assert np.abs(draw(pipe) - draw(PIPELINE.from_pretrained(opened))).max() < 1e-5


def test_weights_convert_takes_it_and_keeps_its_defaults(saved, tmp_path, capsys):
    assert cli.main(["weights", "convert", str(saved), str(tmp_path / "new")]) == 0
    assert f"JSD_WEIGHTS={tmp_path / 'new'} serves it" in capsys.readouterr().out
    before, after = model.load(saved), model.load(tmp_path / "new")
    assert after.defaults == before.defaults
    assert after.tokenizer.do_lower_case == before.tokenizer.do_lower_case
    ours, theirs = before.unet.state_dict(), after.unet.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_parts_that_were_exchanged_are_saved(tiny_folder, tmp_path):
    pipe = PIPELINE.from_pretrained(tiny_folder, safety_checker=None)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe.unet.conv_out.bias.data += 0.5
    pipe.save_pretrained(tmp_path / "new")
    again = PIPELINE.from_pretrained(tmp_path / "new")
    assert np.array_equal(draw(again), draw(pipe))
    assert isinstance(again.scheduler, EulerDiscreteScheduler)
    assert model.load(tmp_path / "new", safety_checker=False).defaults.scheduler == "K_EULER"
    with pytest.raises(WeightsError, match="set JSD_SAFETY_CHECKER=off"):
        model.load(tmp_path / "new")


def test_k_lms_is_saved_under_the_name_that_diffusers_knows(tiny_copy, tmp_path):
    write_manifest(tiny_copy, name="tiny", defaults={"scheduler": "K_LMS"})
    PIPELINE.from_pretrained(tiny_copy).save_pretrained(tmp_path / "new")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "new", local_files_only=True)
    assert type(stock.scheduler).__name__ == "LMSDiscreteScheduler"


def test_a_scheduler_that_is_no_sampler_here_causes_a_warning(tiny_folder, tmp_path):
    pipe = PIPELINE.from_pretrained(tiny_folder)
    pipe.scheduler = DEISMultistepScheduler.from_config(pipe.scheduler.config)
    with pytest.warns(UserWarning, match="DEISMultistepScheduler; pass scheduler= when you open the folder"):
        pipe.save_pretrained(tmp_path / "new")
    assert isinstance(PIPELINE.from_pretrained(tmp_path / "new").scheduler, DDIMScheduler)


def test_an_adapter_has_to_be_merged_or_taken_off_first(tiny_folder, components, tmp_path):
    pipe = PIPELINE.from_pretrained(tiny_folder)
    file = write(tmp_path / "a.safetensors", diffusers(components, ".lora_A .lora_B", ""))
    pipe.load_lora_weights(tmp_path, weight_name=file.name)
    with pytest.raises(WeightsError, match=r"unet: has an adapter.*; call unload_lora_weights\(\) \(after fuse_lora"):
        pipe.save_pretrained(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "new")
    merged = model.load(tiny_folder, lora=file).unet.state_dict()
    stored = model.load(tmp_path / "new").unet.state_dict()
    assert all(torch.allclose(stored[name], merged[name], atol=1e-5) for name in merged)


@pytest.mark.parametrize("option", [{"variant": "fp16"}, {"push_to_hub": True}])
def test_options_for_files_that_are_not_read_here_are_refused(option, tiny_folder, tmp_path):
    (name,) = option
    with pytest.raises(InputError, match=f"{name}: .* was given; leave it out"):
        PIPELINE.from_pretrained(tiny_folder).save_pretrained(tmp_path / "new", **option)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model_is_left_alone_and_a_model_is_replaced(tiny_copy, tmp_path):
    pipe = PIPELINE.from_pretrained(tiny_copy)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(WeightsError, match="exists and is not a model folder"):
        pipe.save_pretrained(tmp_path / "mine")
    pipe.save_pretrained(tiny_copy)  # the folder that it came from
    assert np.array_equal(draw(PIPELINE.from_pretrained(tiny_copy)), draw(pipe))


def test_a_pipeline_with_another_tokenizer_is_saved_as_diffusers_does(tiny_folder, tmp_path):
    pieces = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    pipe = PIPELINE.from_pretrained(tiny_folder, tokenizer=CLIPTokenizer(vocab=pieces, merges=[]))
    pipe.save_pretrained(tmp_path / "new")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "new", local_files_only=True)
    assert isinstance(stock.tokenizer, CLIPTokenizer)
    assert len({file.stat().st_mode for file in (tmp_path / "new").rglob("*") if file.is_file()}) == 1
