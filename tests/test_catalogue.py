"""Every message has a Japanese translation with the same placeholders, and every translation a message."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from string import Formatter

import pytest

from tests.messages import ROOT, messages

FOUND = list(messages())
# Names, figures and signs, which have no word in Japanese.
SAME = {"a DoRA", "a LoHa", "a LoKr", "an IP-Adapter", "a textual inversion", "GPUs", "{}: {:.1f} MB{}"}
SAME |= {"[Errno {}] {}: {!r}", "[Errno {}] {}", "{}: {}; {}", "{}: defaults: {}"}
ARGPARSE = "# argparse"  # the line of the catalogue after which its messages follow


@pytest.fixture(scope="module")
def script():
    """The module script/messages.py, which is in no package."""
    spec = spec_from_file_location("messages", ROOT / "script" / "messages.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def catalogue(script) -> dict[str, str]:
    """All translations by their messages."""
    found = script.read(script.CATALOGUE.read_text("utf-8"))
    return {message: said for message, said in found.items() if message}


def fields(template: str) -> list[tuple[str, str]]:
    """The fields of a template by the number of their value, each with its format; and those of argparse, with %."""
    if "%" in template and not re.search("{[^{}]*%}", template):
        return [(field, "") for field in sorted(re.findall(r"%(?:\(\w+\))?[sdr]", template))]
    parts = [part for part in Formatter().parse(template) if part[1] is not None]
    return sorted((name or str(i), f"{spec}!{way}") for i, (_, name, spec, way) in enumerate(parts))


def test_every_message_is_a_literal_template():
    assert [message.place for message in FOUND if message.template is None] == []


def test_a_template_has_a_field_for_each_value():
    assert [m.place for m in FOUND if m.template and m.values and len(fields(m.template)) != m.values] == []


def test_every_message_has_a_translation(catalogue):
    wanted = {m.template for m in FOUND if m.template and re.search("[A-Za-z]{2}", re.sub("{.*?}", "", m.template))}
    assert sorted(wanted - catalogue.keys()) == []


def test_every_translation_has_a_message(script):
    ours, _, _ = script.CATALOGUE.read_text("utf-8").partition(ARGPARSE)
    assert sorted(script.read(ours).keys() - {"", *(message.template for message in FOUND)}) == []


def test_translations_have_the_fields_of_their_messages(catalogue):
    # A message without values is no template: its braces mean themselves.
    valued = {m.template for m in FOUND if m.values} | {m for m in catalogue if "%" in m}
    both = [(message.partition("\0")[0], said) for message, said in catalogue.items() if message in valued]
    assert [message for message, said in both if fields(message) != fields(said)] == []


def test_translations_are_in_japanese(catalogue):
    assert {m for m, said in catalogue.items() if not re.search("[ぁ-んァ-ヶ一-龠]", said)} <= SAME


def test_the_compiled_catalogue_is_that_of_the_sources(script):
    entries = script.read(script.CATALOGUE.read_text("utf-8"))
    assert script.CATALOGUE.with_suffix(".mo").read_bytes() == script.compiled(entries), "run script/messages.py"
