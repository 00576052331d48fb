"""locks/ holds every package that is installed, in the version that requirements.txt and pyproject.toml ask for."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OURS = "japanese-stable-diffusion"
BY_COG = {"cog", "coglet"}  # Cog installs them itself
CUDA = re.compile("(cuda|nvidia|triton)(-|$)")  # needed by torch's builds for CUDA only


def pins(lines: list[str]) -> dict[str, str]:
    """Read lines of the form name==version, with or without a comment. Raises an AssertionError for any other line."""
    found = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        # Cog reads these lines by a pattern of its own, which knows no dots in names, no extras and no spaces.
        assert re.fullmatch(r"[A-Za-z0-9_-]+==[0-9a-z.]+", line), line
        name, _, version = line.partition("==")
        found[canonicalize_name(name)] = version
    return found


def lock(name: str) -> dict[str, str]:
    return pins((ROOT / "locks" / name).read_text().splitlines())


CONTAINER, HOST = lock("container.txt"), lock("host.txt")
REQUIRED = pins((ROOT / "requirements.txt").read_text().splitlines())
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def needed(*extras: str) -> set[str]:
    """The packages that this project needs here with these extras, directly or not, without those of CUDA."""
    seen, waiting = set(), [(OURS, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or CUDA.match(name):
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)]
    return {name for name, _ in seen} - {OURS}


def test_the_locks_have_the_versions_that_are_asked_for():
    """If this fails, requirements.txt or pyproject.toml has changed since script/lock was run."""
    own = [pin for pins in EXTRAS.values() for pin in pins if not pin.startswith(OURS)]
    assert (REQUIRED | pins(own)).items() <= HOST.items()
    assert {name: REQUIRED[name] for name in REQUIRED.keys() - BY_COG}.items() <= CONTAINER.items()


def test_both_locks_have_the_same_versions():
    both = CONTAINER.keys() & HOST.keys()
    assert both >= REQUIRED.keys() - BY_COG
    assert {name: CONTAINER[name] for name in both} == {name: HOST[name] for name in both}


def test_cog_installs_the_sdk_that_the_project_is_tested_with_and_is_not_told_twice():
    build = yaml.safe_load((ROOT / "cog.yaml").read_text())["build"]
    assert build["python_requirements"] == "locks/container.txt"
    assert build["sdk_version"] == REQUIRED["cog"] == HOST["cog"]
    assert BY_COG.isdisjoint(CONTAINER)


def test_every_package_that_is_needed_is_locked():
    assert needed("dev") <= HOST.keys()
    assert needed() - BY_COG <= CONTAINER.keys()
    assert len(needed()) > len(REQUIRED)


def test_the_container_has_torch_for_the_cuda_that_cog_is_told():
    cuda = yaml.safe_load((ROOT / "cog.yaml").read_text())["build"]["cuda"]
    assert CONTAINER["nvidia-cuda-runtime"].startswith(f"{cuda}.")
    assert not any(map(CUDA.match, HOST))


def test_what_is_installed_here_is_what_is_locked():
    here = {canonicalize_name(found.name): found.version.partition("+")[0] for found in metadata.distributions()}
    both = HOST.keys() & here.keys()  # 2.13.0+cpu is a build of 2.13.0
    assert "torch" in both
    assert {name: here[name] for name in both} == {name: HOST[name] for name in both}
