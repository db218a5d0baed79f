"""log_history.jsonl: what training logged, one JSON object a line, whole after every line."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

MEASURED = ("tokens_per_second", "model_flops_utilization", "peak_memory_bytes")


class LogHistory(TrainerCallback):
    """Write what Trainer logs to a file of JSON lines, each line flushed when it is known."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.path.write_text("".join(as_line(entry) for entry in state.log_history))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        with self.path.open("a") as file:
            file.write(as_line(state.log_history[-1]))


def as_line(entry: dict[str, float]) -> str:
    """Return a log entry as JSON, what differs from run to run apart, under `measured`."""
    lasting = {k: v for k, v in entry.items() if k not in MEASURED and not k.startswith("train_")}
    measured = {key: entry[key] for key in MEASURED if key in entry}
    return json.dumps({**lasting, **({"measured": measured} if measured else {})}) + "\n"


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the entries of a log file, flat; a last line cut off by a crash is left out."""
    lines = path.read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{**entry, **entry.pop("measured", {})} for entry in entries]
