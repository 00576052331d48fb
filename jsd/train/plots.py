"""Plot the losses of a training run over its steps."""

from __future__ import annotations

from pathlib import Path

from jsd.atomic import atomic_file
from jsd.train.checkpoints import read_curve


def draw_curve(rows_file: Path, picture: Path) -> None:
    """Plot a training run's log (`NAME.jsonl`) into a picture: all values except the time, the loss also smoothed."""
    from matplotlib.figure import Figure

    rows = read_curve(rows_file)
    figure = Figure((8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in sorted({key for row in rows for key in row} - {"step", "seconds"}):
        points = [(row["step"], row[name]) for row in rows if name in row]
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name, alpha=0.5 if name == "loss" else 1.0)
        if name == "loss":
            smooth = [sum(near) / len(near) for near in (values[max(0, i - 5) : i + 6] for i in range(len(values)))]
            axes.plot(steps, smooth, label="loss, smoothed")
    axes.set_xlabel("step")
    axes.legend()
    with atomic_file(picture) as part:
        figure.savefig(part, dpi=100)
