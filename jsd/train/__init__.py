"""Training: drawings and captions, the autoencoder, the text-to-image model. Needs the `train` extra."""


def main(argv: list[str]) -> None:
    """`python -m jsd train embedded ...`: see `jsd.train.embedded`."""
    if argv[:1] != ["embedded"]:
        raise SystemExit("usage: python -m jsd train embedded [--workdir runs] [--to weights/embedded]")
    from jsd.train import embedded

    embedded.main(argv[1:])
