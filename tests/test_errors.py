"""Errors that the project raises on purpose are shown in one line. All others keep their traceback."""

import inspect
import subprocess
import sys
from subprocess import CalledProcessError

import pytest

from jsd import cli, errors, sampling
from jsd.errors import InputError, JSDError, shown

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]


def test_a_mistake_is_shown_in_one_line_with_exit_code_2():
    command = [sys.executable, "-m", "jsd", "generate", "-i", "seed=one"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: seed: 'one' was given; an integer is wanted, or null for the default\n"


@pytest.fixture
def generate(tiny_folder, tmp_path, monkeypatch):
    """A function that runs `generate` while `sampling.generate` raises a given error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")

    def generate(error: Exception) -> int:
        def fail(*_):
            raise error

        monkeypatch.setattr(sampling, "generate", fail)
        return cli.main(["generate", "-p", "猫"])

    return generate


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (JSDError("no more noise; draw less"), "no more noise; draw less"),
        (errors.NSFWError("every picture was flagged"), "every picture was flagged"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (CalledProcessError(3, ["git"]), "Command '['git']' returned non-zero exit status 3."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_error_ends_a_command_with_one_line(generate, capsys, error, line):
    assert generate(error) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {line}"


@pytest.mark.parametrize("error", [ValueError("a defect"), RuntimeError("a defect"), KeyError("a defect")], ids=repr)
def test_an_unexpected_error_keeps_its_traceback(generate, error):
    with pytest.raises(type(error), match="a defect"):
        generate(error)


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_class_derives_from_the_base_class(error_class):
    assert issubclass(error_class, JSDError)
    assert issubclass(error_class, ValueError)
    assert error_class.__doc__


def test_an_input_error_names_its_input():
    error = InputError("seed", "-1 was given; 0 to 5 are allowed")
    assert error.name == "seed"
    assert str(error) == "seed: -1 was given; 0 to 5 are allowed"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("猫", "'猫'"),
        ("\x1b[31m\u202e\n", r"'\x1b[31m\u202e\n'"),
        ("x" * 61, "'" + "x" * 60 + "'..."),
        (None, "None"),
        ([0.5, "a"], "[0.5, 'a']"),
        ([1] * 100, "[" + "1, " * 39 + "1," + "..."),
        (10**5000, "<int>"),
    ],
    ids=range(7),
)
def test_a_value_in_a_message_is_escaped_and_short(value, text):
    assert shown(value) == text


def test_a_value_that_is_nested_too_deeply_is_shown_by_its_class():
    value = []
    for _ in range(100_000):
        value = [value]
    assert shown(value) == "<list>"
