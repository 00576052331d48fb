#!/usr/bin/env python3
"""Compile the catalogue of Japanese messages, jsd/locale/ja/LC_MESSAGES/jsd.po, to the jsd.mo beside it.

    script/messages.py

Run it after a change of jsd.po. The messages themselves are in the sources: a test tells which are missing there.
"""

import ast
import re
import struct
from pathlib import Path

CATALOGUE = Path(__file__).resolve().parent.parent / "jsd/locale/ja/LC_MESSAGES/jsd.po"
ENTRY = re.compile(r'^msgid ((?:".*"\n)+)(?:msgid_plural ((?:".*"\n)+)msgstr\[0\]|msgstr) ((?:".*"(?:\n|\Z))+)', re.M)


def read(text: str) -> dict[str, str]:
    """Return the entries of a .po file, without its header: the translation of each message.

    A message with a plural is both of its forms, parted by NUL, as in a .mo file. Raises `ValueError` for one that is
    there twice.
    """
    entries = {}
    for singular, plural, translation in ENTRY.findall(text):
        message = "\0".join("".join(map(ast.literal_eval, part.splitlines())) for part in (singular, plural) if part)
        if message in entries:
            raise ValueError(f"{message!r} is there twice")
        entries[message] = "".join(map(ast.literal_eval, translation.splitlines()))
    return entries


def compiled(entries: dict[str, str]) -> bytes:
    """Return the bytes of a .mo file: sorted, without a hash table (GNU gettext's manual, 10.3)."""
    pairs = sorted((message.encode(), translation.encode()) for message, translation in entries.items())
    start = 28 + 16 * len(pairs)
    strings, tables = b"", [b"", b""]
    for table in (0, 1):
        for pair in pairs:
            tables[table] += struct.pack("<2I", len(pair[table]), start + len(strings))
            strings += pair[table] + b"\0"
    return struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start) + b"".join(tables) + strings


if __name__ == "__main__":
    CATALOGUE.with_suffix(".mo").write_bytes(compiled(read(CATALOGUE.read_text("utf-8"))))
