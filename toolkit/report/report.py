"""The report: what the records of a run say, as one page of HTML and as Markdown."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from toolkit.blocks.window_hash import WINDOW_CHARACTERS
from toolkit.corpus.contents import SHORT_BYTES
from toolkit.report.copying_table import copying_rows
from toolkit.report.language import language_of
from toolkit.report.markdown import WIDTH, fenced, in_code, plain
from toolkit.report.plots import AFTER, BEFORE, INK, TRAINING, VALIDATION
from toolkit.report.samples_page import endings
from toolkit.report.verdict import judge, judge_copying
from toolkit.run.console import count, shown, size
from toolkit.run.options import as_command, in_shell
from toolkit.run.records import Records
from toolkit.run.steps import STEPS
from toolkit.scoring.metrics_table import table_of
from toolkit.scoring.rouge import rouge_table
from toolkit.training.same_training import describe_changes
from toolkit.writing.sampling import EXAMINED

PAGE_COLOURS = {
    TRAINING: "var(--training)",
    VALIDATION: "var(--validation)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    INK: "currentColor",
}
# What records of earlier versions do not say: the samples were these.
SAMPLED = {"from": "Openings of test documents", "tokens": EXAMINED.max_new_tokens}
NAMED = 3  # near-copies that the report lists by name; the record lists more
CARDS = ("perplexity", "bits_per_byte", "token_accuracy")
ACCOUNT = {
    "documents": "documents",
    "blocks": "blocks",
    "tokens_read": "tokens read",
    "tokens_in_blocks": "tokens in blocks",
    "tokens_learned": "of them learned (completions and their ends)",
    "padding_tokens": "padding beside them",
    "tokens_left_over": "tokens left over (less than a block)",
    "examples_dropped_too_long": "examples dropped (longer than a block)",
    "conversations_shortened": "conversations without their oldest turns (longer than a block)",
    "answers_left_out": "answers in these turns",
    "tokens_dropped_too_long": "tokens dropped with them",
}


HERE = Path(__file__).parent


def render(page: str, facts: dict[str, Any], home: Path = HERE) -> str:
    """Return a page as text: "report.html" (escaped, complete in itself) or one of Markdown.

    `home`: the folder of its template, which may include those of this room.
    """
    environment = Environment(
        loader=FileSystemLoader([home, HERE]),
        autoescape=page.endswith(".html"),
        undefined=StrictUndefined,
        finalize=without_commands,
    )
    environment.filters |= {"plain": plain, "in_code": in_code, "language": language_of}
    environment.globals["fenced"] = lambda text, width=WIDTH: "\n".join(fenced(text, width))
    environment.globals["endings"] = endings
    return environment.get_template(f"{page}.jinja").render(facts).rstrip() + "\n"


def without_commands(value: Any) -> Any:
    """Return what a template prints, of text without characters that command a terminal."""
    return type(value)(shown(value)) if isinstance(value, str) else value


def facts_of(run: Records, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what both reports say, out of the records of steps 2 to 8."""
    records = {name: run.record(name) for name in STEPS[1 : STEPS.index("evaluate_model") + 1]}
    results = {name: record["results"] for name, record in records.items()}
    leak = results["train_test_split"].get("test_windows_in_train")
    models = [name for name in ("base", "tuned") if name in metrics]
    table, sampled = table_of(metrics), metrics.get("sampled", SAMPLED)
    return {
        "title": title_of(records),
        "verdict": judge(metrics),
        "copying_verdict": judge_copying(metrics, leak),
        "notes": notes_on(results),
        "cards": [row for row in table["rows"] if row["name"] in CARDS],
        **table,
        "models": models,
        "rouge": rouge_table(metrics.get("rouge")),
        "samples": metrics["samples"],
        "samples_note": (
            f"{opened_by(results, sampled['from'])} by both models with the same seeds: "
            f"temperature {EXAMINED.temperature:g}, top-p {EXAMINED.top_p:g}, top-k "
            f"{EXAMINED.top_k}, up to {sampled['tokens']} tokens."
        ),
        "copying_rows": copying_rows(metrics, models),
        "passages": metrics["passages"],
        **data_facts(results, leak),
        **setting_facts(records, results, str(run.path)),
        **machine_facts(records),
    }


def opened_by(results: dict[str, dict[str, Any]], source: str) -> str:
    if results["create_dataset"].get("conversations"):
        return "First messages of test conversations, answered"
    return f"{source}, continued"


def title_of(records: dict[str, dict[str, Any]]) -> str:
    model = records["load_gpt2"]["results"]
    corpus = " ".join(records["create_dataset"]["options"]["corpus"])
    return f"{model['model']} ({model['parameters'] / 1e6:.1f}M parameters) on {corpus}"


def notes_on(results: dict[str, Any]) -> list[str]:
    """Return what a reader should know of the training before trusting its figures."""
    trained, notes = results["train_model"], []
    steps, best = trained["steps"], trained["best_step"]
    if trained["stopped_early"]:
        notes.append(f"Training was stopped early, at step {steps:,}.")
    for part in trained.get("continued", []):
        notes.append(f"Training went on {describe_changes(part)}; the flags alone would differ.")
    if best < steps:
        notes.append(
            f"Validation was best at step {best:,} of {steps:,}; that model was saved and tested."
        )
    verdict = trained["verdict"]
    notes.append(f"{verdict[0].upper()}{verdict[1:]}.")
    return notes


def data_facts(results: dict[str, Any], leak: float | None) -> dict[str, Any]:
    split = results["train_test_split"]
    splits = split["splits"]
    accounts = []
    for key, title in ACCOUNT.items():
        values = [account.get(key) for account in splits.values()]
        if any(value is not None for value in values):
            cells = [f"{value or 0:,}" for value in values]
            if "stream" in split:  # train's are not known: see the stream's own account
                cells[list(splits).index("train")] = "not known"
            accounts.append({"title": title, "cells": cells})
    return {
        "splits": list(splits),
        "accounts": accounts,
        "corpus_line": corpus_line(results),
        "leak_line": leak_line(split, leak),
    }


def leak_line(split: dict[str, Any], leak: float | None) -> str:
    """Return what train and held-out splits share, and what to do about it, in a few sentences."""
    share = "cannot be told" if leak is None else f"{leak:.2%}"
    said = [
        f"Share of the test split's windows of {WINDOW_CHARACTERS} characters that training also "
        f"has: {share}"
    ]
    for name, account in split["copies"].items():
        if dropped := account["documents_dropped"]:
            were = (
                "copies of held-out ones, were" if dropped > 1 else "a copy of a held-out one, was"
            )
            said.append(f"{count(dropped, f'{name} document')}, {were} dropped")
        if kept := account["short_copies_kept"]:
            said.append(
                f"{count(kept, f'{name} document')} also in a held-out split, of less than "
                f"{SHORT_BYTES} bytes: ordinary language, which stays where it was drawn"
            )
    if not any(account["documents_dropped"] for account in split["copies"].values()):
        said.append("No document is a copy of a held-out one")
    for name, account in (split["near_copies"] or {}).items():
        if near := account["documents"]:
            few = ", ".join(account["names"][:NAMED]) + (", ..." if near > NAMED else "")
            said.append(
                f"{count(near, f'{name} document')} ({few}) with half or more of the windows in "
                "training: where they are versions of one text the figures flatter; keep one "
                "version, or put all of them into one document"
            )
    return ". ".join(said) + "."


def corpus_line(results: dict[str, Any]) -> str:
    if stream := results["train_model"].get("stream"):
        return (
            f"A stream, of which training read {stream['documents_read']:,} documents, "
            f"{stream['tokens_read']:,} tokens; {stream['empty_documents_dropped']:,} empty "
            "documents dropped."
        )
    made = results["create_dataset"]["splits"].values()
    documents, tokens, empty = (
        sum(part[key] for part in made)
        for key in ("documents", "tokens", "empty_documents_dropped")
    )
    dropped = f"; {count(empty, 'empty document')} dropped" if empty else ""
    return f"{count(documents, 'document')}, {count(tokens, 'token')}{dropped}."


def setting_facts(records: dict[str, Any], results: dict[str, Any], folder: str) -> dict[str, Any]:
    plan, split, trained = (
        results[name] for name in ("configure_trainer", "train_test_split", "train_model")
    )
    epochs = f" ({plan['epochs']:.3g} epochs)" if plan["epochs"] else ""
    settings = {
        "seed": results["import_modules"]["seed"],
        "block size": f"{split['block_size']:,} tokens",
        "steps": f"{trained['steps']:,} of {plan['steps']:,} planned{epochs}",
        "tokens a step": f"{plan['tokens_per_step']:,}",
        "tokens trained on": f"{trained['tokens']:,}",
        **example_settings(plan, trained),
        "learning rate": f"{plan['learning_rate']:g}",
        "parameters trained": f"{plan['trainable_parameters']:,}",
    }
    flags = {name: record["measured"]["flags"] for name, record in records.items()}
    words = [word for given in flags.values() for word in given]
    return {
        "settings": [{"title": name, "value": value} for name, value in settings.items()],
        "options": [
            {"step": name, "flags": in_shell(given)} for name, given in flags.items() if given
        ],
        "command": as_command("run_pipeline.py", ["--run_dir", folder, *words]),
    }


def example_settings(plan: dict[str, Any], trained: dict[str, Any]) -> dict[str, str]:
    """Return the rows of tokens as they are for prompts with completions; else none."""
    if "learned_per_step" not in plan:
        return {}
    step, learned = plan["tokens_per_step"], plan["learned_per_step"]
    return {
        "tokens a step": f"about {step:,} of text, {learned:,} of them learned",
        "tokens trained on": (
            f"{trained['tokens']:,} of text, {trained['tokens_learned']:,} of them learned "
            f"(and {trained['padding_tokens']:,} of padding, not counted)"
        ),
    }


def machine_facts(records: dict[str, Any]) -> dict[str, Any]:
    """Return versions and machine, and the figures that differ from run to run (`times`)."""
    machine, trained = (records[n]["measured"] for n in ("import_modules", "train_model"))
    times = {
        "training speed": f"{trained['tokens_per_second']:,} tokens/s",
        "training loop": f"{trained['seconds']:,.1f} s",
        "peak memory": size(trained["peak_memory_bytes"]),
    }
    for name, record in records.items():
        number = STEPS.index(name) + 1
        times[f"step {number}, {name}"] = f"{record['measured']['seconds_in_step']:,.1f} s"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return {
        "machine": f"{machine['device']}, {machine['precision']}, {machine['threads']} threads",
        "versions": versions,
        "times": [{"title": name, "value": value} for name, value in times.items()],
    }


def for_page(svg: str) -> Markup:
    """Return a picture's SVG as a part of the page: its size and colours are the page's."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    for colour, variable in PAGE_COLOURS.items():
        drawing = drawing.replace(colour, variable)
    return Markup(drawing.replace("<svg", '<svg role="img"', 1))
