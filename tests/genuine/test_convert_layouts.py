"""`weights convert` takes the folders that others' programs write, and says what to do with what it can't take."""

from __future__ import annotations

import shutil

import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from jsd import cli, model
from jsd.errors import HubError, WeightsError
from jsd.genuine.convert import convert
from jsd.genuine.hub import choose
from tests.genuine.layout_2022 import write_json


@pytest.fixture
def unchecked(old_copy):
    """A repository of 2022 without a safety checker."""
    shutil.rmtree(old_copy / "safety_checker")
    shutil.rmtree(old_copy / "feature_extractor")
    return old_copy


def test_a_folder_without_a_safety_checker_is_converted_and_served_without_one(unchecked, tmp_path, capsys):
    new = tmp_path / "new"
    assert cli.main(["weights", "convert", str(unchecked), str(new)]) == 0
    assert f"JSD_WEIGHTS={new} JSD_SAFETY_CHECKER=off serves it (it has no safety checker)" in capsys.readouterr().out
    with pytest.raises(WeightsError, match="safety_checker: missing; add one, or set JSD_SAFETY_CHECKER=off"):
        model.load(new)
    assert model.load(new, safety_checker=False).safety_checker is None
    assert StableDiffusionPipeline.from_pretrained(new, local_files_only=True).safety_checker is None


def test_a_repository_without_a_safety_checker_is_fetched(unchecked):
    files = [path.relative_to(unchecked).as_posix() for path in unchecked.rglob("*")]
    assert "unet/diffusion_pytorch_model.bin" in choose(files)
    with pytest.raises(HubError, match="no weights of safety_checker"):
        choose([*files, "safety_checker/config.json"])


def test_half_precision_files_are_taken_where_there_are_no_others(converted, tmp_path):
    """Diffusers writes them with variant="fp16"."""
    source = tmp_path / "source"
    shutil.copytree(converted, source)
    for file in source.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    other = source / "unet" / "diffusion_pytorch_model.safetensors"  # it goes first
    save_file({name: 2 * value for name, value in load_file(other.with_suffix(".fp16.safetensors")).items()}, other)
    convert(source, tmp_path / "new")
    wanted = load_file(converted / "vae" / other.name)
    assert all(
        (value == wanted[name]).all() for name, value in load_file(tmp_path / "new" / "vae" / other.name).items()
    )
    wanted = load_file(other)
    assert all(
        (value == wanted[name]).all() for name, value in load_file(tmp_path / "new" / "unet" / other.name).items()
    )


@pytest.mark.parametrize("name", ["sd-v1-4.ckpt", "model.safetensors"])
def test_a_single_file_is_refused_with_what_to_do(name, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"anything")
    assert cli.main(["weights", "convert", str(tmp_path / name), str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / name}: a single file" in error
    assert f"StableDiffusionPipeline.from_single_file('{name}', config='MODEL').save_pretrained('FOLDER')" in error
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(WeightsError, match=f"{tmp_path / 'none'}: no such folder"):
        convert(tmp_path / "none", tmp_path / "new")


def test_weights_in_several_files_are_refused_with_what_to_do(converted, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(converted, source)
    file = source / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    write_json(file.with_suffix(".safetensors.index.json"), {})
    with pytest.raises(WeightsError, match=f"{source / 'unet'}: its weights are in several files; save it with max_sh"):
        convert(source, tmp_path / "new")


def test_what_stock_diffusers_saves_lacks_the_tokenizers_file_and_nothing_else(converted, tmp_path):
    source = tmp_path / "source"
    pipe = StableDiffusionPipeline.from_pretrained(converted, local_files_only=True, safety_checker=None)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    pipe.save_pretrained(source)
    with pytest.raises(WeightsError, match="spiece.model: missing.*copy it from the folder that the model was opened"):
        convert(source, tmp_path / "new")
    shutil.copyfile(converted / "tokenizer" / "spiece.model", source / "tokenizer" / "spiece.model")
    convert(source, tmp_path / "new")
    ours, theirs = model.load(tmp_path / "new", safety_checker=False), model.load(converted)
    assert ours.tokenizer("A Cat 猫") == theirs.tokenizer("A Cat 猫")
    assert DDIMScheduler.from_config(ours.scheduler_config).config.rescale_betas_zero_snr
