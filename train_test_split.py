"""Step 5 of 10: hold out whole documents, then pack each split into blocks.

Reads documents/ from step 4. Leaves train_test_split.json, splits/.
"""

if __name__ == "__main__":
    __import__(
        "install_libraries"
    ).enter_environment()  # from the shell: go on where the libraries are

from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict, load_from_disk

from create_dataset import read_documents
from import_modules import parse
from toolkit.command import UserError, command
from toolkit.documents import save_splits, token_ids
from toolkit.options import flag, require_above
from toolkit.packing import choose_block_size, hold_out, pack
from toolkit.run_directory import RunDirectory


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
    train.
    """
    with run.step(__file__, options, after=("load_gpt2", "create_dataset")) as step:
        parts = split_documents(documents, options, run.seed)
        tokens = {name: sum(map(len, part)) for name, part in parts.items()}
        size = block_size_for(tokens, options, run.results("load_gpt2")["n_positions"])
        splits = {name: pack(part, size) for name, part in parts.items()}
        save_splits(splits, step.folder("splits"))
        step.results = {"block_size": size, "splits": account_for_tokens(parts, splits, size)}
        counts = {name: len(split) for name, split in splits.items()}
        left = sum(account["tokens_left_over"] for account in step.results["splits"].values())
        step.summary = (
            f"{counts['train']:,} training blocks of {size} tokens, "
            f"{counts['validation']:,} for validation, {counts['test']:,} for the test "
            f"({left:,} tokens left over)"
        )
    return read_splits(run)


def read_splits(run: RunDirectory) -> DatasetDict:
    """Return the packed splits of step 5."""
    return load_from_disk(run.finished("train_test_split") / "splits").with_format("numpy")


def split_documents(
    documents: DatasetDict, options: SplitOptions, seed: int
) -> dict[str, list[np.ndarray]]:
    """Return the documents of train, validation and test, each a list of arrays of token ids."""
    own = {name: token_ids(split) for name, split in documents.items()}
    fractions = [
        0.0 if name in own else getattr(options, f"{name}_fraction")
        for name in ("validation", "test")
    ]
    try:
        cut = hold_out(own["train"], *fractions, seed)
    except ValueError as error:
        raise UserError(
            f"--corpus: {error}; cut it finer with --document_separator, or give more"
        ) from None
    return {name: own[name] if name in own and name != "train" else cut[name] for name in cut}


def block_size_for(tokens: dict[str, int], options: SplitOptions, longest: int) -> int:
    """Return the block size asked for, or the automatic one. Refuses what no split could fill."""
    size = options.block_size or choose_block_size(tokens, longest)
    if size > longest:
        raise UserError(f"--block_size {size} is beyond the model's {longest} positions")
    name, fewest = min(tokens.items(), key=lambda entry: entry[1])
    if fewest < size:
        can = f"--block_size {fewest} would do" if fewest > 1 else "give more text"
        raise UserError(
            f"--block_size {size}: the corpus has {sum(tokens.values()):,} tokens, "
            f"and the {name} split only {fewest:,}, less than one block; {can}"
        )
    return size


def account_for_tokens(
    parts: dict[str, list[np.ndarray]], splits: dict[str, Dataset], size: int
) -> dict[str, dict[str, int]]:
    """Return where each token went: tokens_read = tokens_in_blocks + tokens_left_over, by split."""
    accounts = {}
    for name, part in parts.items():
        read, kept = sum(map(len, part)), len(splits[name]) * size
        accounts[name] = {
            "documents": len(part),
            "blocks": len(splits[name]),
            "tokens_read": read,
            "tokens_in_blocks": kept,
            "tokens_left_over": read - kept,
        }
    return accounts


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, SplitOptions, about=__doc__)
    train_test_split(read_documents(run), options, run)


if __name__ == "__main__":
    main()
