"""`script/peer-tests` gives the tests of diffusers our classes, and tells which of them fail on ours alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peer.suites import report, run

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = """
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

class TestPipeline:
    pipeline_class = StableDiffusionPipeline

    def test_ours(self):
        tokenizer = CLIPTokenizer.from_pretrained("hf-internal-testing/tiny-random-clip")
        assert tokenizer("the cat").input_ids[-1] == tokenizer.eos_token_id
        assert self.pipeline_class is StableDiffusionPipeline
        assert self.pipeline_class.__name__ == "JapaneseStableDiffusionPipeline"

    def test_stock(self):
        assert self.pipeline_class.__name__ == "StableDiffusionPipeline"
"""
SCHEDULER = """
from diffusers import PNDMScheduler

class TestScheduler:
    scheduler_classes = (PNDMScheduler,)

    def test_forced(self):
        scheduler = self.scheduler_classes[0](skip_prk_steps=False, beta_end=0.5)
        assert scheduler.config.skip_prk_steps and scheduler.config.beta_end == 0.5
        assert self.scheduler_classes[0] is PNDMScheduler
"""


@pytest.mark.slow
def test_the_tests_get_our_classes_and_a_tokenizer(tmp_path):
    for name, text in (
        ("pipelines/stable_diffusion/test_stable_diffusion.py", PIPELINE),
        ("schedulers/test_scheduler_pndm.py", SCHEDULER),
    ):
        file = tmp_path / "tests" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        for folder in (file.parent, file.parent.parent, tmp_path / "tests"):
            (folder / "__init__.py").touch()
    outcomes = {test.rpartition("::")[2]: end for test, end in run("ours", tmp_path, "not Slow").items()}
    assert outcomes == {"test_ours": "passed", "test_stock": "failed", "test_forced": "passed"}


def test_what_fails_on_ours_alone_is_explained_or_not():
    tests = [
        "tests/pipelines/a.py::A::test_encode_prompt_works_in_isolation",
        "tests/pipelines/a.py::A::test_new",
        "tests/schedulers/b.py::PNDMSchedulerTest::test_betas",
        "tests/schedulers/b.py::B::test_both",
    ]
    stock = dict.fromkeys(tests, "passed") | {"tests/schedulers/b.py::B::test_neither": "failed"}
    assert report(stock, {tests[0]: "failed", tests[2]: "failed", tests[3]: "passed"}) == [
        "pipelines: stock passes 2 of 2, ours 0",
        "schedulers: stock passes 2 of 3, ours 1",
        f"failed: {tests[0]}: it looks the class up by its name in diffusers.pipelines",
        f"missing: {tests[1]}: UNEXPLAINED",
        f"failed: {tests[2]}: it has skip_prk_steps=False, and PNDM always skips these steps",
    ]


def test_a_folder_without_such_tests_is_refused(tmp_path):
    command = [sys.executable, "-m", "tests.peer", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "has no tests/pipelines" in done.stderr
