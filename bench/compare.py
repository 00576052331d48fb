"""Ours beside its peers, in one run: `script/bench [--weights FOLDER] [--fullsize DIR] [--plot FILE]`.

The peers are stock diffusers' StableDiffusionPipeline and a plain synchronous Cog predictor around it, with the same
weights, prompts and seeds, each in turn with ours. The figures are ratios, ours / theirs: the median of pairs for the
latency of one, of medians for the rest (of the largest peaks for memory). Below 1 is better, but for throughput and
gemm_share, which is the UNet's rate against a matrix product's. The last line is JSON.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import serving, single
from bench.serving import PROMPTS, Contender
from jsd.manifest import MANIFEST, find_weights

EQUAL = {"scheduler": "DDIM", "num_inference_steps": 12}
CLIENTS = (1, 2, 4, 8, 16)


def contenders(guidance: float) -> dict[str, Contender]:
    """Whom `throughput` compares, both at the same settings."""

    def inputs(i: int) -> dict[str, Any]:
        return {"prompt": PROMPTS[i % len(PROMPTS)], "seed": i, "guidance_scale": guidance, **EQUAL}

    return {
        "ours": Contender("predict.py", 32, inputs),
        "stock": Contender("bench/peer.py", 1, inputs),
    }


def throughput(weights: Path, guidance: float, rounds: int) -> dict[int, dict[str, dict[str, float]]]:
    """By number of clients and contender: pictures a second, and the median and the 95th percentile of latency."""
    ours, stock = contenders(guidance).values()
    found: dict[int, dict[str, dict[str, float]]] = {}
    with serving.served(ours, weights) as a, serving.served(stock, weights) as b:
        servers = {"ours": a, "stock": b}
        for server in servers.values():
            server.load(2, 2)  # not counted
        for clients in tqdm(CLIENTS, "clients"):
            rates: dict[str, list[float]] = {name: [] for name in servers}
            latencies: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, server in servers.items():
                    rate, seconds = server.load(clients, max(2, 24 // clients))
                    rates[name].append(rate)
                    latencies[name] += seconds
            found[clients] = {
                name: {
                    "rate": statistics.median(rates[name]),
                    "p50": float(np.percentile(latencies[name], 50)),
                    "p95": float(np.percentile(latencies[name], 95)),
                }
                for name in servers
            }
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of pairs."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


def draw_plot(load: dict[int, dict[str, dict[str, float]]], file: Path) -> None:
    """Throughput and latency against the number of clients."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, style in (("ours", "-"), ("stock", "--")):
        axes[0].plot(list(load), [row[name]["rate"] for row in load.values()], f"o{style}", label=name)
        for share, colour in (("p50", "tab:green"), ("p95", "tab:red")):
            seconds = [row[name][share] for row in load.values()]
            axes[1].plot(list(load), seconds, f"o{style}", label=f"{name}, {share}", color=colour)
    for axis, title in zip(axes, ("pictures a second", "seconds a picture"), strict=True):
        axis.set(title=title, xlabel="clients", xscale="log", ylim=(0, None))
        axis.set_xticks(list(load), [str(clients) for clients in load])
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the one that serving would use")
    parser.add_argument("--pairs", type=int, default=9, help="pictures a contender in the latency part")
    parser.add_argument("--rounds", type=int, default=3, help="rounds a contender of the other parts")
    parser.add_argument("--fullsize", type=Path, metavar="DIR", help="a converted model of full size: minutes a phase")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the load part as a picture")
    args = parser.parse_args()
    weights = find_weights(args.weights).resolve()
    defaults = json.loads((weights / MANIFEST).read_text("utf-8"))["defaults"]
    if "guidance_interval" in defaults:
        raise SystemExit(
            f"{weights}: has guidance_interval {defaults['guidance_interval']}, which the peer can't follow"
        )
    guidance = defaults["guidance_scale"]

    start = single.measured(("start-ours", "start-stock", "start-floor"), weights, args.rounds)
    drawn = single.measured(("draw-ours", "draw-stock"), weights, args.rounds)
    one = single.latency(weights, EQUAL, args.pairs)
    load = throughput(weights, guidance, args.rounds)
    rates = single.gemm_share(weights)

    print("\none at a time, seconds (median)")
    for name, seconds in one.items():
        print(f"  {name:22}{statistics.median(seconds):8.3f}")
    print("until ready, seconds (median)")
    for name, row in start.items():
        print(f"  {name:22}{row['seconds']:8.2f}")
    print(f"{'clients':>8}{'':8}{'a second':>10}{'p50 s':>8}{'p95 s':>8}")
    for clients, rows in load.items():
        for name, row in rows.items():
            print(f"{clients:8} {name:7}{row['rate']:10.2f}{row['p50']:8.2f}{row['p95']:8.2f}")
    if args.plot:
        draw_plot(load, args.plot)
    last = {
        "latency_equal_steps": ratio(one["ours, equal steps"], one["stock, equal steps"]),
        "latency_defaults": ratio(one["ours, defaults"], one["stock, K_LMS 50"]),
        **{
            f"{key}_{clients}": round(rows["ours"][what] / rows["stock"][what], 3)
            for clients, rows in load.items()
            for key, what in (("throughput", "rate"), ("p95", "p95"))
        },
        "setup": round(start["start-ours"]["seconds"] / start["start-floor"]["seconds"], 3),
        "setup_stock": round(start["start-ours"]["seconds"] / start["start-stock"]["seconds"], 3),
        "memory": round(drawn["draw-ours"]["peak"] / drawn["draw-stock"]["peak"], 3),
        "gemm_share": round(rates["share"], 3),
    }
    if args.fullsize:
        last["fullsize"] = fullsize(args.fullsize.resolve())
    print(json.dumps(last))


def fullsize(folder: Path) -> dict[str, float]:
    """Two steps at full size: seconds and peak memory of ours / stock, and the UNet's share of the machine's rate."""
    drawn = single.measured(("draw-ours", "draw-stock"), folder, 2)
    ours, stock = drawn["draw-ours"], drawn["draw-stock"]
    return {
        "latency": round(ours["seconds"] / stock["seconds"], 3),
        "memory": round(ours["peak"] / stock["peak"], 3),
        "gemm_share": round(single.gemm_share(folder)["share"], 3),
    }


if __name__ == "__main__":
    main()
