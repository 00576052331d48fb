"""The tokenizer of a pipeline is one of transformers to other people's code, and gives the ids of the model."""

from __future__ import annotations

import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import PreTrainedTokenizer

import jsd
from jsd.errors import WeightsError
from jsd.genuine.tokenizer import PipelineTokenizer
from tests.fakes import MAX_TOKENS

PROMPT = "富士山 水彩画"


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    pipe = jsd.JapaneseStableDiffusionPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def tokenizer(components):
    return PipelineTokenizer(components.tokenizer)


def fill(tokenizer, texts):
    """Tokenize as the pipelines of diffusers do."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")


def test_it_gives_the_ids_of_the_models_tokenizer(tokenizer, components):
    texts = ["猫", PROMPT, "a cat, oil painting " * 9]
    rows = fill(tokenizer, texts).to("cpu")
    assert rows["input_ids"].tolist() == [components.tokenizer(text).ids for text in texts]
    assert rows.attention_mask.sum(1).tolist() == [components.tokenizer(text).used + 1 for text in texts]
    used = [components.tokenizer(text).used + 1 for text in texts[:2]]
    assert tokenizer(texts[:2], padding="longest", return_tensors="pt").input_ids.shape == (2, max(used))


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("猫油絵富士山 　</s><pad>[PAD]<unk>▁ー-aA1\n\t🍣ﾈｺ\u200b"), max_size=30))
def test_no_text_becomes_a_control_token(components, text):
    tokenizer = PipelineTokenizer(components.tokenizer)
    assert tokenizer(text)["input_ids"] == [*components.tokenizer.encode(text), tokenizer.eos_token_id]


def test_it_has_what_the_code_of_others_asks_for(tokenizer, components):
    assert isinstance(tokenizer, PreTrainedTokenizer)
    assert len(tokenizer) == tokenizer.vocab_size == components.tokenizer.vocabulary_size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)
    assert tokenizer.model_max_length == MAX_TOKENS
    assert tokenizer(PROMPT, max_length=4, truncation=True).input_ids[3:] == [1]
    ids = tokenizer(PROMPT).input_ids
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(PROMPT)) == ids[:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == PROMPT
    assert tokenizer.batch_decode([ids]) == [f"{PROMPT} </s>"]
    assert [tokenizer.get_vocab()[token] for token in tokenizer.convert_ids_to_tokens(ids)] == ids
    assert tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True) == [0] * (len(ids) - 1) + [1]
    assert pickle.loads(pickle.dumps(tokenizer))(PROMPT).input_ids == ids


def test_weighted_parts_of_a_prompt_are_put_together(pipe):
    """As compel and its like do: the parts are tokenized apart, without an end, and the whole is padded."""
    tokenizer = pipe.tokenizer
    parts = tokenizer(["富士山 ", "水彩画"], truncation=False, padding="do_not_pad", return_tensors=None)["input_ids"]
    ids = [i for part in parts for i in part if i != tokenizer.eos_token_id] + [tokenizer.eos_token_id]
    ids += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))
    embeds = pipe.text_encoder(torch.tensor([ids]))[0]
    assert torch.equal(embeds, pipe.encode_prompt(PROMPT, "cpu", 1, False)[0])


def test_a_textual_inversion_is_loaded_used_and_taken_off(pipe, tmp_path):
    before = pipe.encode_prompt("猫", "cpu", 1, False)[0]
    save_file({"<mine>": torch.randn(2, 32, generator=torch.Generator().manual_seed(0))}, tmp_path / "mine.safetensors")
    pipe.load_textual_inversion(tmp_path, weight_name="mine.safetensors", token="<mine>")
    tokens = pipe.tokenizer.tokenize(pipe.maybe_convert_prompt("青い<mine>の</s>", pipe.tokenizer))
    assert [token for token in tokens if "mine" in token] == ["<mine>", "<mine>_1"]
    assert "</s>" not in tokens
    assert pipe.tokenizer.decode(pipe.tokenizer.convert_tokens_to_ids(["<mine>", "▁", "猫"])) == "<mine> 猫"
    assert not torch.equal(pipe.encode_prompt("<mine>", "cpu", 1, False)[0], before)
    assert pipe("<mine>", num_inference_steps=1).images[0].size == (64, 64)
    with pytest.raises(
        WeightsError, match=re.escape("'<mine>, <mine>_1', which a model folder can't hold; call unload")
    ):
        pipe.save_pretrained(tmp_path / "new")
    pipe.unload_textual_inversion()
    assert torch.equal(pipe.encode_prompt("猫", "cpu", 1, False)[0], before)
    pipe.save_pretrained(tmp_path / "new")


def test_it_saves_what_it_is_made_from(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "new")
    again = PipelineTokenizer.from_pretrained(tmp_path / "new")
    assert fill(again, [PROMPT]).input_ids.tolist() == fill(tokenizer, [PROMPT]).input_ids.tolist()
    (tmp_path / "new" / "spiece.model").unlink()
    with pytest.raises(WeightsError, match="spiece.model: not a sentencepiece model"):
        PipelineTokenizer.from_pretrained(tmp_path / "new")
