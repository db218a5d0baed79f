"""Which training a checkpoint belongs to, and what another one may go on from it with.

What the weights depend on is told apart from what only says what is logged, saved and told. A
checkpoint keeps its own: the same training goes on by itself, and so does a longer one whose
learning rates until then are the same. Of all else `--resume CHECKPOINT` decides.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.run.command import UserError
from toolkit.run.lazily import lazily
from toolkit.run.run_directory import RunDirectory

with lazily():
    from toolkit.training.schedule import planned_rates

# Options of step 6 that change no weight, and fields of TrainingArguments that do not either.
TELLS = {"report_to", "save_steps", "logging_steps", "max_minutes"}
TELLS_OF_LIBRARY = {"logging_first_step", "log_level", "run_name", "project"}
# What the plan settles. What is not here is told, or follows from the rest.
PLANNED = ("steps", "learning_rate", "warmup_steps", "eval_steps")
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
SETTLED = {"num_train_epochs", "max_steps"}  # options that the plan's `steps` stand for
SEES_VALIDATION = ("reduce_lr_on_plateau", "greedy")  # schedules that go by its losses
LENGTH = {"steps", "warmup_steps", "eval_steps"}  # two of them as shares of the first
# What a training that goes on with `--resume CHECKPOINT` cannot change, and why.
FIXED = {
    "blocks": "its text, or its blocks, are others (steps 4 and 5)",
    "base_model": "its base model is another (step 3)",
    "seed": "it orders the blocks",
    "trainer data_seed": "it orders the blocks",
    "trainable_blocks": "other weights would be trained",
    "lora_rank": "other weights would be trained",
    "trainer optim": "its state is that of another optimizer",
    "trainer optim_args": "its state is that of another optimizer",
}
MADE_FOR = "made_for.json"  # in a checkpoint: settings, and what was changed on the way


def settings_of(run: RunDirectory) -> dict[str, Any]:
    """Return all that the weights of the run's training depend on, by the names of flags."""
    asked = run.record("import_modules")["options"]
    streamed = run.results("train_test_split")["splits"]["train"]["blocks"] is None
    return {
        **planned_settings(run.record("configure_trainer")),
        **{name: asked[name] for name in ("seed", "device", "precision")},
        "base_model": content_of(run, "load_gpt2", "base_model"),
        "blocks": content_of(run, "train_test_split", "" if streamed else "splits"),
    }


def content_of(run: RunDirectory, step: str, artifact: str) -> str:
    """Return the sha256 of what a step left, or of its record where that is elsewhere."""
    left = run.results(step).get("artifacts", {}).get(artifact)
    return left["sha256"] if left else run.record_hash(step)


def planned_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Return what of step 6 the weights depend on.

    What the plan settles counts as it was settled: 5e-5 given is 5e-5 by default.
    """
    plan = {name: record["results"][name] for name in (*PLANNED, *BATCH)}
    options = {k: v for k, v in record["options"].items() if k not in TELLS | SETTLED}
    pairs = [pair.partition("=") for pair in options.pop("trainer") or []]
    more = {f"trainer {key}": value for key, _, value in pairs if key not in TELLS_OF_LIBRARY}
    return options | plan | more


def changes(known: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the names of differing settings, and what each was and is."""
    names = sorted({*known, *now})
    return {n: [known.get(n), now.get(n)] for n in names if known.get(n) != now.get(n)}


def made_for(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's `settings`, and what was changed on the way to it: `continued`.

    Both are empty where it does not say so.
    """
    try:
        made = json.loads((checkpoint / MADE_FOR).read_text())
        if made["settings"].keys() >= {*PLANNED, *BATCH, "lr_scheduler_type"}:
            return {"settings": made["settings"], "continued": list(made["continued"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {"settings": {}, "continued": []}


def made_now(checkpoint: Path | None, step: int, now: dict[str, Any]) -> dict[str, Any]:
    """Return what the checkpoints of a training are made for that goes on from one, or begins."""
    if checkpoint is None:
        return {"settings": now, "continued": []}
    known = made_for(checkpoint)
    changed = changes(known["settings"], now)
    new = [{"from_step": step, "changed": changed}] if changed else []
    return {"settings": now, "continued": known["continued"] + new}


def differs_in_length_only(known: dict[str, Any], now: dict[str, Any]) -> bool:
    changed = changes(known, now).keys()
    return "steps" in changed and changed <= LENGTH


def has_the_same_rates(known: dict[str, Any], now: dict[str, Any], step: int) -> bool:
    """Tell whether the learning rates until a step are those that a longer training would have.

    Warmup that is over counts as it was: as a share of all steps it would be longer now.
    """
    if known["lr_scheduler_type"] in SEES_VALIDATION:
        return known["eval_steps"] == now["eval_steps"]
    then = rates(now | {"warmup_steps": known["warmup_steps"]})
    return rates(known)[:step] == then[:step] and then[step:] == rates(now)[step:]


def rates(settings: dict[str, Any]) -> list[float] | None:
    names = ("learning_rate", "lr_scheduler_type", "warmup_steps", "steps")
    kwargs = json.loads(settings.get("trainer lr_scheduler_kwargs") or "{}")
    return planned_rates(*(settings[name] for name in names), kwargs)


def refuse_what_cannot_change(known: dict[str, Any], now: dict[str, Any], what: str) -> None:
    """Refuse a training that cannot go on from a checkpoint. `what`: begins the message."""
    changed = changes(known, now)
    for name, why in FIXED.items():
        if name in changed:
            raise UserError(f"{what}: {why}; {was_and_is(name, changed)}it cannot be gone on from")
    batches = [settings[BATCH[0]] * settings[BATCH[1]] for settings in (known, now)]
    if batches[0] != batches[1]:
        raise UserError(
            f"{what}: --{BATCH[0]} times --{BATCH[1]} was {batches[0]} and is {batches[1]}: the "
            f"place in the text would be lost; keep the product {batches[0]}"
        )
    kinds = {settings["lr_scheduler_type"] for settings in (known, now)}
    if len(kinds) == 1 and kinds <= set(SEES_VALIDATION) and "learning_rate" in changed:
        raise UserError(
            f"{what}: --learning_rate cannot change under {kinds.pop()}, which finds its own; give "
            f"{known['learning_rate']:g}"
        )


def was_and_is(name: str, changed: dict[str, list[Any]]) -> str:
    if name in ("blocks", "base_model"):
        return ""
    return f"--{name} was {changed[name][0]} and is {changed[name][1]}: "


def describe_changes(part: dict[str, Any]) -> str:
    """Return from which step on a training went on with which other settings."""
    names = [f"{name} {was} -> {now}" for name, (was, now) in part["changed"].items()]
    return f"from step {part['from_step']:,} on with {', '.join(names)}"
