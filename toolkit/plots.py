"""The picture of a training run: losses and learning rate against optimizer steps."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
TRAINING, VALIDATION, RATE = "#0072B2", "#D55E00", "#009E73"


def plot_training(
    history: list[dict[str, float]], title: str, best_step: int | None, path: Path
) -> None:
    """Draw training loss, validation loss and learning rate, and save them as a PNG."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve(losses, history, "loss", TRAINING, label="training (mean since the point before)")
    curve(losses, history, "eval_loss", VALIDATION, label="validation (all blocks)", marker="o")
    mark_best(losses, history, best_step)
    losses.set_ylabel("loss (nats per token)")
    losses.legend(frameon=False)
    perplexity = losses.secondary_yaxis("right", functions=(exp, log))
    perplexity.set_ylabel("perplexity")
    perplexity.set_yticks(perplexity_ticks(*losses.get_ylim()))
    perplexity.yaxis.set_major_formatter(
        lambda value, _: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    )
    curve(rates, history, "learning_rate", RATE)
    rates.set_ylabel("learning rate")
    rates.set_xlabel("optimizer step")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (losses, rates):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=150, format="png")


def curve(axes: Axes, history: list[dict[str, float]], key: str, colour: str, **style: Any) -> None:
    points = [(entry["step"], entry[key]) for entry in history if key in entry]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, markersize=5, linewidth=1.8, **style)


def mark_best(axes: Axes, history: list[dict[str, float]], best_step: int | None) -> None:
    best = [
        entry["eval_loss"]
        for entry in history
        if entry.get("step") == best_step and "eval_loss" in entry
    ]
    if best:
        label = f"best validation, saved: {best[0]:.3f} at step {best_step:,}"
        axes.plot(
            best_step,
            best[0],
            "*",
            color=VALIDATION,
            markersize=16,
            markeredgecolor="black",
            label=label,
        )


def perplexity_ticks(lowest: float, highest: float) -> list[float]:
    """Return round perplexities (1, 2, 5, 10, ...) within a range of losses."""
    rounds = [digit * 10.0**power for power in range(13) for digit in (1, 2, 5)]
    return [value for value in rounds if lowest <= log(value) <= highest]


def exp(losses: Any) -> Any:
    return np.exp(np.minimum(losses, 700))


def log(perplexities: Any) -> Any:
    return np.log(np.maximum(perplexities, 1e-300))
