"""Step 5 of 10: hold out whole documents, then pack each split into blocks.

Reads documents/ from step 4. Leaves train_test_split.json, splits/.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_from_disk

from create_dataset import read_documents
from import_modules import parse
from toolkit.command import UserError, command
from toolkit.leakage import leak
from toolkit.options import flag, require_above
from toolkit.packing import Selection, choose_block_size, pack, pad_examples
from toolkit.run_directory import RunDirectory
from toolkit.splitting import split_documents
from toolkit.tokenized_documents import save_splits


@dataclass
class SplitOptions:
    """step 5, train_test_split"""

    validation_fraction: float = flag(0.1, "share of documents for validation during training")
    test_fraction: float = flag(0.1, "share of documents held out for step 8")
    block_size: int | None = flag(
        None,
        "tokens a block (default: the model's positions, halved until train fills 20 blocks and "
        "validation and test 4 each)",
    )

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"--{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"--validation_fraction {self.validation_fraction} "
                f"and --test_fraction {self.test_fraction} "
                "leave nothing to train on: their sum must stay below 1"
            )
        require_above(self, 1, "block_size")


def train_test_split(
    documents: DatasetDict, options: SplitOptions, run: RunDirectory
) -> DatasetDict:
    """Return train, validation and test: `input_ids` of shape (blocks, block_size), token ids.

    A corpus's own validation and test splits are used as they are; what is missing is cut from
    train. A copy of a held-out document is dropped from train.
    """
    with run.step(__file__, options, after=("load_gpt2", "create_dataset")) as step:
        fractions = {"validation": options.validation_fraction, "test": options.test_fraction}
        parts, copied = split_documents(documents, fractions, run.seed)
        if run.results("create_dataset")["completions"]:
            splits, accounts = make_examples(documents, parts, options, run)
        else:
            splits, accounts = make_blocks(parts, options, run, step.scratch())
        save_splits(splits, step.folder("splits"))
        size = len(splits["test"][0]["input_ids"])
        share = leak(parts["train"], parts["test"])
        step.results = {"block_size": size, "splits": accounts, "copies": copied}
        step.results["test_13_token_windows_in_train"] = share
        step.summary = summarize(step.results)
    return read_splits(run)


def read_splits(run: RunDirectory) -> DatasetDict:
    """Return the packed splits of step 5."""
    return load_from_disk(run.finished("train_test_split") / "splits").with_format("numpy")


def make_blocks(
    parts: dict[str, Selection], options: SplitOptions, run: RunDirectory, work: Path
) -> tuple[dict[str, Dataset], dict[str, dict[str, int]]]:
    """Return packed blocks and where every token went: read = in blocks + left over, per split."""
    tokens = {name: part.tokens() for name, part in parts.items()}
    size = block_size_for(tokens, options, run.results("load_gpt2")["n_positions"])
    splits = {name: pack(part, size, work / f"{name}.arrow") for name, part in parts.items()}
    accounts = {}
    for name, part in parts.items():
        kept = len(splits[name]) * size
        accounts[name] = {
            "documents": len(part),
            "blocks": len(splits[name]),
            "tokens_read": tokens[name],
            "tokens_in_blocks": kept,
            "tokens_left_over": tokens[name] - kept,
        }
    return splits, accounts


def make_examples(
    documents: DatasetDict, parts: dict[str, Selection], options: SplitOptions, run: RunDirectory
) -> tuple[dict[str, Dataset], dict[str, dict[str, int]]]:
    """Return prompt/completion examples, one a row, and where every token went, per split."""
    longest = run.results("load_gpt2")["n_positions"]
    needed = max(len(example) for part in parts.values() for example in part)
    size = options.block_size or min(longest, -(-needed // 8) * 8)
    refuse_beyond(longest, size)
    splits, accounts = {}, {}
    for name, part in parts.items():
        source = documents[name if name in documents else "train"].with_format("numpy")
        starts = np.asarray(source["prompt_tokens"])[part.order]
        end = int(part.documents[0][-1])
        splits[name], dropped = pad_examples(part, starts, size, padding=end)
        if not len(splits[name]):
            raise UserError(f"--block_size {size}: every {name} example is longer than that")
        kept = int(np.sum(splits[name]["length"]))
        accounts[name] = {
            "documents": len(part),
            "blocks": len(splits[name]),
            "tokens_read": part.tokens(),
            "tokens_in_blocks": kept,
            "tokens_left_over": 0,
            **dropped,
        }
    return splits, accounts


def block_size_for(tokens: dict[str, int], options: SplitOptions, longest: int) -> int:
    """Return the block size asked for, or the automatic one. Refuses what no split could fill."""
    size = options.block_size or choose_block_size(tokens, longest)
    refuse_beyond(longest, size)
    name, fewest = min(tokens.items(), key=lambda entry: entry[1])
    if fewest < size:
        can = f"--block_size {fewest} would do" if fewest > 1 else "give more text"
        raise UserError(
            f"--block_size {size}: the corpus has {sum(tokens.values()):,} tokens, "
            f"and the {name} split only {fewest:,}, less than one block; {can}"
        )
    return size


def refuse_beyond(longest: int, size: int) -> None:
    if size > longest:
        raise UserError(f"--block_size {size} is beyond the model's {longest} positions")


def summarize(results: dict[str, Any]) -> str:
    counts = {name: account["blocks"] for name, account in results["splits"].items()}
    notes = []
    for key, what in (
        ("tokens_left_over", "tokens left over"),
        ("examples_dropped_too_long", "examples dropped: longer than a block"),
    ):
        if total := sum(account.get(key, 0) for account in results["splits"].values()):
            notes.append(f"{total:,} {what}")
    if dropped := sum(account["documents_dropped"] for account in results["copies"].values()):
        notes.append(f"{dropped:,} documents dropped: copies of held-out ones")
    if (share := results["test_13_token_windows_in_train"]) is not None:
        notes.append(f"{share:.1%} of test 13-token windows also in train")
    return (
        f"{counts['train']:,} training blocks of {results['block_size']} tokens, "
        f"{counts['validation']:,} for validation, {counts['test']:,} for the test "
        f"({'; '.join(notes)})"
    )


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, SplitOptions, about=__doc__)
    train_test_split(read_documents(run), options, run)


if __name__ == "__main__":
    main()
