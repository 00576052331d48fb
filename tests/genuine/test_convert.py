"""A folder of 2022 becomes a clean one that draws the same, or is refused with the name of what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import sentencepiece
import torch
from diffusers import (
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import load_file

from jsd import model, sampling, vae
from jsd.errors import WeightsError
from jsd.genuine.convert import convert, read_state
from jsd.manifest import verify
from jsd.request import Request
from tests.fakes import psnr
from tests.genuine.hub import LENGTH, ROWS, make_2022_folder
from tests.genuine.old_layout import write_json

PARTS = ("text_encoder", "unet", "vae", "safety_checker")


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """The folder of 2022, and the models that are in it."""
    folder = tmp_path_factory.mktemp("hub") / "old"
    return folder, make_2022_folder(folder)


@pytest.fixture
def copy(old, tmp_path):
    return shutil.copytree(old[0], tmp_path / "old")


@pytest.fixture(scope="session")
def converted(old, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "new"
    convert(old[0], folder)
    return folder


def by_hand(models, folder, pipeline_class):
    """A stock pipeline of the very models, with the scheduler of 2022 as diffusers documents it."""
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline = pipeline_class(
        vae=models.vae,
        text_encoder=models.text_encoder,
        tokenizer=None,
        unet=models.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ids_of_2022(folder, text):
    """What the slow tokenizer of 2022 gave: lower-cased, cut, ended, padded; from sentencepiece itself."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer" / "spiece.model"))
    ids = [*pieces.encode(text.lower())[: LENGTH - 1], pieces.piece_to_id("</s>")]
    return ids + [pieces.piece_to_id("[PAD]")] * (LENGTH - len(ids))


def draw_by_hand(old, pipeline_class, **more):
    folder, models = old
    with torch.no_grad():
        prompt, negative = (
            models.text_encoder(torch.tensor([ids_of_2022(folder, text)])).last_hidden_state
            for text in ("富士山 A CAT", "白黒")
        )
    return by_hand(models, folder, pipeline_class)(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(9),
        **more,
    ).images[0]


@pytest.fixture
def asked():
    return {"prompt": "富士山 A CAT", "negative_prompt": "白黒", "num_inference_steps": 6, "guidance_scale": 3.0} | {
        "scheduler": "PNDM",
        "seed": 9,
    }


def ours(folder, **inputs):
    components = model.load(folder)
    job = sampling.prepare(components, Request(**inputs))
    while not job.finished:
        sampling.step(components, [job])
    return vae.decode(components, job.x_t)[0]


PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64))


def test_it_draws_what_stock_diffusers_draws_with_the_same_tensors(old, converted, asked):
    theirs = draw_by_hand(old, StableDiffusionPipeline, width=64, height=64)
    assert psnr(ours(converted, **asked), theirs) >= 50
    assert psnr(ours(converted, **asked | {"prompt": "猫"}), theirs) < 35


def test_image_to_image_too(old, converted, asked):
    theirs = draw_by_hand(old, StableDiffusionImg2ImgPipeline, image=PHOTO, strength=0.6)
    assert psnr(ours(converted, **asked, image=PHOTO, prompt_strength=0.6), theirs) >= 50


def test_and_inpainting(old, converted, asked):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (24, 0, 64, 64))
    theirs = draw_by_hand(
        old, StableDiffusionInpaintPipeline, image=PHOTO, mask_image=mask, strength=0.6, width=64, height=64
    )
    assert psnr(ours(converted, **asked, image=PHOTO, mask=mask, prompt_strength=0.6), theirs) >= 50


def test_every_tensor_is_there_under_its_name_of_today(old, converted):
    for part, module in vars(old[1]).items():
        (file,) = (converted / part).glob("*.safetensors")
        stored, wanted = load_file(file), module.state_dict()
        assert stored.keys() == wanted.keys()
        assert all(torch.equal(stored[key].float(), wanted[key].float()) for key in wanted)
        assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}


def test_full_precision_when_asked_for(old, tmp_path):
    convert(old[0], tmp_path / "new", torch.float32)
    (file,) = (tmp_path / "new" / "unet").glob("*.safetensors")
    assert {value.dtype for value in load_file(file).values()} == {torch.float32}
    assert model.load(tmp_path / "new").dtype == torch.float32


def test_the_folder_is_clean_and_says_where_it_comes_from(converted):
    manifest = verify(converted)
    assert manifest["defaults"] == {"num_inference_steps": 50, "guidance_scale": 7.5, "scheduler": "K_LMS"}
    assert manifest["licence"] == "see LICENSE"
    assert (converted / "LICENSE").read_text() == "CreativeML Open RAIL-M\n"
    assert not list(converted.rglob("*.bin")) + list(converted.rglob("*-old")) + list(converted.parent.glob("*.tmp"))
    scheduler = json.loads((converted / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["steps_offset"], scheduler["_class_name"]) == (1, "PNDMScheduler")
    assert "tensor_format" not in scheduler
    processor = json.loads((converted / "feature_extractor" / "preprocessor_config.json").read_text())
    assert (processor["size"], processor["crop_size"]) == ({"shortest_edge": 32}, {"height": 32, "width": 32})
    text = json.loads((converted / "text_encoder" / "config.json").read_text())
    assert (text["pad_token_id"], text["bos_token_id"], text["eos_token_id"]) == (3, None, 2)


@pytest.mark.parametrize(
    "text",
    ["サラリーマン 油絵", "A Cat, OIL Painting", "猫", "", "富士山 " * 20, "ＡＢＣ", "</s> [PAD] <unk> [MASK]", "🐈"],
)
def test_the_tokenizer_gives_the_ids_of_2022_and_never_a_control_token(old, converted, text):
    tokenizer = model.load(converted, safety_checker=False).tokenizer
    tokens = tokenizer(text)
    assert len(tokens.ids) == LENGTH
    assert all(0 <= i < ROWS for i in tokens.ids)
    if "[" not in text:  # what sentencepiece itself would read as a mark is spelled out
        assert tokens.ids == ids_of_2022(old[0], text)
    assert not {1, 2, 3} & set(tokens.ids[: tokens.used])
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(old[0] / "tokenizer" / "spiece.model"))
    if "[" not in text:
        assert tokens.dropped == max(0, len(pieces.encode(text.lower())) - (LENGTH - 1))


def test_stock_diffusers_opens_the_folder(converted):
    pipeline = StableDiffusionPipeline.from_pretrained(converted, local_files_only=True)
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.safety_checker is not None


class Evil:
    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return (open, (self.file, "w"))


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(copy, tmp_path, protocol):
    file = copy / "unet" / "diffusion_pytorch_model.bin"
    if protocol == "torch":
        torch.save({"conv_in.weight": Evil(tmp_path / "pwned")}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(tmp_path / "pwned"), protocol=2))
    with pytest.raises(WeightsError, match=f"{file}: a pickle that does more than hold tensors"):
        convert(copy, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def change(file, edit):
    state = torch.load(file, weights_only=True)
    edit(state)
    torch.save(state, file)


@pytest.mark.parametrize(
    ("part", "edit", "told"),
    [
        ("unet", lambda s: s.pop("conv_in.bias"), "missing keys, conv_in.bias first"),
        ("unet", lambda s: s.update(extra=torch.zeros(3)), "unexpected keys, extra first"),
        ("unet", lambda s: s.update({"conv_in.bias": torch.zeros(3)}), "conv_in.bias"),
        ("vae", lambda s: s.pop("encoder.mid_block.attentions.0.query.weight"), "missing keys"),
        ("safety_checker", lambda s: s.pop("concept_embeds"), "missing keys, concept_embeds first"),
        ("text_encoder", lambda s: s.pop("text_model.final_layer_norm.weight"), "missing keys, final_layer_norm"),
        ("text_encoder", lambda s: s.update(epoch=3), "'epoch' is no tensor"),
        (
            "text_encoder",
            lambda s: s.update({"text_model.embeddings.position_ids": torch.zeros(16).long()}),
            "position_ids are not 0, 1, 2",
        ),
    ],
)
def test_tensors_that_are_missing_or_left_over_are_named(copy, tmp_path, part, edit, told):
    (file,) = (copy / part).glob("*.bin")
    change(file, edit)
    with pytest.raises(WeightsError, match=told) as error:
        convert(copy, tmp_path / "new")
    assert part in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_or_truncated_part_is_named(copy, tmp_path, part):
    (file,) = (copy / part).glob("*.bin")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=f"{file}: can't be read"):
        convert(copy, tmp_path / "new")
    file.unlink()
    with pytest.raises(WeightsError, match=f"{file.parent}: none of model.safetensors"):
        convert(copy, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_tokenizer_with_more_tokens_than_the_encoder_has_rows_is_refused(copy, tmp_path):
    config = json.loads((copy / "text_encoder" / "config.json").read_text())
    write_json(copy / "text_encoder" / "config.json", config | {"vocab_size": 50})
    with pytest.raises(WeightsError, match="the text encoder has 50 rows"):
        convert(copy, tmp_path / "new")


def test_a_folder_that_is_no_model_is_not_overwritten(old, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="is no model folder"):
        convert(old[0], tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    "junk", [b"hello world", b"version https://git-lfs.github.com/spec/v1\noid", b"<!DOCTYPE html>", b"", b"PK\3\4 zip"]
)
def test_what_is_no_weights_file_is_called_so(copy, tmp_path, junk):
    file = copy / "vae" / "diffusion_pytorch_model.bin"
    file.write_bytes(junk)
    with pytest.raises(WeightsError, match=f"{file}: can't be read"):
        convert(copy, tmp_path / "new")


def test_numbers_too_large_for_half_precision_are_refused(copy, tmp_path):
    change(copy / "unet" / "diffusion_pytorch_model.bin", lambda s: s["conv_in.bias"].fill_(1e6))
    with pytest.raises(WeightsError, match="conv_in.bias holds numbers that are not finite in torch.float16; try"):
        convert(copy, tmp_path / "new")
    convert(copy, tmp_path / "new", torch.float32)


@pytest.mark.parametrize(
    ("config", "told"), [({"_class_name": "__version__"}, None), ({"beta_schedule": "odd"}, "scheduler_config.json")]
)
def test_an_odd_scheduler_is_replaced_or_named(copy, tmp_path, config, told):
    file = copy / "scheduler" / "scheduler_config.json"
    write_json(file, json.loads(file.read_text()) | config)
    if told:
        with pytest.raises(WeightsError, match=told):
            convert(copy, tmp_path / "new")
    else:
        convert(copy, tmp_path / "new")
        assert json.loads((tmp_path / "new" / "scheduler" / file.name).read_text())["_class_name"] == "PNDMScheduler"


def test_a_full_disk_leaves_what_was_there(old, converted, tmp_path, monkeypatch):
    import safetensors.torch

    def full(state, file):
        raise safetensors.SafetensorError("No space left on device")

    shutil.copytree(converted, tmp_path / "new")
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        convert(old[0], tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    verify(tmp_path / "new")


def test_a_link_to_another_disk_stays_a_link(old, tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "large")
    for _ in range(2):
        convert(old[0], tmp_path / "new")
        assert (tmp_path / "new").is_symlink()
        verify(tmp_path / "large")


def test_only_tensors_are_read(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.bin")
    with pytest.raises(WeightsError, match="holds list"):
        read_state(tmp_path / "list.bin")
