"""The pictures of a training run: panels over optimizer steps, as PNG and SVG."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.report import fonts
from toolkit.run.console import shown

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa4499"
GREY, INK = "#666666", "#222222"
# What a colour means, in every picture and on every page; a line alone in its panel is in ink.
TRAINING, VALIDATION, BEFORE, AFTER = BLUE, VERMILION, GREY, PURPLE
FONT_SIZE = 11  # still read when the picture is shown at half its size

Entries = list[dict[str, float]]


@dataclass(frozen=True)
class Story:
    """What a run's pictures show: its log, and what is known of its end.

    `best_step`: whose model was saved; `stopped_early`; `metrics`: of step 8. All may be unknown.
    """

    history: Entries
    best_step: int | None = None
    stopped_early: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)

    def points(self, key: str) -> tuple[list[float], list[float]]:
        """Return the steps and values of the entries that hold a key."""
        found = [(entry["step"], entry[key]) for entry in self.history if key in entry]
        return [step for step, _ in found], [value for _, value in found]

    def has(self, key: str) -> bool:
        return any(key in entry for entry in self.history)


def draw_losses(axes: Axes, story: Story) -> None:
    line(axes, story, "loss", TRAINING, label="training")
    line(axes, story, "eval_loss", VALIDATION, label="validation", marker="o")
    best = dict(zip(*story.points("eval_loss"), strict=True)).get(story.best_step)
    if best is not None:
        star = {"marker": "*", "color": VALIDATION, "markersize": 15, "markeredgecolor": INK}
        label = f"best, saved: {best:.3f} at step {story.best_step:,}"
        axes.plot(story.best_step, best, linestyle="none", label=label, **star)
    if story.stopped_early:
        last = max(entry["step"] for entry in story.history)
        axes.axvline(last, color=INK, linestyle=":", label=f"stopped early at step {last:,}")
    axes.set_title("Loss (nats per token)", loc="left")
    axes.legend(frameon=False)


def draw_perplexities(axes: Axes, story: Story) -> None:
    """Draw the test perplexity of each model and its interval, on a logarithmic axis."""
    models = [(name, story.metrics[name]) for name in ("tuned", "base") if name in story.metrics]
    for place, (name, figures) in enumerate(models):
        value, title = figures["perplexity"], {"base": "before", "tuned": "after"}[name]
        if value is None:
            continue
        span = figures.get("intervals", {}).get("perplexity") or (value, value)
        reach = [[value - span[0]], [span[1] - value]]
        colour = {"base": BEFORE, "tuned": AFTER}[name]
        style = {"fmt": "os"[place], "color": colour, "capsize": 5, "markersize": 9}
        axes.errorbar(value, place, xerr=reach, **style)
        above = {"xytext": (0, 13), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{title}: {value:,.2f}", (value, place), **above)
    axes.set_xscale("log")
    axes.margins(x=0.35)
    axes.set_ylim(-0.6, len(models) - 0.3)
    axes.set_yticks([])
    low, high = axes.get_xlim()
    wide = high > 5 * low  # else no round power of ten may lie between the ends
    ticker = matplotlib.ticker
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)) if wide else ticker.MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    known = any(figures.get("intervals") for _, figures in models)
    axes.set_title("Test perplexity" + (", with 95% intervals" if known else ""), loc="left")


def draw_learning_rate(axes: Axes, story: Story) -> None:
    line(axes, story, "learning_rate", INK)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_title("Learning rate", loc="left")


def draw_gradient_norm(axes: Axes, story: Story) -> None:
    line(axes, story, "grad_norm", INK)
    if any(value > 0 for value in story.points("grad_norm")[1]):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_title("Gradient norm, before clipping", loc="left")


def draw_speed(axes: Axes, story: Story) -> None:
    line(axes, story, "tokens_per_second", INK)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Training speed (tokens/s)", loc="left")


def draw_memory(axes: Axes, story: Story) -> None:
    steps, values = story.points("peak_memory_bytes")
    axes.plot(steps, np.array(values) / 1e9, color=INK, linewidth=2)
    axes.set_ylim(bottom=0)
    axes.set_title("Memory, peak so far (GB)", loc="left")


Panel = Callable[[Axes, Story], None]
# Each panel with the key that it needs in the log; those of MEASURED differ from run to run.
PANELS: dict[str, Panel] = {
    "loss": draw_losses,
    "learning_rate": draw_learning_rate,
    "grad_norm": draw_gradient_norm,
}
FIRST = (draw_losses, draw_perplexities)  # what a reader looks at; the others are folded
MEASURED: dict[str, Panel] = {"tokens_per_second": draw_speed, "peak_memory_bytes": draw_memory}


def panels_of(story: Story, among: dict[str, Panel]) -> list[Panel]:
    """Return the panels that there is something to draw in."""
    panels = [draw for key, draw in among.items() if story.has(key)]
    if among is PANELS and story.metrics:
        panels.insert(1, draw_perplexities)
    return panels


def draw_together(panels: list[Panel], story: Story, title: str) -> Figure:
    """Return one figure with all panels, two a row."""
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 0.5 + 3.6 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    for place, draw in enumerate(panels):
        alone = place == len(panels) - 1 and place % 2 == 0
        axes = figure.add_subplot(grid[place // 2, slice(None) if alone else place % 2])
        draw(axes, story)
        finish(axes, draw)
    above(figure, title)
    return figure


def draw_alone(draw: Panel, story: Story) -> str:
    """Return one panel as SVG text that takes its colours and font from the page around it."""
    figure = Figure(figsize=(4.8, 3.1), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, story)
    finish(axes, draw)
    return as_svg(figure)


def above(figure: Figure, text: str) -> None:
    """Write text over all panels, wrapped; $ is a part of a path or text, no formula."""
    words = {"x": 0.01, "ha": "left", "wrap": True, "parse_math": False}
    if text:
        fonts.show(figure.suptitle(shown(text), fontsize=FONT_SIZE + 1, **words))


def finish(axes: Axes, draw: Panel | None = None) -> None:
    if draw is not draw_perplexities:
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.2, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=FONT_SIZE)
    axes.title.set(fontsize=FONT_SIZE + 1, color=INK)
    axes.xaxis.label.set(fontsize=FONT_SIZE, color=INK)


def line(axes: Axes, story: Story, key: str, colour: str, **style: Any) -> None:
    steps, values = story.points(key)
    if steps:
        marker = {"marker": "o"} if len(steps) == 1 else {}
        axes.plot(steps, values, color=colour, markersize=6, linewidth=2, **{**marker, **style})


def save_figure(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure as "png" or "svg", the same bytes for the same figure."""
    if kind == "svg":
        path.write_text(as_svg(figure), encoding="utf-8")
    else:
        figure.savefig(path, dpi=130, format="png", metadata={"Software": None})


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG text without a time stamp, its letters as text."""
    text = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "performance", "font.size": FONT_SIZE}
    with matplotlib.rc_context(settings):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()
