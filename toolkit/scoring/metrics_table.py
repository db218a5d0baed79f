"""The metrics as a table, for the terminal and for the report: one source for both."""

from typing import Any

from toolkit.run.console import aligned
from toolkit.scoring.metrics import METRICS

TITLES = {"base": "before", "tuned": "after", "difference": "gain"}


def metric_rows(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row a metric: `title`, `definition`, and `base`, `tuned` and `difference` as text.

    Each figure comes with its interval (`base_interval`, ...), empty where there is none.
    """
    rows = []
    for metric in METRICS:
        row = {"name": metric.name, "title": metric.title, "definition": metric.definition}
        for column in TITLES:
            figures = metrics.get(column)
            row[column] = metric.write(figures.get(metric.name)) if figures else ""
            span = figures and figures.get("intervals", {}).get(metric.name)
            row[f"{column}_interval"] = " to ".join(map(metric.write, span)) if span else ""
        rows.append(row)
    return rows


def scope(metrics: dict[str, Any]) -> str:
    """Return what was scored, and how: counts, block size, stride, precision."""
    tuned = metrics["tuned"]
    context = tuned["context"]
    stride = context["stride"]
    windows = (
        f"blocks of {context['block_size']} tokens, each alone"
        if stride is None
        else f"windows of {context['block_size']} tokens, stride {stride}"
    )
    return (
        f"{tuned['tokens']:,} predicted tokens ({tuned['words']:,} words, "
        f"{tuned['characters']:,} characters, {tuned['bytes']:,} bytes)"
        f" in {windows}, {context['precision']}"
    )


def notes(metrics: dict[str, Any]) -> list[str]:
    """Return what was scored, what a gain is, and where the intervals come from, or why not."""
    made = metrics["intervals"]
    drawn = f"{made['resamples']:,} bootstrap resamples " if made["unit"] else ""
    gain = ["gain: before - after, of accuracy after - before, so that above 0 is better"]
    return [
        scope(metrics),
        *(gain if "difference" in metrics else []),
        f"95% intervals: {drawn}{made['reason']}",
    ]


def table_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what the pages' templates make the table of."""
    return {
        "rows": metric_rows(metrics),
        "columns": [name for name in TITLES if name in metrics],
        "titles": TITLES,
        "figure_notes": notes(metrics),
    }


def as_text(metrics: dict[str, Any]) -> list[str]:
    """Return the table as lines for a terminal, every definition beside its figure."""
    names = [name for name in TITLES if name in metrics]
    rows = metric_rows(metrics)
    table = [["", *(TITLES[name] for name in names)]]
    for row in rows:
        spans = {name: row[f"{name}_interval"].replace(" to ", " .. ") for name in names}
        cells = [f"{row[name]} [{spans[name]}]" if spans[name] else row[name] for name in names]
        table.append([row["title"], *cells])
    lines, indent = aligned(table), " " * (max(len(row[0]) for row in table) + 2)
    defined = [
        line
        for line, row in zip(lines[1:], rows, strict=True)
        for line in (line, f"{indent}{row['definition']}")
    ]
    return [lines[0], *defined, *notes(metrics)]
