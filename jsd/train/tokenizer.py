"""Train a Japanese sentencepiece tokenizer in the layout that today's T5Tokenizer and `jsd.tokenizer` both read.

python -m jsd train tokenizer CAPTIONS... --to runs/tokenizer
"""

import argparse
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece
from tqdm import tqdm

from jsd.tokenizer import Tokenizer

EDGE = "\ue000"  # a private character; in a training text: no piece may cross this place


def train_tokenizer(
    texts: Iterable[str],
    folder: Path,
    vocab_size: int,
    max_length: int,
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
) -> None:
    """Write `spiece.model` and `tokenizer_config.json` into `folder`.

    A unigram model with every character of `texts` (or the share `character_coverage` of them) and NFKC + case folding
    inside it, so that half- and full-width spellings are one. Ids in T5's order (pad 0, eos 1, unk 2). Without
    `byte_fallback` unknown characters are one unknown token; with it three bytes or more, as in CLIP's tokenizer, but
    transformers' T5Tokenizer switches that off and would disagree. The texts may hold EDGE around words: no piece then
    swallows two of them, as 猫の肖像画 in one piece would, which does not compose. `vocab_size` is an upper bound.
    Raises RuntimeError (from sentencepiece) when the texts have more characters than that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "spiece.tmp"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(prefix),
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


def captions(source: str) -> Iterator[str]:
    """The captions of a text file (one a line), or of webdataset shards (a folder or pattern); bad ones left out."""
    if Path(source).is_file() and not source.endswith(".tar"):
        with open(source, encoding="utf-8") as lines:
            yield from (line.strip() for line in lines if line.strip())
        return
    from jsd.errors import SampleError
    from jsd.train.data import caption_of, find_shards, raw_samples

    for url in tqdm(find_shards(source), "shards"):
        for sample in raw_samples(url, []):
            try:
                yield caption_of(sample)
            except SampleError:
                continue


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Tokens a caption, the share of tokens that are unknown, and the share of captions cut off."""
    tokens = [tokenizer(text) for text in texts]
    unknown = sum(tokenizer.pieces.encode(text).count(tokenizer.pieces.unk_id()) for text in texts)
    total = sum(t.used + t.dropped for t in tokens)
    return {
        "tokens": total / max(1, len(texts)),
        "unknown": unknown / max(1, total),
        "cut": sum(t.dropped > 0 for t in tokens) / max(1, len(texts)),
    }


def main(argv: Sequence[str]) -> None:
    """Train a tokenizer on nine tenths of the captions and measure it on the rest."""
    parser = argparse.ArgumentParser(prog="python -m jsd train tokenizer", description=main.__doc__)
    parser.add_argument("captions", nargs="+", help="text files with one caption a line, or webdataset shards")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--max-length", type=int, default=77, help="token ids a row, the end included")
    parser.add_argument("--character-coverage", type=float, default=0.9999, help="the rarest become unknown")
    parser.add_argument("--count", type=int, default=10_000_000, help="captions to read at most")
    args = parser.parse_args(argv)
    rng = random.Random(0)
    known: list[str] = []
    unseen: list[str] = []
    for source in args.captions:
        for text in captions(source):
            (unseen if rng.random() < 0.1 else known).append(text)
            if len(known) + len(unseen) >= args.count:
                break
    if not known or not unseen:
        raise FileNotFoundError(f"{', '.join(args.captions)}: {len(known) + len(unseen)} captions; at least 20 wanted")
    train_tokenizer(known, args.to, args.vocab_size, args.max_length, args.character_coverage)
    figures = measure(Tokenizer.from_folder(args.to), unseen)
    print(
        f"wrote {args.to}: on {len(unseen)} unseen captions {figures['tokens']:.1f} tokens each, "
        f"{figures['unknown']:.3%} of them unknown, {figures['cut']:.2%} of captions cut at {args.max_length}"
    )
