"""Step 8: the base model against the tuned one, on the same held-out test split.

Leaves evaluate_model.json, test_losses.parquet (a row for each test document), and
base_scores.safetensors, what the base model scored: it is not scored again while it and the test
split stay the same.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import hashlib
from dataclasses import dataclass
from typing import Any

from create_dataset import is_on_conversations
from load_gpt2 import read_gpt2
from toolkit.run.command import UserError, command
from toolkit.run.console import say
from toolkit.run.lazily import lazily
from toolkit.run.options import flag, require_ranges
from toolkit.run.run_directory import RunDirectory
from toolkit.run.source import source_of
from toolkit.run.start import parse
from toolkit.scoring import broken_text
from toolkit.writing.sampling import EXAMINED
from train_model import read_tuned
from train_test_split import read_own_tokenizer, read_splits, read_test_text

with lazily():
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    from toolkit.blocks.collator import collate
    from toolkit.blocks.training_stream import Splits
    from toolkit.model.forward import GPT2LMHeadModel
    from toolkit.scoring.copying import judge_samples
    from toolkit.scoring.document_losses import extreme_passages, write_document_losses
    from toolkit.scoring.examination import (
        Examination,
        Outcome,
        examine,
        keep_outcome,
        read_outcome,
    )
    from toolkit.scoring.metrics import compare
    from toolkit.scoring.metrics_table import as_text
    from toolkit.scoring.rouge import compare_rouge
    from toolkit.scoring.text_counts import count_text
    from toolkit.scoring.windows import block_size_of, find_pieces
    from toolkit.training.tracked_figures import tell_test_figures
    from toolkit.writing.chat import answering


@dataclass
class EvaluateOptions:
    """step 8, evaluate_model"""

    evaluate_base: bool = flag(True, "score the model from before training too")
    stride: int | None = flag(
        None,
        "score overlapping windows, each this many tokens further on: every token is then "
        "predicted from at least block_size - stride before it (default: blocks, each alone)",
        above=0,
    )

    def __post_init__(self) -> None:
        require_ranges(self)

    def refuse_impossible(self, model: dict[str, Any], run: RunDirectory) -> None:
        """Refuse what a model of these sizes cannot do. `model`: step 3's results."""
        refuse_long_stride(self.stride or 1, model["n_positions"])


def evaluate_model(
    tuned: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    splits: Splits,
    options: EvaluateOptions,
    run: RunDirectory,
) -> dict[str, Any]:
    """Return what the test split says of `base` (unless turned off) and `tuned`; see README."""
    with run.step(__file__, options, after=("train_test_split", "train_model")) as step:
        exam = set_up(tokenizer, splits, options, run)
        outcomes = {"base": score_base(exam, run)} if options.evaluate_base else {}
        outcomes["tuned"] = examine(tuned, exam, "evaluating tuned")
        scores = {name: outcome.sums for name, outcome in outcomes.items()}
        given = (exam.test, tokenizer, collate, exam.pieces, exam.stride)
        text, size = count_text(*given, read_test_text(run)), block_size_of(exam.test)
        step.results = compare(scores, text, exam.pieces, run.seed)
        samples = {name: outcome.samples for name, outcome in outcomes.items()}
        train = splits["train"] if isinstance(splits["train"], Dataset) else None
        copied = judge_samples(samples, train, exam.window)
        context = {"block_size": size, "stride": options.stride, "precision": run.precision}
        written = exam.as_texts(outcomes)
        for name in outcomes:
            broken = broken_text.broken_share([text for entry in written for text in entry[name]])
            step.results[name] |= {**copied[name], "broken_share": broken, "context": context}
        step.results |= {"samples": written, "sampled": exam.sampled(tuned.config.n_positions)}
        step.results["passages"] = extreme_passages(exam.test, tokenizer, scores, exam.pieces)
        if references := [reference for _, reference in exam.examples()]:
            completions = {name: outcome.completions for name, outcome in outcomes.items()}
            step.results["rouge"] = compare_rouge(references, completions, run.seed)
        losses = step.file("test_losses.parquet")
        write_document_losses(losses, scores, text, exam.pieces, size)
        step.summary = summarize(step.results)
    for line in as_text(step.results):
        say(f"       {line}")
    tell_test_figures(run, step.results)
    return read_metrics(run)


def read_metrics(run: RunDirectory) -> dict[str, Any]:
    """Return the results of step 8."""
    return run.results("evaluate_model")


def set_up(
    tokenizer: PreTrainedTokenizerFast,
    splits: Splits,
    options: EvaluateOptions,
    run: RunDirectory,
) -> Examination:
    """Return what both models go through. Refuses a test split or a stride that cannot be."""
    test = splits["test"]
    if not len(test):
        raise UserError(
            f"{run.path}/splits: the test split is empty; give step 5 a larger --test_fraction"
        )
    size = block_size_of(test)
    refuse_long_stride(options.stride or 1, size)
    if options.stride and "length" in test.column_names:
        raise UserError(
            f"--stride {options.stride}: prompts with completions are scored one by one; drop it"
        )
    pieces = find_pieces(test, tokenizer.eos_token_id)
    stride = options.stride or size
    sampling = answering(EXAMINED) if is_on_conversations(run) else EXAMINED
    window = run.results("train_test_split").get("window_tokens")
    given = (test, tokenizer, collate, pieces, stride, run.precision, run.seed)
    return Examination(*given, sampling, window)


def refuse_long_stride(stride: int, longest: int) -> None:
    if stride > longest:
        raise UserError(f"--stride {stride} is beyond the blocks of {longest} tokens")


def score_base(exam: Examination, run: RunDirectory) -> Outcome:
    """Return the base model's outcome: kept from an earlier time where nothing of it can differ."""
    parts = [run.record_hash("load_gpt2"), run.record_hash("train_test_split"), str(exam.stride)]
    parts += [run.device, run.precision, *source_of("toolkit/scoring/examination.py").values()]
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    path = run.path / "base_scores.safetensors"
    outcome = read_outcome(path, key)
    if outcome is None:
        model = read_gpt2(run)[0].to(run.device).eval()
        outcome = examine(model, exam, "evaluating base")
        keep_outcome(path, key, outcome)
    return outcome


def summarize(metrics: dict[str, Any]) -> str:
    """Return one line: the figures of the test split, before and after."""
    tuned, base = metrics["tuned"], metrics.get("base")

    def change(name: str, form: str) -> str:
        values = [model[name] for model in (base, tuned) if model]
        return " -> ".join("none" if value is None else f"{value:{form}}" for value in values)

    broken = tuned.get("broken_share", 0.0)
    doubt = (
        f"; {broken:.0%} of its samples' characters are broken" if broken > broken_text.MOST else ""
    )
    return (
        f"test perplexity {change('perplexity', ',.2f')}, loss {change('loss', '.3f')}, accuracy "
        f"{change('token_accuracy', '.1%')}, bits per byte {change('bits_per_byte', '.3f')} "
        f"({tuned['tokens']:,} tokens{doubt})"
    )


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, EvaluateOptions, about=__doc__)
    evaluate_model(read_tuned(run), read_own_tokenizer(run), read_splits(run), options, run)


if __name__ == "__main__":
    main()
