"""Training: drawings and captions, the autoencoder, the text-to-image model. Needs the `train` extra."""

import sys
from importlib import import_module

USAGE = """usage: python -m jsd train COMMAND ...

commands, each with --help:
  embedded   the model of weights/embedded, from nothing
  tokenizer  a Japanese tokenizer, from captions
  filter     choose the pairs of webdataset shards that are worth training on
  loop       one stage of the two-stage training (with several processes: accelerate launch -m jsd.train.run_stage)
  export     a model folder from a run of loop
  lora       an adapter for a model folder, from a folder of captioned pictures
"""
COMMANDS = ("embedded", "tokenizer", "filter", "loop", "export", "lora")


def main(argv: list[str]) -> None:
    """`python -m jsd train COMMAND ...`: see USAGE."""
    if argv[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return
    if not argv or argv[0] not in COMMANDS:
        print(USAGE, end="", file=sys.stderr)
        raise SystemExit(2)
    module = {"filter": "filters"}.get(argv[0], argv[0])
    import_module(f"jsd.train.{module}").main(argv[1:])
