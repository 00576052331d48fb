"""Mistakes in inputs, settings, options of training and model folders are explained in Japanese."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from PIL import Image

from jsd import cli
from jsd.manifest import MANIFEST

JAPANESE = re.compile("[ぁ-んァ-ヶ一-龠]")
ASKS = re.compile("ください|です(?:。|$)|次のいずれか|できます")  # it says what is allowed, or what to do
# Arguments of `generate`: what the message names, and the value given, as it shows it.
INPUTS = {
    "-p ␣": ("prompt", "' '"),
    f"-p {'猫' * 2001}": ("prompt", "2001"),
    f"-p 猫 -i negative_prompt={'x' * 2001}": ("negative_prompt", "2001"),
    "-i width=63": ("width", "63"),
    "-i width=wide": ("width", "'wide'"),
    "-i height=1025": ("height", "1025"),
    "-i width=nan": ("width", "'nan'"),
    "-i num_outputs=9": ("num_outputs", "9"),
    "-i num_outputs=1.5": ("num_outputs", "'1.5'"),
    "-i num_inference_steps=501": ("num_inference_steps", "501"),
    "-i steps=0": ("num_inference_steps", "0"),
    "-i guidance_scale=21": ("guidance_scale", "21"),
    "-i guidance_scale=strong": ("guidance_scale", "'strong'"),
    "-i guidance_interval=0.8,0.2": ("guidance_interval", "[0.8, 0.2]"),
    "-i guidance_interval=1": ("guidance_interval", "[1.0]"),
    "-i scheduler=EULER": ("scheduler", "'EULER'"),
    "-i seed=-1": ("seed", "-1"),
    "-i seed=one": ("seed", "'one'"),
    "-i output_format=gif": ("output_format", "'gif'"),
    "-i output_quality=101": ("output_quality", "101"),
    "-i image=in.png": ("image", "'in.png'"),
    "-i image=@none.png": ("image", "'none.png'"),
    "-i image=@text.png": ("image", "png"),
    "-i mask=@white.png": ("mask", "image"),
    "-i prompt_strength=2": ("prompt_strength", "2"),
    "-i prompt_strength=0.5": ("prompt_strength", "image"),
    "-i lora=@text.png": ("lora", ".safetensors"),
    "-i lora_scale=3": ("lora_scale", "3"),
    "-i lora_scale=0.5": ("lora_scale", "lora"),
    "-i colour=red": ("-i", "'colour'"),
    "-i seed": ("-i", "'seed'"),
    "-i seed=1 -i seed=2": ("seed", "2"),
    "-o out.gif": ("-o", "'out.gif'"),
    "-o out.png -i output_format=webp": ("output_format", "'webp'"),
    "-o none/out.png": ("-o", "フォルダー"),
    "--strength 1": ("--strength", "1"),
    "-i": ("-i", "1"),
}
SETTINGS = {
    "JSD_DTYPE": "fp8",
    "JSD_SAFETY_CHECKER": "no",
    "JSD_COMPILE": "yes",
    "JSD_CUDA_GRAPHS": "2",
    "JSD_DEVICE": "tpu",
    "JSD_MAX_BATCH": "0",
    "JSD_LORA_SCALE": "5",
    "JSD_LORA": "none.safetensors",
    "JSD_WEIGHTS": "none",
}
# Arguments of `train`: what the message names, and the value given.
TRAINING = {
    "lora --images . --to x.safetensors": ("--model", ""),
    "lora --model m --images . --to x.safetensors --rank 0": ("--rank", "'0'"),
    "lora --model m --images . --to x.safetensors --lr nan": ("--lr", "'nan'"),
    "lora --model m --images . --to x.bin": ("--to", "'x.bin'"),
    "lora --model m --images none --to x.safetensors": ("none", "フォルダー"),
    "lora --model none --images pictures --to x.safetensors": ("--model", "none'"),
    "loop --stage stage3 --model m --shards s --out o --steps 1": ("--stage", "'stage3'"),
    "loop --stage base --model m --shards s --out o --steps ten": ("--steps", "'ten'"),
    "loop --stage base --model m --shards s --out o --steps 1 --dropout 2": ("--dropout", "'2'"),
    "loop --stage base --model m --shards s --out text.png --steps 1": ("--out", "text.png'"),
    "loop --stage base --model m --shards none --out o --steps 1": ("none", "*.tar"),
    "export none folder": ("run.json", "--out"),
    "filter none folder --clip model": ("--clip", "--min-similarity"),
    "tokenizer text.png --to tokenizer": ("text.png", "50"),
    "tokenizer text.png --to t --vocab-size 3": ("--vocab-size", "'3'"),
}
# What is done to a model folder, and what the message names.
WEIGHTS = {
    "truncated": lambda folder: (folder / "vae" / "config.json").write_text("{"),
    "missing": lambda folder: (folder / "vae" / "config.json").unlink(),
    "altered": lambda folder: (folder / "vae" / "config.json").write_bytes(
        (folder / "vae" / "config.json").read_bytes().replace(b"1", b"2")
    ),
    "pickle": lambda folder: (folder / "unet" / "weights.bin").touch(),
    "unlisted": lambda folder: (folder / "unet" / "more.json").write_text("{}"),
    "manifest": lambda folder: (folder / MANIFEST).unlink(),
    "no JSON": lambda folder: (folder / MANIFEST).write_text("[]"),
}


def exit_code(arguments: tuple[str, ...]) -> int:
    """Run a command line and return its exit code."""
    try:
        return cli.main(arguments)
    except SystemExit as end:  # argparse's
        return end.code


@pytest.fixture
def mistake(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """A function that gives a wrong command line. It checks that each language has its own sentence, and returns the
    Japanese one.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "white.png")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "a.txt").write_text("猫")

    def mistake(*arguments: str) -> str:
        said = {}
        for name in ("en", "ja"):
            monkeypatch.setenv("JSD_LANG", name)
            assert exit_code(arguments) == 2
            said[name] = capsys.readouterr().err.strip().splitlines()[-1]
        assert "error: " in said["en"]
        assert not JAPANESE.search(said["en"].replace("猫", ""))
        assert "エラー: " in said["ja"]
        assert JAPANESE.search(said["ja"].partition("エラー: ")[2])
        assert ASKS.search(said["ja"]), said["ja"]
        return said["ja"]

    return mistake


@pytest.mark.parametrize("arguments", INPUTS)
def test_a_wrong_input_is_explained_in_japanese(mistake, arguments):
    name, value = INPUTS[arguments]
    sentence = mistake("generate", *(word.replace("␣", " ") for word in arguments.split()))
    assert name in sentence
    assert value in sentence


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_setting_is_explained_in_japanese(mistake, monkeypatch, tiny_folder, name):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv(name, SETTINGS[name])
    sentence = mistake("generate", "-p", "猫")
    assert SETTINGS[name] in sentence
    assert name in sentence or name == "JSD_LORA"


@pytest.mark.parametrize("arguments", TRAINING)
def test_a_wrong_option_of_training_is_explained_in_japanese(mistake, arguments):
    name, value = TRAINING[arguments]
    sentence = mistake("train", *arguments.split())
    assert name in sentence
    assert value in sentence


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_wrong_model_folder_is_explained_in_japanese(mistake, tiny_copy, kind):
    WEIGHTS[kind](tiny_copy)
    assert str(tiny_copy) in mistake("weights", "verify", str(tiny_copy))
