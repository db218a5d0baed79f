"""Which training a checkpoint belongs to: what its weights depend on, and nothing else.

A stopped training goes on where the same weights would come out; flags that only say what is
logged, saved and told may differ.
"""

import hashlib
import json
from typing import Any

# Options of step 6 that change no weight, and fields of TrainingArguments that do not either.
TELLS = {"report_to", "save_steps", "logging_steps"}
TELLS_OF_LIBRARY = {"logging_first_step", "log_level", "run_name", "project"}
# What of the plan is told, or follows from the rest of it.
FOLLOWS = TELLS | {"epochs", "trials", "trial_steps"}
SETTLED = {"num_train_epochs", "max_steps"}  # options that the plan's `steps` stand for


def hash_of_training(record: dict[str, Any]) -> str:
    """Return a hash of all that the weights depend on. `record`: of step 6.

    What the plan settles counts as it was settled: 5e-5 given is 5e-5 by default.
    """
    plan = {name: value for name, value in record["results"].items() if name not in FOLLOWS}
    settled = TELLS | SETTLED | plan.keys()
    options = {name: value for name, value in record["options"].items() if name not in settled}
    pairs = [pair for pair in options.pop("trainer") or [] if key_of(pair) not in TELLS_OF_LIBRARY]
    lasting = [plan, options, sorted(pairs), record["inputs"], record["after"]]
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


def key_of(pair: str) -> str:
    return pair.partition("=")[0]
