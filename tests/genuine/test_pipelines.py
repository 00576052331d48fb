"""The Python API of 2022: the README's snippet runs, and the other features of diffusers' pipelines work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LMSDiscreteScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

import jsd
from jsd import manifest, sampling, watermark
from jsd.errors import WeightsError
from jsd.request import Request
from tests.fakes import psnr
from tests.genuine.hub import SHA, Hub, environment, serve

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = manifest.ROOT / "embedded"
PIPELINE = jsd.JapaneseStableDiffusionPipeline
PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64))


def load(folder, kind=PIPELINE, **arguments):
    """Load a pipeline that draws no progress bars."""
    pipe = kind.from_pretrained(folder, **arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, *arguments, seed=7, **inputs):
    """Call a pipeline with the tiny model's settings and a seed."""
    settings = {"num_inference_steps": 4, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(seed)}
    return pipe(*arguments, **settings | inputs)


def test_the_snippet_of_the_readme_runs(tmp_path, monkeypatch):
    """Only the model, the device and the number of steps are exchanged."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (snippet,) = [b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "from_pretrained" in b]
    for line in (
        "from japanese_stable_diffusion import JapaneseStableDiffusionPipeline",
        'scheduler = LMSDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", '
        "num_train_timesteps=1000)",
        "pipe = JapaneseStableDiffusionPipeline.from_pretrained(model_id, scheduler=scheduler, use_auth_token=True)",
        '    image = pipe(prompt, guidance_scale=7.5)["sample"][0]',
    ):
        assert line in snippet
    for theirs, ours in (
        ('"rinna/japanese-stable-diffusion"', repr(str(EMBEDDED))),
        ('device = "cuda"', 'device = "cpu"'),
        ("pipe(prompt, ", "pipe(prompt, num_inference_steps=8, "),
    ):
        assert theirs in snippet
        snippet = snippet.replace(theirs, ours)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    image = Image.open(tmp_path / "output.png")
    assert image.size == (256, 256)
    assert watermark.detect(image).marked


def test_text_to_image_draws_the_same_as_sampling(tiny_folder, components):
    theirs = draw(load(tiny_folder), "猫 油絵", negative_prompt="白黒", width=64, height=64)
    ours = sampling.generate(components, Request("猫 油絵", "白黒", seed=7)).images[0]
    assert psnr(theirs.images[0], ours) >= 50
    assert theirs["sample"][0] is theirs.images[0]
    assert theirs["images"] is theirs.images
    assert draw(load(tiny_folder), "猫", return_dict=False)[0][0].size == (64, 64)


def test_image_to_image_draws_the_same_as_diffusers(tiny_folder):
    pipe = load(tiny_folder, jsd.JapaneseStableDiffusionImg2ImgPipeline)
    inputs = {"strength": 0.7, "num_inference_steps": 6}
    drawn = draw(pipe, "猫 油絵", image=PHOTO, **inputs).images[0]
    stock = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=True)
    assert psnr(drawn, draw(stock, "猫 油絵", image=PHOTO, **inputs).images[0]) >= 50
    assert psnr(draw(pipe, "猫 油絵", init_image=PHOTO, **inputs).images[0], drawn) == float("inf")


def test_a_scheduler_k_lms_leaves_no_noise_in_a_picture_that_changes_a_little(tiny_folder):
    """The order of diffusers' LMSDiscreteScheduler does not fit the derivatives of a schedule's last steps."""
    config = DDIMScheduler.load_config(tiny_folder / "scheduler")
    drawn = []
    for scheduler in (LMSDiscreteScheduler.from_config(config), EulerDiscreteScheduler.from_config(config)):
        pipe = load(tiny_folder, jsd.JapaneseStableDiffusionImg2ImgPipeline)
        pipe.scheduler = scheduler
        drawn.append(draw(pipe, "猫", image=PHOTO, strength=0.1, num_inference_steps=50, guidance_scale=1).images[0])
    assert psnr(*drawn) >= 30


def test_inpainting_draws_in_the_size_of_the_picture(tiny_folder):
    pipe = load(tiny_folder, jsd.JapaneseStableDiffusionInpaintPipeline)
    wide, mask = Image.new("RGB", (96, 64), "orange"), Image.new("L", (96, 64), 255)
    for name in ("image", "init_image"):
        picture = draw(pipe, "猫", **{name: wide}, mask_image=mask, strength=0.75).images[0]
        assert picture.size == (96, 64)
    picture = draw(pipe, "猫", image=wide, mask_image=mask, strength=0.75, width=64, height=64).images[0]
    assert picture.size == (64, 64)


def test_a_scheduler_keeps_its_class_and_takes_the_noise_settings_of_the_model(tiny_folder):
    own = DDIMScheduler.load_config(EMBEDDED / "scheduler")
    with pytest.warns(UserWarning, match="prediction_type='v_prediction'"):
        pipe = load(EMBEDDED, scheduler=LMSDiscreteScheduler(beta_schedule="scaled_linear"))
    assert isinstance(pipe.scheduler, LMSDiscreteScheduler)
    assert pipe.scheduler.config.beta_end == own["beta_end"]
    matching = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert load(tiny_folder, scheduler=matching).scheduler is matching


def test_several_prompts_are_drawn_with_a_callback_per_step(tiny_folder):
    steps = []

    def callback(pipe, step, t, tensors):
        steps.append(step)
        return tensors

    pipe = load(tiny_folder, torch_dtype=torch.float32).to("cpu")
    several = draw(pipe, ["猫", "犬"], callback_on_step_end=callback, seed=1, num_images_per_prompt=1)
    assert (len(several.images), steps) == (2, [0, 1, 2, 3])


def test_prompt_embeddings_draw_the_same_as_their_prompt(tiny_folder):
    pipe = load(tiny_folder)
    embeds, _ = pipe.encode_prompt("猫", "cpu", 1, True)
    of_embeds = draw(pipe, prompt_embeds=embeds, negative_prompt="", output_type="np").images
    assert np.abs(of_embeds - draw(pipe, "猫", output_type="np").images).max() < 1e-5


def test_from_pipe_shares_the_parts(tiny_folder):
    pipe = load(tiny_folder)
    other = jsd.JapaneseStableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet


def test_a_pipeline_draws_under_autocast(tiny_folder):
    with torch.autocast("cpu", torch.bfloat16):
        assert draw(load(tiny_folder), "猫")["sample"][0].size == (64, 64)


def test_the_safety_checker_can_be_switched_off_and_parts_replaced(tiny_folder):
    pipe = load(tiny_folder, safety_checker=None)
    assert pipe.safety_checker is None
    assert load(tiny_folder, unet=pipe.unet).unet is pipe.unet
    with pytest.raises(TypeError, match="no argument sampler"):
        load(tiny_folder, sampler="DDIM")


def test_a_prompt_that_is_too_long_causes_a_warning(tiny_folder, caplog):
    pipe = load(tiny_folder)
    with caplog.at_level("WARNING"):
        draw(pipe, "猫の肖像画 油絵 " * 20, num_inference_steps=1)
    assert "truncated" in caplog.text
    assert "油絵" in caplog.text


def test_a_repository_is_fetched_and_converted_once(old, connect, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROOT", tmp_path / "weights")
    with serve(Hub(old.folder, token="hf_good")) as hub:
        connect(hub)
        pipe = load("owner/name", use_auth_token="hf_good")
        assert draw(pipe, "猫", num_inference_steps=1).images[0].size == (64, 64)
        fetched = len(hub.fetched)
        assert fetched > 0
        load("owner/name", use_auth_token="hf_good")
        load("owner/name", revision=SHA)
        assert len(hub.fetched) == fetched
    load("owner/name", local_files_only=True)
    with pytest.raises(WeightsError, match="is another model .owner/name at 0123"):
        load("alice/name")
    with pytest.raises(WeightsError, match="local_files_only forbids"):
        load("owner/else", local_files_only=True)


def test_the_embedded_model_does_not_stand_for_a_repository_of_its_name():
    with pytest.raises(WeightsError, match="embedded: is another model"):
        load("nobody/embedded")


def test_the_arguments_of_2022_are_accepted(tiny_folder):
    """The notebooks and the Replicate predictor of 2022 passed them."""
    pipe = PIPELINE.from_pretrained(
        pretrained_model_name_or_path=tiny_folder, use_auth_token=True, cache_dir="cache", local_files_only=True
    )
    assert draw(pipe, "猫").images[0].size == (64, 64)
    assert load(tiny_folder, safety_checker=pipe.safety_checker).safety_checker is pipe.safety_checker


@pytest.mark.parametrize("name", ["nowhere", "a/b/c"])
def test_a_name_that_is_neither_a_folder_nor_a_repository_is_refused(name):
    with pytest.raises(WeightsError, match="neither a folder nor the name of a repository"):
        PIPELINE.from_pretrained(name)


def test_a_folder_of_2022_has_to_be_converted_first(old):
    with pytest.raises(WeightsError, match="convert it first"):
        PIPELINE.from_pretrained(old.folder)


def test_importing_the_package_imports_no_model_library():
    code = "import sys, jsd; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        jsd.Pipeline  # noqa: B018


def test_a_process_of_its_own_fetches_a_gated_repository_and_draws(old, tmp_path):
    code = (
        "import torch, jsd; from jsd import manifest, weights; from pathlib import Path;"
        f"manifest.ROOT = Path({str(tmp_path / 'weights')!r});"
        "pipe = jsd.JapaneseStableDiffusionPipeline.from_pretrained('owner/name', use_auth_token=True);"
        "pipe('猫', num_inference_steps=1)['sample'][0].save('out.png')"
    )
    with serve(Hub(old.folder, token="hf_good")) as hub:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**environment(hub, tmp_path / "home"), "HF_TOKEN": "hf_good", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (64, 64)
