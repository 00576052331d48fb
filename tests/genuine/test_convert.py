"""A repository of 2022 becomes a model folder of today that draws the same pictures."""

from __future__ import annotations

import json
import shutil

import pytest
import sentencepiece
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from jsd import model
from jsd.genuine.convert import convert
from jsd.manifest import verify
from tests.genuine.layout_2022 import write_json
from tests.genuine.repository import EMBEDDINGS, LENGTH


def read(file):
    return json.loads(file.read_text("utf-8"))


def stored(folder, part):
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def test_every_tensor_is_stored_under_its_name_of_today(old, converted):
    for part, module in vars(old.models).items():
        tensors, wanted = stored(converted, part), module.state_dict()
        assert tensors.keys() == wanted.keys()
        assert all(torch.equal(tensors[key].float(), wanted[key].float()) for key in wanted)
        assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float16}


def test_full_precision_is_stored_on_request(old, tmp_path):
    convert(old.folder, tmp_path / "new", torch.float32)
    assert {value.dtype for value in stored(tmp_path / "new", "unet").values()} == {torch.float32}
    assert model.load(tmp_path / "new").dtype == torch.float32


def test_the_manifest_names_the_source_the_licence_and_the_defaults(old, converted):
    manifest = verify(converted)
    assert manifest["defaults"] == {"num_inference_steps": 50, "guidance_scale": 7.5, "scheduler": "K_LMS"}
    assert manifest["source"] == "converted from old"
    assert manifest["licence"] == "see LICENSE"
    assert (converted / "LICENSE").read_text() == (old.folder / "LICENSE").read_text()


def test_no_pickles_and_no_temporary_files_are_left(converted):
    assert {path.name for path in converted.iterdir() if path.is_dir()} == {
        "feature_extractor",
        "safety_checker",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae",
    }
    assert not list(converted.rglob("*.bin"))
    assert [path.name for path in converted.parent.iterdir()] == ["new"]


def test_the_configs_hold_the_settings_of_today(converted):
    scheduler = read(converted / "scheduler" / "scheduler_config.json")
    assert (scheduler["steps_offset"], scheduler["_class_name"]) == (1, "PNDMScheduler")
    assert "tensor_format" not in scheduler
    processor = read(converted / "feature_extractor" / "preprocessor_config.json")
    assert (processor["size"], processor["crop_size"]) == ({"shortest_edge": 32}, {"height": 32, "width": 32})
    text = read(converted / "text_encoder" / "config.json")
    assert (text["pad_token_id"], text["bos_token_id"], text["eos_token_id"]) == (3, None, 2)


def test_an_unknown_scheduler_class_is_replaced(old_copy, tmp_path):
    file = old_copy / "scheduler" / "scheduler_config.json"
    write_json(file, read(file) | {"_class_name": "__version__"})
    convert(old_copy, tmp_path / "new")
    assert read(tmp_path / "new" / "scheduler" / file.name)["_class_name"] == "PNDMScheduler"


@pytest.mark.parametrize(
    "text",
    ["サラリーマン 油絵", "A Cat, OIL Painting", "猫", "", "富士山 " * 20, "ＡＢＣ", "🐈"],
)
def test_the_tokenizer_gives_the_ids_of_2022(old, tokenizer, text):
    """The slow tokenizer of 2022 lower-cased, cut off, ended and padded the ids of sentencepiece."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(old.folder / "tokenizer" / "spiece.model"))
    ids = pieces.encode(text.lower())
    kept = [*ids[: LENGTH - 1], pieces.piece_to_id("</s>")]
    tokens = tokenizer(text)
    assert tokens.ids == kept + [pieces.piece_to_id("[PAD]")] * (LENGTH - len(kept))
    assert tokens.dropped == max(0, len(ids) - (LENGTH - 1))


def test_no_prompt_becomes_a_control_token(tokenizer):
    tokens = tokenizer("</s> [PAD] <unk> [MASK]")
    assert len(tokens.ids) == LENGTH
    assert all(0 <= i < EMBEDDINGS for i in tokens.ids)
    assert not {1, 2, 3} & set(tokens.ids[: tokens.used])


@pytest.fixture(scope="module")
def tokenizer(converted):
    return model.load(converted, safety_checker=False).tokenizer


def test_stock_diffusers_opens_the_folder(converted):
    pipeline = StableDiffusionPipeline.from_pretrained(converted, local_files_only=True)
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.safety_checker is not None


def test_a_folder_of_today_can_be_converted_too(old, converted, tmp_path):
    shutil.copytree(converted, tmp_path / "today")
    convert(tmp_path / "today", tmp_path / "new")
    assert read(tmp_path / "new" / "MANIFEST.json")["files"] == read(converted / "MANIFEST.json")["files"]
