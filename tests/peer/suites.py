"""Run the tests of diffusers on its classes and on ours, and compare the outcomes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PIPELINES = [f"pipelines/stable_diffusion/test_stable_diffusion{kind}.py" for kind in ("", "_img2img", "_inpaint")]
SAMPLERS = ("ddim", "lms", "pndm", "euler", "euler_ancestral", "heun", "dpm_multi", "unipc", "lcm")
FILES = [*PIPELINES, *(f"schedulers/test_scheduler_{name}.py" for name in SAMPLERS)]
# These need weights from the hub, or a GPU.
LEFT_OUT = "not Integration and not Ckpt and not DeviceMap and not Slow and not Nightly"
PRK = "betas|full_loop|inference_steps|prediction_type|schedules|step_shape|steps_offset|time_indices|timesteps"
NAMED = "beta_sigmas|custom_timesteps|exponential_sigmas|full_loop|solver_order_and_type|switch"
# A pattern of tests that are known to fail on ours, and why.
REASONS = {
    "pipelines/.*test_encode_prompt_works_in_isolation": "it looks the class up by its name in diffusers.pipelines",
    f"PNDMSchedulerTest::test_({PRK})": "it has skip_prk_steps=False, and PNDM always skips these steps",
    f"DPMSolverMultistepSchedulerTest::test_({NAMED})": "it has another algorithm, order or spacing than the sampler",
    "LMSDiscreteSchedulerTest::test_full_loop_with_noise": "it begins at a later step, where diffusers' order is wrong",
    "LCMSchedulerTest::test_trained_betas": "it has a numpy array of two betas for 1000 timesteps",
}


def run(mode: str, folder: Path, expression: str) -> dict[str, str]:
    """Run the tests on "stock" or "ours". Returns the outcome of each: passed, failed or skipped."""
    with tempfile.TemporaryDirectory() as work:
        results = Path(work) / "results.json"
        environment = os.environ | {
            "PEER": mode,
            "PEER_RESULTS": str(results),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        files = [f"tests/{file}" for file in FILES if (folder / "tests" / file).is_file()]
        options = ["-p", "peer_plugin", "-p", "no:cacheprovider", "-q", "-W", "ignore", "--tb=no", "-k", expression]
        command = [sys.executable, "-m", "pytest", *options, *files]
        subprocess.run(command, cwd=folder, env=environment, check=False)
        return json.loads(results.read_text())


def reason(test: str) -> str:
    """Return why a test that passes on stock is known to fail on ours, or UNEXPLAINED."""
    return next((text for pattern, text in REASONS.items() if re.search(pattern, test)), "UNEXPLAINED")


def report(stock: dict[str, str], ours: dict[str, str]) -> list[str]:
    """Return the lines of the report: the two counts, and each test that passes on stock and not on ours."""
    lines = []
    for kind in ("pipelines", "schedulers"):
        passed = [sum(f"/{kind}/" in test and end == "passed" for test, end in one.items()) for one in (stock, ours)]
        tests = sum(f"/{kind}/" in test for test in stock)
        lines.append(f"{kind}: stock passes {passed[0]} of {tests}, ours {passed[1]}")
    lost = [test for test, end in stock.items() if end == "passed" and ours.get(test) != "passed"]
    return lines + [f"{ours.get(test, 'missing')}: {test}: {reason(test)}" for test in lost]
