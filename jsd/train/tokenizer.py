"""Train a Japanese sentencepiece tokenizer that transformers' T5Tokenizer and `jsd.tokenizer` both read.

python -m jsd train tokenizer CAPTIONS... --to runs/tokenizer
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece
from tqdm import tqdm

from jsd.atomic import atomic_file, write_text
from jsd.errors import SampleError, TrainingError
from jsd.language import Text
from jsd.tokenizer import LONGEST, Tokenizer
from jsd.train.options import check_folder, number, whole
from jsd.train.samples import caption_of
from jsd.train.shards import Skipped, find_shards, raw_samples

EDGE = "\ue000"  # a private-use character. No piece crosses the places of a training text that it marks.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = Text("Train a tokenizer on nine tenths of the captions, and measure it on the rest.")
    parser.add_argument("captions", nargs="+", help="text files with one caption per line, or webdataset shards")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the tokenizer is written")
    parser.add_argument(
        "--vocab-size",
        type=whole(4, 1_000_000),
        default=32_000,
        help="the largest number of tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        type=whole(2, LONGEST),
        default=77,
        help="token ids per caption, with the end token (default: %(default)s)",
    )
    parser.add_argument(
        "--character-coverage",
        type=number(0.98, 1),
        default=0.9999,
        help="the share of characters to keep, 0.98 to 1; the rarest become unknown (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=whole(),
        default=10_000_000,
        help="the largest number of captions to read (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Train a tokenizer, and print its scores on held-out captions. Too few captions raise `TrainingError`."""
    check_folder("--to", arguments.to)
    skipped: list[Skipped] = []
    found = itertools.chain.from_iterable(captions(source, skipped) for source in arguments.captions)
    rng = random.Random(0)
    known: list[str] = []
    held_out: list[str] = []
    for text in itertools.islice(found, arguments.count):
        (held_out if rng.random() < 0.1 else known).append(text)
    if skipped:
        print(Text("skipped, by reason:"), dict(Counter(item.reason for item in skipped)))
    if not known or not held_out:
        count = len(known) + len(held_out)
        raise TrainingError("{}: {} captions are too few; use at least 50", ", ".join(arguments.captions), count)
    train_tokenizer(known, arguments.to, arguments.vocab_size, arguments.max_length, arguments.character_coverage)
    figures = measure(Tokenizer.from_folder(arguments.to), held_out)
    print(
        Text(
            "wrote {}: on {} held-out captions {:.1f} tokens per caption, {:.3%} of them unknown, {:.2%} "
            "of captions cut at {}",
            arguments.to,
            len(held_out),
            figures["tokens"],
            figures["unknown"],
            figures["cut"],
            arguments.max_length,
        )
    )


def train_tokenizer(
    texts: Iterable[str],
    folder: Path,
    vocab_size: int,
    max_length: int,
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
) -> None:
    """Train a unigram tokenizer on `texts`, and write `spiece.model` and `tokenizer_config.json` into `folder`.

    `vocab_size` is an upper bound. The vocabulary covers the share `character_coverage` of the characters in the texts.
    Any other character becomes one unknown token, or with `byte_fallback` its bytes, as in CLIP's tokenizer. (The
    T5Tokenizer of transformers ignores byte fallback, and would give other ids.) Texts are normalised by NFKC and case
    folding, so half-width and full-width spellings are the same. Padding, end and unknown have T5's ids 0, 1 and 2.

    Where a text has the character EDGE between words, no token spans both: a token 猫の肖像画 would teach a model
    nothing about 犬の肖像画. Raises `TrainingError` if the texts have more different characters than `vocab_size`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            normalization_rule_name="nmt_nfkc_cf",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pretokenization_delimiter=EDGE,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error)
        if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", reason):
            reason = Text(
                "the characters of these captions need {}; use more (--vocab-size), or fewer characters "
                "(--character-coverage)",
                least[1],
            )
        raise TrainingError("{}: a tokenizer of {} tokens can't be trained: {}", folder, vocab_size, reason) from error
    config = {
        "tokenizer_class": "T5Tokenizer",
        "model_max_length": max_length,
        "extra_ids": 0,
        "additional_special_tokens": [],
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    with atomic_file(folder / "spiece.model") as part:
        part.write_bytes(model.getvalue())


def captions(source: str, skipped: list[Skipped]) -> Iterator[str]:
    """Yield the captions in `source`: a text file (one per line), or webdataset shards (a folder or a pattern).

    Samples without a usable caption are left out, and appended to `skipped`. Raises `TrainingError` if a text file is
    not UTF-8, or if there are no shards.
    """
    if Path(source).is_file() and not source.endswith(".tar"):
        with open(source, encoding="utf-8-sig") as lines:  # Windows begins a file with a byte order mark
            try:
                yield from (line.strip() for line in lines if line.strip())
            except UnicodeDecodeError as error:
                raise TrainingError("{}: not UTF-8 ({}); convert the file", source, error) from error
        return
    for url in tqdm(find_shards(source), Text("shards")):
        for sample in raw_samples(url, skipped):
            try:
                yield caption_of(sample)
            except SampleError as error:
                skipped.append(Skipped(url, sample["__key__"], *error.args))


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Return a dict: the mean number of "tokens" per text, the shares of "unknown" tokens and of texts "cut" off."""
    tokens = [tokenizer(text) for text in texts]
    unknown = sum(tokenizer.pieces.encode(text).count(tokenizer.pieces.unk_id()) for text in texts)
    total = sum(t.used + t.dropped for t in tokens)
    return {
        "tokens": total / max(1, len(texts)),
        "unknown": unknown / max(1, total),
        "cut": sum(t.dropped > 0 for t in tokens) / max(1, len(texts)),
    }
