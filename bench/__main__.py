"""The command line, `script/bench [NAME] [...]`.

Every name in BENCHMARKS is a module of this package with `add_arguments(parser)` and `run(arguments)`, which returns
figures as a dict. The last line of the output is these figures as JSON. Ratios are ours / theirs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from subprocess import CalledProcessError

from jsd.cli import CommandParser
from jsd.errors import JSDError
from jsd.manifest import find_weights

BENCHMARKS = {
    "all": "one, then load; this is what runs without a name",
    "one": "one request at a time, beside stock diffusers: latency, start, memory, the UNet's arithmetic rate",
    "load": "many clients over HTTP, beside a plain synchronous Cog predictor",
    "sampling": "which sampler, and how many steps: writes docs/sampling.md",
    "train": "pictures per second of the training loop, beside diffusers' text-to-image example",
    "watermark": "how often the watermark is found in damaged pictures: writes docs/watermark.md",
    "gpu": "on a GPU, beside stock diffusers, plain and compiled: pictures, UNet calls, many requests, starts",
    "cpu-genuine": "a model of full size on a CPU, beside stock diffusers and OpenVINO: time and memory",
    "fullsize": "a model of Stable Diffusion's size with random weights: make it, or measure time and memory",
}


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that `argv` names, "all" by default, and print its figures. Returns 0, or 2 after an error."""
    parser = argparse.ArgumentParser(prog="script/bench", description="Benchmarks; docs/speed.md has the results.")
    names = parser.add_subparsers(metavar="NAME", required=True, parser_class=CommandParser)
    for name, text in BENCHMARKS.items():
        names.add_parser(name, help=text, description=text, module=f"bench.{name.replace('-', '_')}", extra="dev")
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = ["all", *argv]
    arguments = parser.parse_args(argv)
    try:
        arguments.weights = find_weights(getattr(arguments, "weights", None)).resolve()
        figures = arguments.run(arguments)
    except (JSDError, OSError, CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
