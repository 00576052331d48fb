"""`one`, then `load`, and with --fullsize two steps at Stable Diffusion's size."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from bench import load, one, phases


def add_arguments(parser: ArgumentParser) -> None:
    one.add_arguments(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the rates and latencies of load")
    parser.add_argument("--fullsize", type=Path, metavar="DIR", help="a converted model of full size; takes minutes")


def run(arguments: Namespace) -> dict[str, object]:
    if arguments.fullsize:  # before models are loaded here, see phases.run
        drawn = phases.measure(("draw_ours", "draw_stock"), arguments.fullsize.resolve(), rounds=2)
    figures: dict[str, object] = one.run(arguments) | load.run(arguments)
    if arguments.fullsize:
        figures["fullsize"] = {
            "latency": phases.ratio(drawn, "seconds", "draw_ours", "draw_stock"),
            "memory": phases.ratio(drawn, "peak", "draw_ours", "draw_stock"),
            "gemm_share": one.gemm_share(arguments.fullsize),
        }
    return figures
