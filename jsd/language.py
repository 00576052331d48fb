"""The language of what a user reads: English, or Japanese where JSD_LANG or else the locale says so.

A sentence is a `Text`, made from an English template and its values; every error has one. The catalogue
`jsd/locale/ja/LC_MESSAGES/jsd.po` has the Japanese templates, and script/messages.py compiles it. What programs read is
never translated.
"""

from __future__ import annotations

import gettext
import io
import os
import sys
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "ja")
DOMAIN = "jsd"
LOCALE = Path(__file__).parent / "locale"


def language() -> str:
    """Return "en" or "ja": that of JSD_LANG or, if it is neither, of the locale, by the variables that gettext reads.

    Of several languages in LANGUAGE, the first that there is counts, but none where the locale is C. English if there
    is none.
    """
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    several = "" if locale.partition(".")[0] in ("C", "POSIX") else os.environ.get("LANGUAGE")
    if (own := os.environ.get("JSD_LANG")) in LANGUAGES:
        return own
    found = (name.strip().lower()[:2] for name in (several or locale).split(":"))
    return next((known for known in found if known in LANGUAGES), "en")


def speak() -> None:
    """Make argparse, whose words are in the catalogue too, speak the language of this process: for a command line."""
    os.environ["LANGUAGE"] = language()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # its encoding may have no Japanese
    gettext.bindtextdomain(DOMAIN, LOCALE)
    gettext.textdomain(DOMAIN)


class Text(str):
    """A sentence in the language of the process. `said_in` says it in another.

    `template` is English, with {} for each of the `values`, as in `str.format`. It is a literal where a text is made,
    as the catalogue is looked up by it. A template without values may have braces. Values that are texts, or errors
    with one, are translated too.
    """

    template: str
    values: tuple[object, ...]

    def __new__(cls, template: str, /, *values: object) -> Text:
        if isinstance(template, Text):
            return template
        values = tuple(_message(value) if isinstance(value, BaseException) else value for value in values)
        self = super().__new__(cls, _filled(template, values, language()))
        self.template, self.values = template, values
        return self


def said_in(chosen: str, message: object) -> str:
    """Return a text, or the message of an error, in the language `chosen`. Anything else is returned as a string."""
    message = _message(message) if isinstance(message, BaseException) else message
    return _filled(message.template, message.values, chosen) if isinstance(message, Text) else str(message)


def english(message: object) -> str:
    """Return a text, or the message of an error, in English: for logs, and for files that programs read."""
    return said_in("en", message)


def _message(error: BaseException) -> str:
    """Return what an error says, as a `Text` if it has one. The error itself would keep a traceback alive."""
    if isinstance(error, OSError) and error.strerror and error.filename2 is None:
        named = Text("[Errno {}] {}: {!r}", error.errno, Text(error.strerror), error.filename)
        return named if error.filename is not None else Text("[Errno {}] {}", error.errno, Text(error.strerror))
    return error.args[0] if len(error.args) == 1 and isinstance(error.args[0], Text) else str(error)


def _filled(template: str, values: tuple[object, ...], chosen: str) -> str:
    sentence = _catalogue(chosen).gettext(template) if template else ""  # gettext("") is the catalogue's header
    return sentence.format(*(said_in(chosen, v) if isinstance(v, Text) else v for v in values)) if values else sentence


@cache
def _catalogue(chosen: str) -> gettext.NullTranslations:
    return gettext.NullTranslations() if chosen == "en" else gettext.translation(DOMAIN, LOCALE, [chosen])
