"""Step 8 of 10: the base model against the tuned one, on the same held-out test blocks.

Leaves evaluate_model.json.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from typing import Any

from datasets import DatasetDict
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from create_dataset import collate
from import_modules import parse
from load_gpt2 import read_gpt2
from toolkit.command import command
from toolkit.options import flag
from toolkit.run_directory import RunDirectory
from toolkit.scoring import as_metrics, count_text, score_blocks
from train_model import read_tuned
from train_test_split import read_splits


@dataclass
class EvaluateOptions:
    """step 8, evaluate_model"""

    evaluate_base: bool = flag(True, "score the model from before training too")


def evaluate_model(
    tuned: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    splits: DatasetDict,
    options: EvaluateOptions,
    run: RunDirectory,
) -> dict[str, Any]:
    """Return the test metrics of `base` (unless turned off) and `tuned`; see `as_metrics`."""
    with run.step(__file__, options, after=("train_test_split", "train_model")) as step:
        test = splits["test"]
        text = count_text(test, tokenizer, collate)
        context = {
            "block_size": len(test[0]["input_ids"]),
            "stride": None,
            "precision": run.precision,
        }
        models = {"base": None, "tuned": tuned} if options.evaluate_base else {"tuned": tuned}
        for name, model in models.items():
            model = model or read_gpt2(run)[0].to(run.device).eval()
            sums = score_blocks(model, test, collate, run.precision, f"evaluating {name}")
            step.results[name] = {**as_metrics(sums, text), "context": context}
        step.summary = summarize(step.results)
        metrics = dict(step.results)
    return metrics


def read_metrics(run: RunDirectory) -> dict[str, Any]:
    """Return the metrics of step 8."""
    return run.results("evaluate_model")


def summarize(metrics: dict[str, Any]) -> str:
    """Return one line: the figures of the test split, before and after."""
    tuned, base = metrics["tuned"], metrics.get("base")

    def change(name: str, form: str) -> str:
        before = f"{base[name]:{form}} -> " if base else ""
        return before + f"{tuned[name]:{form}}"

    return (
        f"test perplexity {change('perplexity', ',.2f')}, loss {change('loss', '.3f')}, accuracy "
        f"{change('token_accuracy', '.1%')}, bits per byte {change('bits_per_byte', '.3f')} "
        f"({tuned['tokens']:,} tokens)"
    )


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, EvaluateOptions, about=__doc__)
    evaluate_model(read_tuned(run), read_gpt2(run)[1], read_splits(run), options, run)


if __name__ == "__main__":
    main()
