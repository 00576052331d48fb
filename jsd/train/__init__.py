"""Training: drawings and captions, the autoencoder, the text-to-image model. Needs the `train` extra."""

import sys

USAGE = "usage: python -m jsd train embedded [--workdir runs] [--to weights/embedded]"


def main(argv: list[str]) -> None:
    """`python -m jsd train embedded ...`: see `jsd.train.embedded`."""
    if argv[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return
    if argv[:1] != ["embedded"]:
        print(USAGE, file=sys.stderr)
        raise SystemExit(2)
    from jsd.train import embedded

    embedded.main(argv[1:])
