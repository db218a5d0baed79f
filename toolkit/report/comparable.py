"""Why figures of several runs cannot be compared: they are of other text, or of other blocks."""

from collections.abc import Callable
from typing import Any

StepRecords = dict[str, dict[str, Any]]  # of one run, by step


def text_of(records: StepRecords) -> Any:
    """Return what tells one corpus from another."""
    made = records["create_dataset"]
    return made["inputs"] or made["options"]["corpus"], made["results"].get("revision")


def held_out(records: StepRecords) -> Any:
    """Return what decides which documents are held out, apart from the corpus."""
    made, split = records["create_dataset"]["options"], records["train_test_split"]["options"]
    shares = {name: value for name, value in split.items() if name != "block_size"}
    made = {name: value for name, value in made.items() if name != "corpus"}
    return made, shares, records["import_modules"]["options"]["seed"]


def block_size(records: StepRecords) -> Any:
    return records["train_test_split"]["results"]["block_size"]


def stride(records: StepRecords) -> Any:
    return records["evaluate_model"]["options"]["stride"] or "as long as the block"


def vocabulary(records: StepRecords) -> Any:
    return records["load_gpt2"]["results"]["vocab_size"]


Differ = tuple[Callable[[StepRecords], Any], str]
TEXTS: Differ = (
    text_of,
    "the runs have different corpora: their losses, perplexities and bits per byte cannot be "
    "compared",
)
DOCUMENTS: Differ = (
    held_out,
    "the runs hold out different documents (their seed, or flags of step 4 or 5, differ): their "
    "figures are of different text and cannot be compared",
)
OTHERS: tuple[Differ, ...] = (
    (
        block_size,
        "block sizes differ ({}): a longer block gives more text to predict from, so that losses "
        "and perplexities cannot be compared; run step 5 with one --block_size for all",
    ),
    (
        vocabulary,
        "tokenizers differ ({} tokens): losses and perplexities cannot be compared, bits per byte "
        "and word perplexities can",
    ),
    (stride, "step 8 had different strides ({}): the test figures cannot be compared"),
)


def why_not_comparable(runs: list[StepRecords]) -> list[str]:
    """Return a sentence for each thing that keeps the runs' figures from being compared."""
    found = [TEXTS] if differ(runs, text_of) else [DOCUMENTS] if differ(runs, held_out) else []
    found += [(of, says) for of, says in OTHERS if differ(runs, of)]
    return [says.format(", ".join(map(str, values_of(runs, of)))) for of, says in found]


def values_of(runs: list[StepRecords], of: Callable[[StepRecords], Any]) -> list[Any]:
    """Return the different values, in the runs' order; a run that has not come so far has none."""
    values: list[Any] = []
    for records in runs:
        try:
            value = of(records)
        except KeyError:
            continue
        if value not in values:
            values.append(value)
    return values


def differ(runs: list[StepRecords], of: Callable[[StepRecords], Any]) -> bool:
    return len(values_of(runs, of)) > 1
