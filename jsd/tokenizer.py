"""The Japanese tokenizer: a thin wrapper around sentencepiece that turns a text into token ids for CLIP's text encoder.

The sentencepiece model normalises the text (NFKC), splits it and numbers the pieces. This module lower-cases the text
if the model was trained on lower case, cuts off what is too long, and adds the end token and padding. No text can
become a control token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from jsd.errors import WeightsError, shown

# A config with a larger model_max_length is refused: transformers writes 1e30 for "no limit".
LONGEST = 10_000


@dataclass(frozen=True)
class Tokens:
    """A tokenized text: `max_length` token `ids`, padded. `used` of them are text, `dropped` more were cut off."""

    ids: list[int]
    used: int
    dropped: int


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
        self.pieces = SentencePieceProcessor()
        try:
            self.pieces.Load(str(model_file))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"{model_file}: not a sentencepiece model ({error}); restore the file") from error
        self.vocabulary_size = len(self.pieces)
        self.eos_id = self.pieces.eos_id()
        self.pad_id = self._find_pad(pad_token)
        if self.eos_id < 0 or self.pad_id < 0:
            missing = "an end" if self.eos_id < 0 else "a padding"
            raise WeightsError(f"{model_file}: has no {missing} token; take the tokenizer the model was trained with")
        if not 2 <= max_length <= LONGEST:
            raise WeightsError(f"{model_file}: a length of {shown(max_length)} tokens; 2 to {LONGEST} are allowed")
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
            raise WeightsError(f"{config_file}: no readable model_max_length ({error!r}); restore the file") from error
        pad_token = config.get("pad_token")
        if isinstance(pad_token, dict):  # an AddedToken, as transformers saves it
            pad_token = pad_token.get("content")
        return cls(folder / "spiece.model", max_length, bool(config.get("do_lower_case", False)), pad_token)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of the whole `text`, without end token and padding."""
        if self.do_lower_case:
            text = text.lower()
        return [i for piece in self.pieces.encode(text) for i in self._spelled.get(piece, [piece])]

    def __call__(self, text: str) -> Tokens:
        """Return the `Tokens` of a text. Tokens after the first `max_length - 1` are cut off and counted."""
        ids = self.encode(text)
        kept = ids[: self.max_length - 1]
        padding = [self.pad_id] * (self.max_length - 1 - len(kept))
        return Tokens(ids=[*kept, self.eos_id, *padding], used=len(kept), dropped=len(ids) - len(kept))

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
