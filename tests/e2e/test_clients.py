"""Other people's clients draw on the server by the examples of docs/api.md.

The npm packages are those of tests/clients/package-lock.json, installed into a temporary folder. What takes more than
a few seconds to install runs only when asked for: `script/test -m clients`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.page import Example, alike, examples
from tests.server import ROOT

CLIENTS = ROOT / "tests" / "clients"
EXAMPLES = examples(ROOT / "docs" / "api.md")
# What npm says when the registry is not to be had. A lock that does not fit has another code, and fails.
UNREACHABLE = re.compile(r"^npm error (network|code (ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|E[45]\d\d)).*", re.M)
TSCONFIG = {"compilerOptions": {"strict": True, "skipLibCheck": True, "target": "es2022", "module": "nodenext"}}
REPLICATE_2 = "replicate==2.0.0b4"
FAILING_CALLS = """
import { writeFile } from "node:fs/promises";
import Replicate from "replicate";
const replicate = new Replicate({ auth: "unused", baseUrl: "URL" });
const input = { seed: 1 };
const tell = (name, call) =>
  call.then((value) => console.log(name, value), (error) => console.log(name, error.message));
await tell("no version", replicate.run("x/y", { input }));
await tell("get", replicate.predictions.get("nobody"));
await tell("list", replicate.predictions.list());
await tell("stream", replicate.stream("x/y:z", { input }).next());
await tell("failed", replicate.run("x/y:z", { input: { width: 65 } }));
await tell("refused", replicate.run("x/y:z", { input: { seed: -1 } }));
const late = { ...input, num_inference_steps: 100 };
await tell("signal in run", replicate.run("x/y:z", { input: late, signal: AbortSignal.timeout(50) }));
const slow = { version: "z", input: { num_inference_steps: 500 }, signal: AbortSignal.timeout(300) };
await tell("signal in create", replicate.predictions.create(slow));
const [text] = await new Replicate({ baseUrl: "URL", auth: "unused", useFileOutput: false }).run("x/y:z", { input });
console.log("data URI", text.slice(0, 22));
const broken = new Replicate({ auth: "unused", baseUrl: "URL", fileEncodingStrategy: "data-uri" });
const { status, metrics } = await broken.predictions.create({ version: "z", input });
console.log("inputs lost", status, metrics.seeds[0] !== 1);
"""
FAILING_ANSWERS = """
no version Request to ... failed with status 404 ...
get Request to ... failed with status 405 ...
list Request to ... failed with status 405 ...
stream Prediction does not support streaming
failed Prediction failed: ... width: 65 was given; ...
refused Request to ... failed with status 422 ...
signal in run Request to ... failed with status 404 ...
signal in create ...abort...
data URI data:image/png;base64,
inputs lost succeeded true
"""


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Run a command in a folder and return what it prints. Fails if the command does."""
    run = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def npm_folder(folder: Path, *options: str) -> Path:
    """Install the npm packages into the folder and return it. Skips the test where that can't be done."""
    for needed in ("node", "npm"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not here")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, folder)
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=30000"]
    install = subprocess.run(["npm", "ci", *quiet, *options], cwd=folder, capture_output=True, text=True, timeout=300)
    if install.returncode and (reason := UNREACHABLE.search(install.stderr)):
        pytest.skip(f"npm can't fetch the packages: {reason[0]}")
    assert install.returncode == 0, install.stderr
    return folder


def pip_folder(folder: Path, *wanted: str) -> Path:
    """Install Python packages into the folder and return it. Skips the test where that can't be done."""
    quiet = ["--quiet", "--disable-pip-version-check", "--retries=0", "--timeout=30"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--target", folder, *wanted]
    install = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if install.returncode:
        pytest.skip(f"pip can't install {' '.join(wanted)}: {install.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="module")
def asked_for(request: pytest.FixtureRequest) -> None:
    """Skips the test unless it was asked for."""
    if "clients" not in request.config.getoption("markexpr"):
        pytest.skip("takes seconds to install; runs with -m clients")


@pytest.fixture(scope="module")
def npm_replicate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm_folder(tmp_path_factory.mktemp("replicate"), "--omit=dev")


@pytest.fixture(scope="module")
def generators(asked_for, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = npm_folder(tmp_path_factory.mktemp("generators"))
    (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG | {"include": ["*.ts", "client"]}))
    return folder


@pytest.fixture(scope="module")
def python_clients(asked_for, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_folder(tmp_path_factory.mktemp("python"), "-r", str(CLIENTS / "requirements.txt"))


@pytest.fixture
def page(tiny_server, photo, tmp_path: Path) -> Iterator[Callable[..., list[Example]]]:
    """A function that returns the examples below a heading of the page, with the address of the server in them."""

    def below(heading: str) -> list[Example]:
        found = [example for example in EXAMPLES if example.heading.startswith(heading)]
        assert found, heading
        local = [example.code.replace("http://127.0.0.1:5000", tiny_server.url) for example in found]
        return [Example(e.heading, e.language, code, e.output) for e, code in zip(found, local, strict=True)]

    photo.save(tmp_path / "cat.png")
    return below


def test_npm_replicate_draws(page, npm_replicate, photo):
    photo.save(npm_replicate / "cat.png")
    for example in page("npm `replicate`"):
        (npm_replicate / "use.mjs").write_text(example.code, "utf-8")
        assert alike(example.output or "", run(["node", "use.mjs"], npm_replicate))
    assert (npm_replicate / "fuji.png").read_bytes().startswith(b"\x89PNG")


def test_npm_replicate_fails_where_the_page_says_so(tiny_server, npm_replicate):
    (npm_replicate / "failing.mjs").write_text(FAILING_CALLS.replace("URL", tiny_server.url), "utf-8")
    printed = run(["node", "failing.mjs"], npm_replicate)
    assert alike(FAILING_ANSWERS, printed), printed


@pytest.mark.clients
@pytest.mark.parametrize("name", ["@hey-api/openapi-ts", "openapi-typescript"])
def test_a_generated_typescript_client_compiles_and_draws(page, generators, name):
    command, use = page(name)
    run(["bash", "-euc", command.code], generators)
    (generators / "use.ts").write_text(use.code, "utf-8")
    run([generators / "node_modules" / ".bin" / "tsc"], generators)
    assert alike(use.output, run(["node", "use.js"], generators))


@pytest.mark.clients
def test_a_generated_python_client_draws(page, python_clients, tmp_path):
    command, use = page("openapi-python-client")
    environment = {"PYTHONPATH": str(python_clients), "PATH": f"{python_clients / 'bin'}:{os.environ['PATH']}"}
    run(["bash", "-euc", command.code], tmp_path, **environment)
    environment["PYTHONPATH"] += f":{tmp_path / 'client'}"
    assert alike(use.output, run([sys.executable, "-c", use.code], tmp_path, **environment))


@pytest.mark.clients
def test_python_replicate_draws(page, python_clients, tmp_path, tmp_path_factory):
    as_it_is, with_transport = page("Python `replicate`")
    printed = run([sys.executable, "-c", with_transport.code], tmp_path, PYTHONPATH=str(python_clients))
    assert alike(with_transport.output, printed)
    newer = pip_folder(tmp_path_factory.mktemp("replicate"), REPLICATE_2)
    run([sys.executable, "-c", as_it_is.code], tmp_path, PYTHONPATH=str(newer))
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
