"""The messages in the sources: what `jsd.language.Text` and the errors are made from, found by reading the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulk.ray_pool import PoolError
from bulk.rows import UnreadableFileError
from jsd import errors
from serving.slots import ServerEndsError

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("jsd", "serving", "bulk", "embedded", "demo")
OURS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.JSDError)}
NAMED = {errors.InputError.__name__, UnreadableFileError.__name__}  # they begin with the name of an input
OURS |= NAMED | {PoolError.__name__, ServerEndsError.__name__}
SAYING = {"OSError", "ValueError", "TypeError", "RuntimeError", "ArgumentTypeError", "warn", "print"}  # not ours
ARGUMENTS = {"add_argument", "add"}  # whose help is translated by `jsd.cli.CommandParser`


@dataclass(frozen=True)
class Message:
    """A place in the sources where a message is made. `template` is None if it is no literal."""

    place: str
    template: str | None
    values: int | None  # how many there are, None if that can't be told from the source


def messages() -> Iterator[Message]:
    """All messages of the sources, and `Message`s without a template for those that can't be translated."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    for file in [*files, ROOT / "predict.py", ROOT / "script" / "healthcheck"]:
        name = file.relative_to(ROOT).as_posix()
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for message, values in _made_by(node, name):
                    text = message.value if isinstance(message, ast.Constant) else None
                    if getattr(message, "id", "") == "__doc__":
                        text = ast.get_docstring(tree, clean=False)
                    yield Message(f"{name}:{node.lineno}", text, values)


def _made_by(call: ast.Call, file: str) -> Iterator[tuple[ast.expr, int | None]]:
    """What a call says to the user: the node of the template, and the number of its values."""
    function = call.func
    name = getattr(function, "id", getattr(function, "attr", ""))
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    begin = 1 if name in NAMED else 0
    if (name == "Text" or name in OURS) and len(call.args) > begin and not isinstance(call.args[begin], ast.Starred):
        is_docstring = getattr(call.args[begin], "id", "") == "__doc__"
        if is_docstring or isinstance(call.args[begin], ast.Constant | ast.JoinedStr | ast.BinOp):
            yield call.args[begin], None if starred else len(call.args) - begin - 1
    elif name in SAYING and _is_for_users(file) and call.args and _is_string(call.args[0]) and _has_words(call.args[0]):
        yield ast.Tuple([]), None
    for keyword in call.keywords if _is_for_users(file) else ():
        if keyword.arg == "help" and name in ARGUMENTS and _is_string(keyword.value):
            yield keyword.value, None
        elif keyword.arg in ("help", "description") and "pars" in name.lower() and _is_string(keyword.value):
            yield ast.Tuple([]), None


def _is_for_users(file: str) -> bool:
    # What the others print is a server's log, or they are called by this project alone.
    return not file.startswith(("serving/", "embedded/scenes/")) and file not in ("predict.py", "jsd/graphs.py")


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _has_words(node: ast.expr) -> bool:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(c.isalpha() for part in parts if isinstance(part, ast.Constant) for c in part.value)
