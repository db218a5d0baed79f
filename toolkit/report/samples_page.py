"""Write samples before and after training as a Markdown page."""

from dataclasses import asdict
from pathlib import Path

from toolkit.report.markdown import fenced, plain
from toolkit.writing.sampling import Sampling

TITLES = {"base": "Before training", "tuned": "After training"}


def endings(entry: dict, name: str) -> list[str]:
    """Return how each of a model's continuations ended; records of earlier versions do not say."""
    return entry.get("endings", {}).get(name) or [""] * len(entry[name])


def write_samples(samples: list[dict], sampling: Sampling, seed: int, path: Path) -> None:
    """Write one section a prompt, with what each model made of it from the same seed."""
    used = {name: value for name, value in asdict(sampling).items() if value != ()}
    settings = ", ".join(f"{name} {value}" for name, value in used.items())
    lines = [
        "# Samples",
        "",
        f"The same prompts, settings and seeds for both models: {plain(settings)}, seed {seed}.",
        "",
    ]
    for number, entry in enumerate(samples, start=1):
        heading = entry["prompt"].splitlines()[0] if entry["prompt"] else "(empty prompt)"
        lines += [f"## {number}. {plain(heading)}", ""]
        for name, title in TITLES.items():
            lines += [f"**{title}**", ""]
            for text, ending in zip(entry[name], endings(entry, name), strict=True):
                lines += [*fenced(entry["prompt"] + text), f"*{ending}*" if ending else "", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
