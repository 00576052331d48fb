"""The order of the house: who imports whom, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 250  # lines
SOURCES = ("*.py", *(f"{name}/**/*.py" for name in ("jsd", "embedded", "serving", "demo", "bulk")))

# A module imports only from the layers above its own. A package stands for its modules, which may import each other.
LAYERS = [
    ("jsd.version", "jsd.language", "jsd.atomic", "jsd.letters", "jsd.attention"),
    ("jsd.errors", "jsd.cpu"),
    ("jsd.checks", "jsd.containers", "jsd.pixels", "jsd.spelling"),
    ("jsd.request", "jsd.device", "jsd.lora", "jsd.infotext", "jsd.clip_input"),
    ("jsd.tokenizer", "jsd.schedulers", "jsd.manifest", "jsd.images", "jsd.watermark", "jsd.safety", "jsd.vae"),
    ("jsd.adapters",),
    ("jsd.model", "jsd.graphs", "jsd.schedule", "jsd.source", "jsd.result", "jsd.inputs", "jsd.prompt"),
    ("jsd.job",),
    ("jsd.sampling", "jsd.genuine"),
    ("jsd.batch",),
    ("jsd.engine", "jsd.train"),
    ("jsd.settings", "serving", "japanese_stable_diffusion"),
    ("jsd.cli", "predict"),
    ("jsd.__main__", "embedded", "demo", "bulk"),
]
# package: the only modules that import it
ONLY = {
    "cog": {"predict"},
    "coglet": {"serving.slots"},
    "gradio": {"demo.page", "demo.form", "demo.editor"},
    "ray": {"bulk.ray_pool"},
}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for pattern in SOURCES for file in ROOT.glob(pattern)}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `tree`, without those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node)


def imports(file: Path) -> set[str]:
    """The modules that a file imports, at its top or in a function. `import_module` does not count."""
    found = set()
    for node in nodes(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found


IMPORTS = {name: imports(file) for name, file in FILES.items()}


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer(name: str) -> tuple[int, str]:
    """The number of a module's layer, and its entry there."""
    found = [(i, entry) for i, entries in enumerate(LAYERS) for entry in entries if inside(name, entry)]
    assert len(found) == 1, f"{name} needs exactly one place in LAYERS"
    return found[0]


def test_no_circle_of_imports():
    order = list(TopologicalSorter(IMPORTS).static_order())  # raises CycleError, which names the circle
    assert order.index("jsd.errors") < order.index("predict")


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"jsd"}))
def test_a_module_imports_only_from_higher_layers(name):
    number, entry = layer(name)
    others = [other for other in IMPORTS[name] & FILES.keys() - {"jsd"} if not inside(other, entry)]
    assert [other for other in others if layer(other)[0] >= number] == []


@pytest.mark.parametrize("package", ONLY)
def test_a_package_is_imported_only_by_its_adapter(package):
    assert {name for name, found in IMPORTS.items() if any(inside(i, package) for i in found)} == ONLY[package]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git lists the files")
def test_no_file_is_too_long():
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    lines = {file.relative_to(ROOT): len(file.read_text("utf-8").splitlines()) for file in files}
    assert {file: count for file, count in lines.items() if count > LONGEST} == {}


def test_importing_jsd_imports_no_torch():
    code = "import sys, jsd.cli, jsd.request; print(sorted({'torch', 'diffusers', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
