"""Run the ten steps in order: install, load, train, evaluate, plot, sample.

    python3 run_pipeline.py                                    everything, on the text that ships
    python3 run_pipeline.py --model gpt2 --corpus my_text.txt  fine-tune GPT-2 on your own text
    python3 run_pipeline.py --interactive                      talk to the result; trains if need be

A step that is done and whose options, source and inputs are unchanged is not done again.
"""

if __name__ == "__main__":
    __import__("install_libraries").enter_environment(install=True)

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from configure_trainer import TrainerOptions, configure_trainer, read_trainer
from create_dataset import DatasetOptions, create_dataset, read_documents
from evaluate_model import EvaluateOptions, evaluate_model, read_metrics, summarize
from generate import GenerateOptions, converse, generate, read_samples
from import_modules import RunOptions, import_modules, read_run
from load_gpt2 import LoadOptions, load_gpt2, read_gpt2
from toolkit.report.comparison import compare_runs
from toolkit.report.publishing import publish
from toolkit.run.command import UserError, command
from toolkit.run.config_file import read_config_file
from toolkit.run.console import say
from toolkit.run.options import build, flag, parse_flags
from toolkit.run.records import STEPS
from toolkit.run.run_directory import RunDirectory
from train_model import TrainOptions, read_tuned, train_model
from train_test_split import SplitOptions, read_splits, train_test_split
from visualize_performance import VisualizeOptions, read_report, visualize_performance

# Every step with its options and the reader of what it left.
LINKS: dict[Callable, tuple[type, Callable]] = {
    import_modules: (RunOptions, lambda run: None),
    load_gpt2: (LoadOptions, read_gpt2),
    create_dataset: (DatasetOptions, read_documents),
    train_test_split: (SplitOptions, read_splits),
    configure_trainer: (TrainerOptions, read_trainer),
    train_model: (TrainOptions, read_tuned),
    evaluate_model: (EvaluateOptions, read_metrics),
    visualize_performance: (VisualizeOptions, read_report),
    generate: (GenerateOptions, read_samples),
}


@dataclass
class RunnerOptions:
    """runner"""

    config: str | None = flag(None, "YAML or JSON file of flags; flags given here win over it")
    from_step: int = flag(2, "read what the steps before N left, and start at N")
    to_step: int = flag(10, "stop after step N")
    force: bool = flag(False, "do every step anew, up to date or not")

    def __post_init__(self) -> None:
        for name in ("from_step", "to_step"):
            if not 1 <= getattr(self, name) <= len(STEPS):
                raise ValueError(
                    f"--{name} must lie between 1 and {len(STEPS)}, got {getattr(self, name)}"
                )
        if self.from_step > self.to_step:
            raise ValueError(f"--from_step {self.from_step} comes after --to_step {self.to_step}")


class LastStepDone(Exception):
    """The chain has reached --to_step."""


class Chain:
    """Do a step, or read what it left where doing it would change nothing."""

    def __init__(self, given: dict[str, Any]):
        self.runner = build(RunnerOptions, given)
        self.options = {
            step: build(options_class, given) for step, (options_class, _) in LINKS.items()
        }
        self.run = read_run(self.options[import_modules])
        self.given = given
        for name in ("interactive", "serve", "push_to_hub"):
            if name in given and self.runner.to_step < len(STEPS):
                raise UserError(f"--{name} comes after step 10: drop --to_step")

    def __call__(self, step: Callable, *inputs: Any) -> Any:
        name, options, read = step.__name__, self.options[step], LINKS[step][1]
        number = STEPS.index(name) + 1
        if number > self.runner.to_step:
            raise LastStepDone
        if number < self.runner.from_step:
            self.refuse_ignored_flags(name, number, options)
            self.run.finished(name)
            return read(self.run)
        if not self.runner.force and self.run.is_current(name, options):
            say(f"[{number}/10] up to date: {self.run.record(name)['measured']['summary']}")
            return read(self.run)
        return step(*inputs, options, self.run)

    def refuse_ignored_flags(self, name: str, number: int, options: Any) -> None:
        """Refuse a flag that only a step before --from_step would obey."""
        record = self.run.record(name)
        for option in fields(options):
            known = record["options"].get(option.name, None) if record else None
            if option.name in self.given and option.name in (record or {}).get("options", {}):
                if self.given[option.name] != known:
                    raise UserError(
                        f"--{option.name} is for step {number}, "
                        f"before --from_step {self.runner.from_step}; "
                        f"in {self.run.path} it is {known}"
                    )


@command
def main(argv: list[str] | None = None) -> None:
    groups = [RunnerOptions, *(options_class for options_class, _ in LINKS.values())]
    given = parse_flags(argv, __doc__, *groups)
    if "config" in given:
        given = {**read_config_file(given["config"], *groups), **given}
    chain = Chain(given)
    try:
        run_steps(chain)
    except LastStepDone:
        pass
    if compared := chain.options[visualize_performance].compare:
        say(compare_runs(compared))


def run_steps(chain: Chain) -> None:
    """The pipeline."""
    say(f"[1/10] up to date: the libraries are in {sys.prefix}")
    chain(import_modules)
    model, tokenizer = chain(load_gpt2)
    documents = chain(create_dataset, tokenizer)
    splits = chain(train_test_split, documents)
    trainer = chain(configure_trainer, model, splits)
    tuned = chain(train_model, trainer, tokenizer)
    metrics = chain(evaluate_model, tuned, tokenizer, splits)
    report = chain(visualize_performance, metrics)
    samples = chain(generate, tuned, tokenizer, splits)
    if chain.options[generate].interactive or chain.options[generate].serve:
        converse(tuned, tokenizer, chain.options[generate], chain.run)
    else:
        conclude(report, metrics, samples, chain.run)
    if name := chain.options[generate].push_to_hub:
        publish(chain.run, name)


def conclude(report: Any, metrics: dict[str, Any], samples: list[dict], run: RunDirectory) -> None:
    """Print where the report is, what training changed, and one sample."""
    say(f"\nreport    {report}")
    say(f"plot      {run.path / 'performance.png'}")
    say(f"result    {summarize(metrics)}")
    prompt = samples[0]["prompt"] if len(samples[0]["prompt"]) < 80 else samples[0]["prompt"][-60:]
    say(f"before    {one_line(prompt + samples[0]['base'][0])}")
    say(f"after     {one_line(prompt + samples[0]['tuned'][0])}")
    say(f"model     {run.path / 'model'}  (more samples: {run.path / 'samples.md'})")


def one_line(text: str, longest: int = 300) -> str:
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= longest else words[:longest].rsplit(" ", 1)[0] + " ..."


if __name__ == "__main__":
    main()
