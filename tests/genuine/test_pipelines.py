"""The Python API of 2022: its snippet runs, and what diffusers offers besides works as there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LMSDiscreteScheduler
from PIL import Image

import jsd
from jsd import manifest, sampling, watermark
from jsd.errors import WeightsError
from jsd.genuine import hub as jsd_hub
from jsd.genuine.pipelines import PipelineTokenizer
from jsd.request import Request
from tests.fakes import psnr
from tests.genuine.hub import Hub, make_2022_folder, serve

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = manifest.ROOT / "embedded"
PIPELINE = jsd.JapaneseStableDiffusionPipeline


def opened(folder, kind=PIPELINE, **arguments):
    pipe = kind.from_pretrained(folder, **arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, *arguments, seed=7, **inputs):
    settings = {"num_inference_steps": 4, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(seed)}
    return pipe(*arguments, **settings | inputs)


def test_the_snippet_of_the_readme_runs(tmp_path):
    """Copied out of the README; only the model and the device are exchanged."""
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
    ):
        assert theirs in snippet
        snippet = snippet.replace(theirs, ours)
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    image = Image.open(tmp_path / "output.png")
    assert image.size == (256, 256)
    assert watermark.detect(image).marked


def test_it_draws_what_the_library_draws(tiny_folder, components):
    theirs = draw(opened(tiny_folder), "猫 油絵", negative_prompt="白黒", width=64, height=64)
    ours = sampling.generate(components, Request("猫 油絵", "白黒", seed=7)).images[0]
    assert psnr(theirs.images[0], ours) >= 50
    assert theirs["sample"][0] is theirs.images[0]
    assert theirs["images"] is theirs.images
    assert draw(opened(tiny_folder), "猫", return_dict=False)[0][0].size == (64, 64)


def test_image_to_image_and_inpainting(tiny_folder, components):
    photo = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    asked = Request("猫 油絵", seed=7, num_inference_steps=6, guidance_scale=2.0, image=photo, prompt_strength=0.7)
    given = {"image": photo, "strength": 0.7, "num_inference_steps": 6}
    pipe = opened(tiny_folder, jsd.JapaneseStableDiffusionImg2ImgPipeline)
    drawn = draw(pipe, "猫 油絵", **given).images[0]
    assert psnr(drawn, sampling.generate(components, asked).images[0]) >= 50
    old_name = {"init_image" if key == "image" else key: value for key, value in given.items()}
    assert psnr(draw(pipe, "猫 油絵", **old_name).images[0], drawn) == float("inf")
    pipe = opened(tiny_folder, jsd.JapaneseStableDiffusionInpaintPipeline)
    assert draw(pipe, "猫 油絵", mask_image=mask, width=64, height=64, **given).images[0].size == (64, 64)


def test_a_scheduler_keeps_its_kind_and_follows_the_models_noise(tiny_folder):
    own = DDIMScheduler.load_config(EMBEDDED / "scheduler")
    with pytest.warns(UserWarning, match="prediction_type='v_prediction'"):
        pipe = opened(EMBEDDED, scheduler=LMSDiscreteScheduler(beta_schedule="scaled_linear"))
    assert isinstance(pipe.scheduler, LMSDiscreteScheduler)
    assert pipe.scheduler.config.beta_end == own["beta_end"]
    fitting = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert opened(tiny_folder, scheduler=fitting).scheduler is fitting


def test_what_diffusers_offers_works(tiny_folder):
    seen = []

    def callback(pipe, step, t, tensors):
        seen.append(step)
        return tensors

    pipe = opened(tiny_folder, torch_dtype=torch.float32).to("cpu")
    several = draw(pipe, ["猫", "犬"], callback_on_step_end=callback, seed=1, num_images_per_prompt=1)
    assert (len(several.images), seen) == (2, [0, 1, 2, 3])
    embeds, negative = pipe.encode_prompt("猫", "cpu", 1, True)
    one = draw(pipe, prompt_embeds=embeds, negative_prompt_embeds=negative, output_type="np").images
    assert np.abs(one - draw(pipe, "猫", output_type="np").images).max() < 1e-5
    other = jsd.JapaneseStableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet
    with torch.autocast("cpu", torch.bfloat16):
        assert draw(pipe, "猫")["sample"][0].size == (64, 64)


def test_the_safety_checker_can_be_left_out_and_parts_exchanged(tiny_folder):
    pipe = opened(tiny_folder, safety_checker=None)
    assert pipe.safety_checker is None
    assert opened(tiny_folder, unet=pipe.unet).unet is pipe.unet
    with pytest.raises(TypeError, match="no argument sampler"):
        opened(tiny_folder, sampler="DDIM")


def test_a_prompt_that_is_too_long_is_told(tiny_folder, caplog):
    pipe = opened(tiny_folder)
    with caplog.at_level("WARNING"):
        draw(pipe, "猫の肖像画 油絵 " * 20, num_inference_steps=1)
    assert "truncated" in caplog.text
    assert "油絵" in caplog.text


def test_the_tokenizer_gives_the_librarys_rows(components):
    tokenizer = PipelineTokenizer(components.tokenizer)
    rows = tokenizer(["猫", "富士山 水彩画"], padding="max_length", return_tensors="pt", truncation=True)
    assert rows.input_ids.tolist() == [components.tokenizer(text).ids for text in ("猫", "富士山 水彩画")]
    used = [components.tokenizer(text).used + 1 for text in ("猫", "富士山 水彩画")]
    assert rows.attention_mask.sum(1).tolist() == used
    assert tokenizer(["猫", "富士山 水彩画"], padding="longest").input_ids.shape == (2, max(used))


def test_a_repository_is_pulled_once(tmp_path, monkeypatch):
    """The hub's address is read on import: here a stand-in fetches what the server of the tests holds."""
    make_2022_folder(tmp_path / "old")
    pulled = []

    def pull(repository, folder, revision, token, report):
        from jsd.genuine.convert import convert

        pulled.append((repository, token))
        convert(tmp_path / "old", folder, origin=f"{repository} at 0123", report=report)

    monkeypatch.setattr(manifest, "ROOT", tmp_path / "weights")
    monkeypatch.setattr(jsd_hub, "pull", pull)
    for _ in range(2):
        pipe = opened("owner/name", use_auth_token="hf_good")
        assert draw(pipe, "猫", num_inference_steps=1).images[0].size == (64, 64)
    assert pulled == [("owner/name", "hf_good")]
    opened("owner/name", revision="0123")
    assert len(pulled) == 1
    with pytest.raises(WeightsError, match="is another model .owner/name at 0123"):
        opened("alice/name")
    with pytest.raises(WeightsError, match="local_files_only forbids"):
        opened("owner/else", local_files_only=True)


def test_a_name_on_the_hub_does_not_stand_for_the_embedded_model():
    with pytest.raises(WeightsError, match="embedded: is another model"):
        opened("nobody/embedded")


def test_calls_of_2022(tiny_folder):
    """As the notebooks and the Replicate predictor of then made them."""
    pipe = PIPELINE.from_pretrained(
        pretrained_model_name_or_path=tiny_folder, use_auth_token=True, cache_dir="cache", local_files_only=True
    )
    assert draw(pipe, "猫").images[0].size == (64, 64)
    assert opened(tiny_folder, safety_checker=pipe.safety_checker).safety_checker is pipe.safety_checker
    wide, mask = Image.new("RGB", (96, 64), "orange"), Image.new("L", (96, 64), 255)
    pipe = opened(tiny_folder, jsd.JapaneseStableDiffusionInpaintPipeline)
    assert draw(pipe, "猫", init_image=wide, mask_image=mask, strength=0.75).images[0].size == (96, 64)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c"])
def test_what_is_no_model_is_told(name):
    with pytest.raises(WeightsError, match="no such folder, and no name of a repository"):
        PIPELINE.from_pretrained(name)


def test_a_folder_of_2022_is_to_be_converted(tmp_path):
    make_2022_folder(tmp_path / "old")
    with pytest.raises(WeightsError, match="convert it first"):
        PIPELINE.from_pretrained(tmp_path / "old")


def test_the_package_stays_light():
    code = "import sys, jsd; assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        jsd.Pipeline  # noqa: B018


def test_served_from_a_hub_end_to_end(tmp_path):
    make_2022_folder(tmp_path / "old")
    code = (
        "import torch, jsd; from jsd import manifest, weights; from pathlib import Path;"
        f"manifest.ROOT = Path({str(tmp_path / 'weights')!r});"
        "pipe = jsd.JapaneseStableDiffusionPipeline.from_pretrained('owner/name', use_auth_token=True);"
        "pipe('猫', num_inference_steps=1)['sample'][0].save('out.png')"
    )
    with serve(Hub(tmp_path / "old", token="hf_good")) as server:
        environment = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_good"}
        own = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**own, **environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (64, 64)
