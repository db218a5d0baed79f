"""Step 5: hold out whole documents, then pack each split into blocks.

Reads documents/ from step 4. Leaves train_test_split.json, splits/, and of a model from
scratch own_tokenizer/, trained on the training documents.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from create_dataset import read_documents
from load_gpt2 import read_tokenizer
from toolkit.run.command import UserError, command
from toolkit.run.console import count
from toolkit.run.files import remove
from toolkit.run.lazily import lazily
from toolkit.run.options import flag, require_ranges
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import parse

with lazily():
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerFast

    from toolkit.blocks.block_splits import (
        make_blocks,
        make_examples,
        refuse_beyond,
        warn_of_loss,
    )
    from toolkit.blocks.document_stream import DocumentStream, keep_held_out, named_contents
    from toolkit.blocks.own_tokenizer import account_of, described, in_own_tokens
    from toolkit.blocks.splitting import (
        column_of,
        compare_with_train,
        learned_in,
        source_of,
        split_documents,
        texts_of,
    )
    from toolkit.blocks.training_stream import Splits, TrainingStream
    from toolkit.blocks.window_hash import leak_of, window_of
    from toolkit.corpus.tokenized_documents import open_splits, save_splits
    from toolkit.model.tokenizer_files import open_tokenizer, save_tokenizer

HELD_OUT = "held_out"  # beside a stream's splits: which documents these hold
OWN_TOKENIZER = "own_tokenizer"  # of a model from scratch: trained on the training text
TEST_TEXT = "test_text"  # beside the splits: the test documents' text, where tokens do not spell it


NO_TEXT_AT_ONCE = (
    "--from_scratch trains its tokenizer on the whole training text, which a stream does not give; "
    "name a part of it with --tokenizer_corpus, or a ready one with --tokenizer"
)


@dataclass
class SplitOptions:
    """step 5, train_test_split"""

    validation_fraction: float = flag(0.1, "share of documents for validation during training")
    test_fraction: float = flag(0.1, "share of documents held out for step 8")
    hold_out_by: Literal["auto", "shuffle", "hash"] = flag(
        "auto",
        "hash: a hash of its words (of a short one, of its file and row too) says where a document "
        "goes, whatever the order, the seed and the rest of the corpus; auto shuffles, and takes "
        "hash with --streaming",
    )
    block_size: int | None = flag(
        None,
        "tokens a block (default: the model's positions, halved until train fills 20 blocks and "
        "validation and test 4 each)",
        above=1,
    )

    def __post_init__(self) -> None:
        require_ranges(self)
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"--{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"--validation_fraction {self.validation_fraction} "
                f"and --test_fraction {self.test_fraction} "
                "leave nothing to train on: their sum must stay below 1"
            )

    def refuse_impossible(self, model: dict[str, Any], run: RunDirectory) -> None:
        """Refuse what a model of these sizes cannot do. `model`: step 3's results."""
        if self.block_size:
            refuse_beyond(model["n_positions"], self.block_size)


def train_test_split(
    documents: DatasetDict | DocumentStream, options: SplitOptions, run: RunDirectory
) -> Splits:
    """Return train, validation and test: `input_ids` of shape (blocks, block_size), token ids.

    A corpus's own validation and test splits are used as they are; what is missing is cut from
    train. A copy of a held-out document is dropped from train, unless it is short. Of a stream,
    train is a TrainingStream, and the others are as large as HELD_OUT_CHARACTERS allows.
    """
    with run.step(__file__, options, after=("load_gpt2", "create_dataset")) as step:
        options.refuse_impossible(run.results("load_gpt2"), run)
        fractions = {"validation": options.validation_fraction, "test": options.test_fraction}
        streamed, work = isinstance(documents, DocumentStream), step.scratch()
        if streamed and run.results("load_gpt2").get("tokenizer_to_train"):
            raise UserError(NO_TEXT_AT_ONCE)
        if not streamed:
            parts, copied = split_documents(
                documents, fractions, run.seed, by_hash=options.hold_out_by == "hash"
            )
        elif options.hold_out_by == "shuffle":
            raise UserError("--hold_out_by shuffle needs every document at once; a stream has hash")
        else:
            documents, parts, stream, copied = keep_held_out(documents, fractions, work)
            step.results["stream"] = stream
        made, step.results["tokenizer"] = run.results("create_dataset")["splits"], None
        if run.results("load_gpt2").get("tokenizer_to_train"):
            tokenizer, documents, parts, made = train_tokenizer(documents, parts, run, work)
            save_tokenizer(tokenizer, step.folder(OWN_TOKENIZER))
            step.results["tokenizer"] = account_of(
                tokenizer, made, run.results("load_gpt2")["vocab_size"]
            )
        else:
            remove(run.path / OWN_TOKENIZER)  # of an earlier time
        longest = run.results("load_gpt2")["n_positions"]
        if run.results("create_dataset")["completions"]:
            learned = learned_in(documents, parts)
            splits, accounts = make_examples(parts, learned, options.block_size, longest)
        else:
            splits, accounts = make_blocks(parts, options.block_size, longest, work)
        size = len(splits["test"][0]["input_ids"])
        if streamed:
            accounts = {"train": dict.fromkeys(accounts["test"]), **accounts}  # not known yet
            splits[HELD_OUT] = named_contents(documents)
        most = size if "length" in splits["test"].column_names else None
        if text := texts_of(source_of(documents, "test"), parts["test"], most):
            splits[TEST_TEXT] = text
        save_splits(splits, step.folder("splits"))
        window = None if streamed else window_of(made)
        share, near = (None, None) if streamed else compare_with_train(documents, parts, window)
        step.results |= {"block_size": size, "splits": accounts, "copies": copied}
        step.results |= {"near_copies": near, "window_tokens": window}
        step.results |= {"test_windows_in_train": share}
        step.notes = warn_of_loss(accounts, size, longest)
        step.summary = summarize(step.results)
    return read_splits(run)


def read_own_tokenizer(run: RunDirectory) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the splits: the one trained here, or else step 3's."""
    if run.results("train_test_split").get("tokenizer") is None:
        return read_tokenizer(run)
    return open_tokenizer(run.artifact("train_test_split", OWN_TOKENIZER))


def train_tokenizer(
    documents: DatasetDict, parts: dict[str, Any], run: RunDirectory, work: Path
) -> tuple[PreTrainedTokenizerFast, DatasetDict, dict[str, Any], dict[str, dict[str, int]]]:
    """Return a tokenizer trained on the training documents, and the splits in its tokens."""
    entries = run.results("load_gpt2")["vocab_size"]
    completions = run.results("create_dataset")["completions"]
    return in_own_tokens(documents, parts, read_tokenizer(run), entries, completions, work)


def read_splits(run: RunDirectory) -> Splits:
    """Return the packed splits of step 5, and of a stream what packs its train split."""
    splits = open_splits(run.artifact("train_test_split", "splits")).with_format("numpy")
    if HELD_OUT not in splits:
        return splits
    results, contents = run.results("train_test_split"), column_of(splits.pop(HELD_OUT), "content")
    shares, size = results["stream"]["shares"], results["block_size"]
    train = TrainingStream(read_documents(run), shares, contents, size, run.seed)
    return {"train": train, **splits}


def read_test_text(run: RunDirectory) -> Dataset | None:
    """Return the text of each document of the test split; None where its tokens spell it."""
    return open_splits(run.finished("train_test_split") / "splits").get(TEST_TEXT)


def summarize(results: dict[str, Any]) -> str:
    own = results.get("tokenizer")
    return summarize_blocks(results) + (f"; its tokenizer: {described(own)}" if own else "")


def summarize_blocks(results: dict[str, Any]) -> str:
    counts = {name: account["blocks"] for name, account in results["splits"].items()}
    train, size = results["splits"]["train"], results["block_size"]
    examples, notes = "tokens_learned" in train, []
    for key, what in (
        ("tokens_left_over", "tokens left over"),
        ("examples_dropped_too_long", "examples dropped: longer than a block"),
        ("conversations_shortened", "conversations lost their oldest turns: longer than a block"),
        ("answers_left_out", "answers in these turns are not learned"),
    ):
        if total := sum(account.get(key) or 0 for account in results["splits"].values()):
            notes.append(f"{total:,} {what}")
    copies = results["copies"].values()
    if dropped := sum(account["documents_dropped"] for account in copies):
        notes.append(f"{count(dropped, 'document')} dropped: copies of held-out ones")
    if kept := sum(account["short_copies_kept"] for account in copies):
        stand = "stand" if kept > 1 else "stands"
        notes.append(f"{count(kept, 'short document')} also {stand} in a held-out split")
    near = {k: account["documents"] for k, account in (results["near_copies"] or {}).items()}
    if sum(near.values()):
        counted = " and ".join(f"{number:,} {name}" for name, number in near.items() if number)
        half = "documents share" if sum(near.values()) > 1 else "document shares"
        notes.append(f"{counted} {half} half or more of the windows with train")
    if (share := results["test_windows_in_train"]) is not None:
        notes.append(leak_of(share))
    held_out = f"{counts['validation']:,} for validation, {counts['test']:,} for the test"
    if stream := results.get("stream"):
        where = f"found in the first {stream['documents_read']:,} documents; "
        return (
            f"training {'examples in rows' if examples else 'blocks'} of {size} tokens come from "
            f"the stream, {held_out} "
            f"({where if stream['documents_read'] else ''}{'; '.join(notes)})"
        )
    blocks = f"{count(counts['train'], 'training block')} of {size} tokens, "
    if examples:
        blocks = (
            f"{counts['train']:,} training examples in rows of {size} tokens: "
            f"{train['tokens_in_blocks']:,} tokens of text, {train['tokens_learned']:,} of them "
            f"learned, {train['padding_tokens']:,} padding; "
        )
    return f"{blocks}{held_out} ({'; '.join(notes)})"


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, SplitOptions, about=__doc__)
    train_test_split(read_documents(run), options, run)


if __name__ == "__main__":
    main()
