"""The curves of several runs in one picture."""

from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
from matplotlib.figure import Figure

from toolkit.report import fonts
from toolkit.report.plots import BLUE, GREEN, GREY, PURPLE, VERMILION, Entries, above, finish
from toolkit.run.console import shown

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, "#e69f00", "#56b4e9", GREY)
MARKERS, DASHES = "os^Dvp*", ("-", "--", ":", "-.")


def draw_overlay(histories: dict[str, Entries], notes: list[str]) -> Figure:
    """Return validation and training loss of all runs, each in a style of its own.

    The names stand below the curves, `notes` above them.
    """
    columns = 2 if max(map(len, histories)) > 30 else 3
    rows = -(-len(histories) // columns)
    figure = Figure(figsize=(11, 4.8 + 0.25 * (rows + 2 * len(notes))), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    styles = run_styles(len(histories))
    for axes, key, title in zip(
        panels, ("eval_loss", "loss"), ("Validation loss", "Training loss"), strict=True
    ):
        for (name, history), style in zip(histories.items(), styles, strict=True):
            points = [(entry["step"], entry[key]) for entry in history if key in entry]
            look = style if key == "eval_loss" else {**style, "marker": ""}
            steps, losses = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, losses, linewidth=2, label=shown(name), **look)
        axes.set_title(f"{title} (nats per token)", loc="left")
        finish(axes)
    lines = panels[0].get_legend_handles_labels()
    legend = figure.legend(*lines, loc="outside lower left", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
        fonts.show(text)
    above(figure, "\n".join(notes))
    return figure


def run_styles(number: int) -> list[dict[str, Any]]:
    """Return a colour, marker and dash for each of so many runs, no two alike.

    Beyond the seven colours that all readers tell apart, they are steps from dark to light.
    """
    spread = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, number))
    colours = COLOURS if number <= len(COLOURS) else [matplotlib.colors.to_hex(c) for c in spread]
    return [
        {
            "color": colours[n],
            "marker": MARKERS[n % len(MARKERS)],
            "linestyle": DASHES[n // len(MARKERS) % len(DASHES)],
        }
        for n in range(number)
    ]
