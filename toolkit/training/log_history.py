"""log_history.jsonl: what training logged, one JSON object a line, whole after every line."""

import json
from pathlib import Path

from toolkit.run.command import UserError, first_line
from toolkit.run.files import json_of

LOG = "log_history.jsonl"  # in the run directory
MEASURED = ("tokens_per_second", "model_flops_utilization", "peak_memory_bytes")
AGAIN = "write it anew with: python3 train_model.py"


def as_line(entry: dict[str, float]) -> str:
    """Return a log entry as JSON, what differs from run to run apart, under `measured`."""
    lasting = {k: v for k, v in entry.items() if k not in MEASURED and not k.startswith("train_")}
    measured = {key: entry[key] for key in MEASURED if key in entry}
    return json.dumps({**lasting, **({"measured": measured} if measured else {})}) + "\n"


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the entries of a log file, flat; a last line that is still being written is left out.

    Raises UserError where the file is missing or another line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {AGAIN}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            entry = json_of(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise UserError(f"{path}: line {number} is no log entry; {AGAIN}")
        entries.append({**entry, **entry.pop("measured", {})})
    return entries
