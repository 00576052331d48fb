"""Training says which file is damaged, which part of a model does not fit, and that a disk is full."""

from __future__ import annotations

import shutil

import pytest

from jsd import cli
from jsd.errors import TrainingError
from jsd.train.options import memory_explained
from tests.train.runs import flags


def test_train_loop_with_a_model_that_does_not_fit_together(fails, settings, tiny_copy):
    (tiny_copy / "MANIFEST.json").unlink()
    stage2 = settings | {"stage": "stage2", "model": tiny_copy, "tokenizer": None}
    config = tiny_copy / "scheduler" / "scheduler_config.json"
    good = config.read_text()
    for wrong in (good.replace("scaled_linear", "steep"), good.replace("0.00085", '"low"'), "{"):
        config.write_text(wrong)
        assert f"{config}: " in fails("train", *flags(stage2))
    config.write_text(good)
    tokenizer = tiny_copy / "tokenizer" / "tokenizer_config.json"
    for length in ("1", "1e30", "-5"):
        tokenizer.write_text(f'{{"model_max_length": {length}}}')
        assert "2 to 10000 are allowed" in fails("train", *flags(stage2))
    shutil.rmtree(tiny_copy / "tokenizer")
    shutil.copytree("weights/embedded/tokenizer", tiny_copy / "tokenizer")
    assert "the tokenizer has more tokens than the text encoder" in fails("train", *flags(stage2))


def test_a_precision_that_this_machine_does_not_have(fails, settings, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp12")
    assert "ACCELERATE_MIXED_PRECISION: 'fp12' can't be used (" in fails("train", *flags(settings))


def test_files_of_a_run_that_are_damaged(fails, settings, tmp_path):
    assert cli.main(["train", *flags(settings)]) == 0
    run, export = tmp_path / "run", ("train", "export", tmp_path / "run", tmp_path / "model")
    assert "folder: " in fails(*export[:3], run / "run.json")
    good = (run / "run.json").read_text("utf-8")
    for broken in ("{", "{}", good.replace("stage1", "stage9")):
        (run / "run.json").write_text(broken, "utf-8")
        assert f"{run}/run.json: " in fails(*export)
    (run / "run.json").write_text(good.replace(str(settings["model"]), str(tmp_path / "gone")), "utf-8")
    assert "--model: " in fails(*export)
    (run / "run.json").write_text(good, "utf-8")
    checkpoint = run / "stage1-0000004"
    for file, damage in (("model.safetensors", b"x"), ("ema.pt", b"x"), ("progress.json", b"{}")):
        (checkpoint / file).write_bytes(damage)
        assert f"{checkpoint}" in fails("train", *flags(settings))
    assert f"{checkpoint}: can't be read" in fails(*export)


def test_a_full_disk_is_named(fails, settings, tmp_path, monkeypatch):
    """A limit on the size of files stands in for the full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert cli.main(["train", *flags(settings, steps=2)]) == 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        error = fails("train", *flags(settings, out=tmp_path / "full"))
        exported = fails("train", "export", tmp_path / "run", tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{tmp_path}/full/stage1-0000002: can't be written (" in error
    assert not list((tmp_path / "full").glob("stage1-*"))
    assert str(tmp_path / "model") in exported
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")])
def test_a_memory_that_is_too_small_is_explained(error):
    with pytest.raises(TrainingError, match="^out of memory; use less$"), memory_explained("use less"):
        raise error
    with pytest.raises(RuntimeError, match="^another$"), memory_explained("use less"):
        raise RuntimeError("another")
