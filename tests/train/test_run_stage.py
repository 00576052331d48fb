"""The command `train loop`: what it writes, and what it refuses before the first step."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jsd.train.checkpoints import find_checkpoints, read_curve
from tests.train.runs import average_of, run_loop
from tests.train.shards import good, write


def test_a_run_leaves_checkpoints_a_curve_and_samples(settings, tmp_path):
    (tmp_path / "prompts").write_text("猫\n\n", "utf-8")
    assert run_loop(settings, prompts=tmp_path / "prompts") == 0
    run = tmp_path / "run"
    assert {path.name for path in run.glob("*.png")} == {"stage1.png", "sample-0000002.png", "sample-0000004.png"}
    assert [path.name for path in find_checkpoints(run, "stage1")] == ["stage1-0000002", "stage1-0000004"]
    assert [row["step"] for row in read_curve(run / "stage1.jsonl")] == [0, 3]
    assert not list(run.glob("*.tmp*"))


def test_a_run_can_be_followed_in_tensorboard(settings, tmp_path):
    assert run_loop(settings, log_with="tensorboard") == 0
    (folder,) = (tmp_path / "run" / "logs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    rows = read_curve(tmp_path / "run" / "stage1.jsonl")
    assert [(e.step, e.value) for e in events.Scalars("stage1/loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in rows
    ]


def test_bad_samples_are_counted_and_logged(settings, tmp_path, capsys):
    write(tmp_path / "data" / "00003.tar", {"bad": {"png": b"no picture", "txt": "猫"}})
    assert run_loop(settings, steps=7) == 0  # a step more than the 24 good samples need
    reason = "picture: not a png, jpeg or webp file"
    assert f"skipped, by reason: {{'{reason}': 1}}" in capsys.readouterr().out
    (row,) = map(json.loads, (tmp_path / "run" / "skipped-0.jsonl").read_text("utf-8").splitlines())
    assert (row["key"], row["reason"]) == ("bad", reason)


def test_a_run_is_resumed_only_with_the_same_settings(settings, tmp_path, tiny_copy, capsys):
    assert run_loop(settings) == 0
    for changed, message in (
        ({"model": tiny_copy}, "was begun with model"),
        ({"batch": 2}, "was begun with batch 4, not 2"),
        ({"seed": 1}, "was begun with seed 0, not 1"),
    ):
        assert run_loop(settings, **changed) == 2
        assert message in capsys.readouterr().err
    good(tmp_path / "data", shards=5, each=8)
    assert run_loop(settings) == 2
    assert "was begun with urls" in capsys.readouterr().err


def test_mistakes_are_reported_before_the_first_step(settings, tmp_path, capsys):
    (tmp_path / "long").write_text("猫\n" + "犬" * 3000)
    for changed, message in (
        ({"size": 72}, "error: --size: 72 was given; this model is trained on multiples of 16, so give 64 or 80"),
        ({"prompts": tmp_path / "long"}, "can't be drawn (prompt: 3000 characters"),
        ({"stage": "stage2"}, "error: --tokenizer: stage2 keeps the text encoder"),
        ({"workers": 5}, "error: 4 shards for 5 readers"),
        ({"model": tmp_path}, "error: "),
    ):
        assert run_loop(settings, **changed) == 2
        assert message in capsys.readouterr().err
    for name in ("batch", "steps", "save-every"):
        with pytest.raises(SystemExit):
            run_loop(settings, **{name: 0})
    assert not (tmp_path / "run").exists()


def test_gradient_checkpointing_changes_nothing_and_min_snr_does(settings, tmp_path):
    runs = {"plain": {}, "checkpointed": {"gradient-checkpointing": True}, "weighted": {"min-snr": 5}}
    for name, changed in runs.items():
        assert run_loop(settings, out=tmp_path / name, warmup=0, **changed) == 0
    plain, checkpointed, weighted = (average_of(tmp_path / name) for name in runs)
    assert torch.allclose(plain, checkpointed, atol=1e-6)
    assert not torch.allclose(plain, weighted, atol=1e-6)


def test_muon_changes_the_weights_and_a_run_does_not_resume_without_it(settings, tmp_path, capsys):
    for name, muon in (("plain", None), ("muon", 2e-3)):
        assert run_loop(settings, out=tmp_path / name, muon=muon) == 0
    assert not average_of(tmp_path / "plain").equal(average_of(tmp_path / "muon"))
    assert run_loop(settings, out=tmp_path / "muon") == 2
    assert "was begun with muon 0.002, not None" in capsys.readouterr().err
