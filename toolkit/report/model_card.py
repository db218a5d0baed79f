"""The model card: what someone who gets nothing but the model should know of it."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from toolkit.report.markdown import plain
from toolkit.report.report import facts_of, render
from toolkit.run.console import shown
from toolkit.run.files import sha256_of
from toolkit.run.options import in_shell
from toolkit.run.records import Records
from toolkit.run.steps import STEPS
from toolkit.scoring.metrics import METRICS

UNNAMED = "OWNER/NAME"  # until it is published


def model_card(run: Records, metrics: dict[str, Any], name: str = UNNAMED) -> str:
    """Return the card, Markdown below the Hub's metadata. `name`: the Hub id the model goes by.

    Of files and folders it gives the last part alone: where they lie is for no reader to know.
    """
    records = {step: run.record(step) for step in STEPS[1 : STEPS.index("evaluate_model")]}
    start = records["load_gpt2"]["results"]
    made = records["create_dataset"]
    flags = [word for record in records.values() for word in record["measured"]["flags"]]
    corpus = ", ".join(map(last_part, made["options"]["corpus"]))
    return render(
        "model_card.md",
        {
            **facts_of(run, metrics),
            "metadata": metadata_of(records, metrics, name, corpus),
            "headline": headline(start, corpus),
            "name": name,
            "parameters": start["parameters"],
            "positions": start["n_positions"],
            "example": as_literal(metrics["samples"][0]["prompt"]),
            "few": min(60, start["n_positions"] // 2),
            "vocabulary": start["vocab_size"],
            "from_scratch": start["from_scratch"],
            "completions": made["results"]["completions"],
            "conversations": made["results"].get("conversations", False),
            "separator": json.dumps(made["options"]["completion_separator"].replace("\\n", "\n")),
            "flags": in_shell(list(map(last_part, flags))) or "(none)",
            "hashes": hashes_of(records, run.path / "model"),
            "precision": records["import_modules"]["measured"]["precision"],
        },
    )


def metadata_of(
    records: dict[str, dict[str, Any]], metrics: dict[str, Any], name: str, corpus: str
) -> str:
    """Return the YAML that the Hub reads. What cannot be known (licence, language) is left out."""
    start = records["load_gpt2"]["results"]
    hub_corpora = [
        word.split(":")[1]
        for word in records["create_dataset"]["options"]["corpus"]
        if word.startswith("hub:")
    ]
    figures = [
        EvalResult(
            task_type="text-generation",
            dataset_type=hub_corpora[0] if hub_corpora else "local-files",
            dataset_name=f"held-out part of {corpus}",
            dataset_split="test",
            metric_type=metric.name.removeprefix("token_"),
            metric_name=metric.title,
            metric_value=metrics["tuned"].get(metric.name),
        )
        for metric in METRICS
        if metrics["tuned"].get(metric.name) is not None
    ]
    return ModelCardData(
        model_name=name.split("/")[-1],
        eval_results=figures,
        base_model=start["model"] if start["revision"] else None,
        datasets=hub_corpora or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["gpt2", "from-scratch" if start["from_scratch"] else "fine-tuned"],
    ).to_yaml()


def as_literal(prompt: str) -> str:
    """Return a prompt as Python writes it, without what a page of Markdown would obey."""
    text = json.dumps(shown(prompt or "It was"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("`", "\\u0060")


def headline(start: dict[str, Any], corpus: str) -> str:
    if start["from_scratch"]:
        return f"A new GPT-2, trained on {plain(corpus)}"
    revision = f" (revision {start['revision'][:12]})" if start["revision"] else ""
    return f"{plain(last_part(start['model']))}{revision}, fine-tuned on {plain(corpus)}"


def hashes_of(records: dict[str, dict[str, Any]], model: Path) -> list[dict[str, str]]:
    """Return what tells this model and its data from any other: sha256, and Hub revisions."""
    made, split = records["create_dataset"], records["train_test_split"]["results"]
    whole = not made["options"]["streaming"]
    found = {
        "sha256 of the corpus files": made["inputs"] if whole else None,
        "sha256 of the corpus files' names, sizes and ends": None if whole else made["inputs"],
        "revision of the corpus on the Hub": made["results"].get("revision"),
        "sha256 of the splits": split.get("artifacts", {}).get("splits", {}).get("sha256"),
    }
    for file in sorted(model.glob("*.safetensors")):
        found[f"sha256 of {file.name}"] = sha256_of([file])
    return [{"title": title, "value": value} for title, value in found.items() if value]


def last_part(word: str) -> str:
    """Return a path that leaves the working folder as its last part alone, other words as is."""
    outside = Path(word).is_absolute() or word.startswith(("~", ".."))
    return Path(word).name or word if outside else word
