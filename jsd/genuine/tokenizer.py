"""The tokenizer of the pipelines: our `Tokenizer` as one of transformers, which other people's code can use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import PreTrainedTokenizer

from jsd.genuine.configs import tokenizer_config
from jsd.genuine.folder import write_json
from jsd.tokenizer import SPELLINGS, Tokenizer


class PipelineTokenizer(PreTrainedTokenizer):
    """A `jsd.tokenizer.Tokenizer` with all that transformers' tokenizers have. `tokenizer` is the one that it wraps.

    A text gives the ids of that tokenizer: no text becomes a control token. Only tokens that are added, such as those
    of textual inversions, are found in a text as they are written.
    """

    model_input_names: ClassVar = ["input_ids", "attention_mask"]

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        piece = tokenizer.pieces.id_to_piece
        super().__init__(
            eos_token=piece(tokenizer.eos_id),
            pad_token=piece(tokenizer.pad_id),
            unk_token=piece(tokenizer.pieces.unk_id()),
            model_max_length=tokenizer.max_length,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *_: Any, **__: Any) -> Self:
        """Read the files that `save_pretrained` writes. Raises `WeightsError`, which names a file that is wrong."""
        return cls(Tokenizer.from_folder(pretrained_model_name_or_path))

    @property
    def vocab_size(self) -> int:
        """The number of tokens, without those that were added."""
        return self.tokenizer.vocabulary_size

    @property
    def added(self) -> dict[str, int]:
        """The tokens that were added to those of the model, with their ids."""
        return {token: i for token, i in self._added_tokens_encoder.items() if i >= self.vocab_size}

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token, those included that were added."""
        pieces = self.tokenizer.pieces
        return {pieces.id_to_piece(i): i for i in range(self.vocab_size)} | self.added

    def tokenize(self, text: str, **_: Any) -> list[str]:
        """Split a text into tokens, without end token and padding."""
        added = self.added
        tokens = []
        # The parts between added tokens are joined, because the trie also splits at the control tokens.
        for apart, run in groupby(self.tokens_trie.split(text), added.__contains__):
            words = list(run)
            tokens += words if apart else self._split("".join(words))
        return tokens

    def _split(self, text: str) -> list[str]:
        return [self.tokenizer.pieces.id_to_piece(i) for i in self.tokenizer.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.tokenizer.pieces.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.tokenizer.pieces.id_to_piece(index)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens to a text. Special and added tokens stand in it as they are, between spaces."""
        runs = groupby(tokens, self._added_tokens_encoder.__contains__)
        return " ".join(
            word for apart, run in runs for word in (run if apart else [self.tokenizer.pieces.decode(list(run))])
        )

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return the ids with the end token behind them."""
        return [*token_ids_0, *(token_ids_1 or []), self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return a 1 for every token that is not of the text, and a 0 for the others."""
        ids = (
            token_ids_0
            if already_has_special_tokens
            else self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        )
        special = {self.eos_token_id, self.pad_token_id}
        return [int(i in special) for i in ids]

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> tuple[str, ...]:
        """Write `spiece.model` and `tokenizer_config.json`, which our `Tokenizer` reads and transformers' T5Tokenizer,
        and `spellings.json`, which only ours reads, if there are any.

        Added tokens are not saved. Returns the paths of the files.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "spiece.model", folder / "tokenizer_config.json"]
        files[0].write_bytes(self.tokenizer.pieces.serialized_model_proto())
        write_json(files[1], tokenizer_config(self.tokenizer))
        if self.tokenizer.spellings:
            files.append(folder / SPELLINGS)
            write_json(files[2], self.tokenizer.spellings.table)
        return tuple(map(str, files))
