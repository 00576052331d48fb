"""The Japanese tokenizer: a thin wrapper around sentencepiece that turns a text into token ids for CLIP's text encoder.

The sentencepiece model normalises the text (NFKC), splits it and numbers the pieces. This module lower-cases the text
if the model was trained on lower case, cuts off what is too long, and adds the end token and padding. No text can
become a control token.

Before that it mends two things that people type without seeing them: ー written as another dash (ケ-キ, 東京タワ−), and
invisible characters. Only characters that are in none of the vocabulary's pieces are changed, since any others are what
the model was trained on. So texts that the tokenizer of 2022 knew give the ids of 2022.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from jsd.errors import WeightsError, shown
from jsd.language import Text
from jsd.request import BLANKS
from jsd.spelling import Spellings

SPELLINGS = "spellings.json"  # beside the other files of a tokenizer
# A config with a larger model_max_length is refused: transformers writes 1e30 for "no limit".
LONGEST = 10_000
# Dashes and tildes that people type for ー after kana: hyphens, minus signs, rules, Hangul ㅡ. Not the kanji 一.
DASHES = (
    r"\-~\u02d7\u058a\u05be\u1173\u1806\u2010-\u2015\u2043\u2053\u207b\u208b\u2212\u223c\u23af\u23e4\u2500\u2501"
    r"\u254c\u254d\u2574\u2576\u2578\u257a\u2796\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\u3161\ufe58\ufe63\uff0d\uff5e\uffda"
)
OVERLINES = r"\u00af\u02c9\u203e\uffe3"  # only between kana, because at the end of a word they are a face's: ヽ(ー￣
KANA = r"\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
LENGTHENING = re.compile(f"(?<=[{KANA}])(?:[{DASHES}]+|[{OVERLINES}]+(?=[{KANA}]))")
# Variation selectors (of emoji and of kanji) and the grapheme joiner. Format characters (Cf) are invisible as well.
SELECTORS = re.compile(r"[\u034f\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@dataclass(frozen=True)
class Tokens:
    """A tokenized text: `max_length` token `ids`, padded. `used` of them are text, `dropped` more were cut off.

    `unknown` are the characters of the text that the vocabulary does not have, in their order.
    """

    ids: list[int]
    used: int
    dropped: int
    unknown: str = ""


class Tokenizer:
    """Turns a text into `max_length` token ids: the text, one end token, padding.

    `pad_token` names the padding piece if the sentencepiece model has no padding id (rinna's uses "[PAD]"). Raises
    `WeightsError` if the file can't be read or has no end or padding token, or if `max_length` is out of range.
    """

    def __init__(
        self, model_file: str | Path, max_length: int, do_lower_case: bool = False, pad_token: str | None = None
    ):
        self.max_length = max_length
        self.do_lower_case = do_lower_case
        self.spellings: Spellings | None = None
        self.pieces = SentencePieceProcessor()
        try:
            self.pieces.Load(str(model_file))
        except (OSError, RuntimeError) as error:
            raise WeightsError("{}: not a sentencepiece model ({}); restore the file", model_file, error) from error
        self.vocabulary_size = len(self.pieces)
        self.eos_id = self.pieces.eos_id()
        self.pad_id = self._find_pad(pad_token)
        if self.eos_id < 0 or self.pad_id < 0:
            missing = Text("an end") if self.eos_id < 0 else Text("a padding")
            raise WeightsError(
                "{}: has no {} token; take the tokenizer the model was trained with", model_file, missing
            )
        if not 2 <= max_length <= LONGEST:
            raise WeightsError("{}: a length of {} tokens; 2 to {} are allowed", model_file, shown(max_length), LONGEST)
        self.alphabet = frozenset(
            character
            for i in range(self.vocabulary_size)
            if not (self.pieces.is_control(i) or self.pieces.is_unknown(i) or self.pieces.is_byte(i))
            for character in self.pieces.id_to_piece(i)
        )
        # sentencepiece reads control symbols in a text as plain characters, but not user-defined ones like rinna's
        # "[PAD]". These are spelled out here.
        self._spelled = {
            i: [self.pieces.piece_to_id(c) for c in self.pieces.id_to_piece(i)]
            for i in range(self.vocabulary_size)
            if self._is_mark(i)
        }

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Make a tokenizer from the files `spiece.model` and `tokenizer_config.json` of `folder`.

        Raises `WeightsError`, which names the file that is missing or wrong.
        """
        folder = Path(folder)
        config_file = folder / "tokenizer_config.json"
        try:
            config = json.loads(config_file.read_text(encoding="utf-8"))
            max_length = int(config["model_max_length"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                "{}: no readable model_max_length ({}); restore the file", config_file, repr(error)
            ) from error
        pad_token = config.get("pad_token")
        if isinstance(pad_token, dict):  # an AddedToken, as transformers saves it
            pad_token = pad_token.get("content")
        tokenizer = cls(folder / "spiece.model", max_length, bool(config.get("do_lower_case", False)), pad_token)
        if (folder / SPELLINGS).is_file():
            tokenizer.spellings = Spellings.from_file(folder / SPELLINGS, tokenizer.knows)
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the token ids of the whole `text`, without end token and padding."""
        return self._ids(self._split(text))

    def __call__(self, text: str) -> Tokens:
        """Return the `Tokens` of a text. Tokens after the first `max_length - 1` are cut off and counted."""
        pieces = self._split(text)
        ids = self._ids(pieces)
        unknown = "".join(surface for i, surface in pieces if i == self.pieces.unk_id())
        kept = ids[: self.max_length - 1]
        padding = [self.pad_id] * (self.max_length - 1 - len(kept))
        return Tokens([*kept, self.eos_id, *padding], len(kept), len(ids) - len(kept), unknown)

    def mend(self, text: str) -> str:
        """Return `text` with ー for other dashes after kana, and without invisible characters, where it changes only
        characters that are in no piece of the vocabulary.
        """
        text = "".join(c for c in text if not invisible(c) or self.knows(c))
        if "ー" not in self.alphabet:
            return text
        return LENGTHENING.sub(lambda m: "".join(c if self.knows(c) else "ー" for c in m[0]), text)

    def _split(self, text: str) -> list[tuple[int, str]]:
        """Return the sentencepiece pieces of a text, each as its id and its part of the text."""
        text = self.mend(text)
        text = self.spellings.unify(text) if self.spellings else text
        text = text.lower() if self.do_lower_case else text
        found = self.pieces.encode(text, return_type="offset_mapping")  # "proto" needs the package protobuf
        return [(i, text[begin:end]) for i, (begin, end) in zip(found["ids"], found["offsets"], strict=True)]

    def _ids(self, pieces: Sequence[tuple[int, str]]) -> list[int]:
        return [i for piece, _ in pieces for i in self._spelled.get(piece, [piece])]

    def knows(self, character: str) -> bool:
        """Whether the vocabulary has a character, as NFKC writes it. (Sentencepiece reads some others as spaces.)"""
        return self.alphabet.issuperset(unicodedata.normalize("NFKC", character))

    def _find_pad(self, pad_token: str | None) -> int:
        if pad_token is not None:
            pad_id = self.pieces.piece_to_id(pad_token)
            if self.pieces.id_to_piece(pad_id) == pad_token:  # a missing piece would get the id of the unknown token
                return pad_id
        return self.pieces.pad_id()

    def _is_mark(self, i: int) -> bool:
        """Whether piece `i` is a mark (the padding, "[...]" or "<...>") that sentencepiece would find in a text."""
        piece = self.pieces.id_to_piece(i)
        plain = not (self.pieces.is_control(i) or self.pieces.is_unknown(i) or self.pieces.is_byte(i))
        return plain and (i == self.pad_id or (len(piece) > 2 and (piece[0], piece[-1]) in {("<", ">"), ("[", "]")}))


def invisible(character: str) -> bool:
    """Whether a character shows nothing: a format character, a variation selector, a filler."""
    return unicodedata.category(character) == "Cf" or character in BLANKS or SELECTORS.match(character) is not None
