"""Train a Japanese sentencepiece tokenizer in the layout that today's T5Tokenizer and `jsd.tokenizer` both read."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

EDGE = "|"  # in a training text: no piece may cross this place


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int, max_length: int) -> None:
    """Write `spiece.model` and `tokenizer_config.json` into `folder`.

    A unigram model with every character of `texts` and NFKC + case folding inside it, so that half- and full-width
    spellings are one. Ids in T5's order (pad 0, eos 1, unk 2). No byte fallback: transformers' T5Tokenizer switches it
    off, and both must agree. The texts may hold EDGE around words: no piece then swallows two of them, as 猫の肖像画
    in one piece would, which does not compose. `vocab_size` is an upper bound. Raises RuntimeError (from sentencepiece)
    when the texts have more characters than that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "spiece.tmp"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(prefix),
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pretokenization_delimiter=EDGE,
        minloglevel=2,
    )
    prefix.with_name("spiece.tmp.vocab").unlink()
    config = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": max_length,
        "extra_ids": 0,
        "additional_special_tokens": [],
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    os.replace(prefix.with_name("spiece.tmp.model"), folder / "spiece.model")
