"""What the page of `--serve` says of the run, out of its records."""

import dataclasses
from typing import Any

from toolkit.corpus.conversations import ASSISTANT, USER
from toolkit.report.plots import FIRST, PANELS, Story, draw_alone, panels_of
from toolkit.report.report import data_facts, for_page, notes_on, title_of
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.run.steps import STEPS
from toolkit.scoring.metrics_table import table_of
from toolkit.training.log_history import LOG, read_log
from toolkit.writing.sampling import Sampling

MOST_PROMPTS = 9  # of the run's, to choose from
CONTROLS = {  # setting: title, step of the arrows, least
    "temperature": ("temperature", 0.1, 0),
    "top_p": ("top-p", 0.05, 0),
    "top_k": ("top-k", 1, 0),
    "max_new_tokens": ("new tokens", 10, 1),
    "repetition_penalty": ("repetition penalty", 0.05, 0),
    "seed": ("seed", 1, 0),
}


def page_facts(run: RunDirectory, sampling: Sampling) -> dict[str, Any]:
    """Return what the page says, out of the records of the run; steps 8 and 9 may be missing."""
    records = {name: run.record(name) for name in STEPS[1 : STEPS.index("train_model") + 1]}
    results = {name: record["results"] for name, record in records.items()}
    metrics, no_figures = results_of("evaluate_model", run)
    _, no_report = results_of("visualize_performance", run)
    samples = results_of("generate", run)[0].get("samples") or metrics.get("samples", [])
    trained = results["train_model"]
    history = read_log(run.path / LOG)
    story = Story(history, trained["best_step"], trained["stopped_early"], metrics)
    panels = [draw for draw in panels_of(story, PANELS) if draw in FIRST]
    missing = {"No test figures": no_figures, "No report": no_report}
    chat = results["create_dataset"].get("conversations", False)
    values = dataclasses.asdict(sampling) | {"seed": run.seed}
    return {
        "title": title_of(records),
        "run": run.path.name,
        "has_report": no_report is None,
        "chat": chat,
        "prompts": [as_typed(sample["prompt"], chat) for sample in samples[:MOST_PROMPTS]],
        "controls": [
            {"name": name, "title": title, "step": step, "least": least, "value": values[name]}
            for name, (title, step, least) in CONTROLS.items()
        ],
        "plots": [for_page(draw_alone(draw, story)) for draw in panels],
        "notes": notes_on(results),
        "missing": [
            f"{what}; do this, then serve again: {why}" for what, why in missing.items() if why
        ],
        **(table_of(metrics) if metrics else {"rows": []}),
        **data_facts(results, results["train_test_split"].get("test_windows_in_train")),
    }


def as_typed(prompt: str, chat: bool) -> str:
    """Return a sample's prompt as a person would type it: of a conversation the message alone."""
    return prompt.rpartition(USER)[2].removesuffix(ASSISTANT).rstrip() if chat else prompt


def results_of(step: str, run: RunDirectory) -> tuple[dict[str, Any], str | None]:
    """Return a step's results and None; or nothing, and why not and what to run."""
    try:
        return run.results(step), None
    except UserError as error:
        return {}, str(error)
