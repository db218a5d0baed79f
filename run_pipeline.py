"""Run all steps in order: install, load, train, evaluate, plot, sample.

    python3 run_pipeline.py                                    everything, on the text that ships
    python3 run_pipeline.py --model gpt2 --corpus my_text.txt  fine-tune GPT-2 on your own text
    python3 run_pipeline.py --interactive                      talk to the result; trains if need be

A step that is done and whose options, code and input files are unchanged is not done again.
"""

from __future__ import annotations

if __name__ == "__main__":
    __import__("install_libraries").enter_environment(install=True)

import functools
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from configure_trainer import configure_trainer, read_trainer
from create_dataset import create_dataset, read_documents
from evaluate_model import evaluate_model, read_metrics, summarize
from generate import converse, generate, read_samples
from import_modules import import_modules
from load_gpt2 import load_gpt2, read_gpt2
from toolkit.run.command import UserError, command
from toolkit.run.config_file import read_config_file
from toolkit.run.console import say
from toolkit.run.lazily import lazily
from toolkit.run.options import build, flag, parse_flags
from toolkit.run.records import NOT_RUN, Damaged
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import changed_versions, read_run
from toolkit.run.steps import STEPS, label, number_of
from toolkit.training.library_fields import OF_BLOCKS
from train_model import read_tuned, train_model
from train_test_split import read_own_tokenizer, read_splits, train_test_split
from visualize_performance import read_report, visualize_performance

with lazily():
    from toolkit.report.comparison import compare_runs
    from toolkit.report.publishing import publish
    from toolkit.report.samples_page import endings
    from toolkit.run.characters import characters, shortened


@dataclass
class RunnerOptions:
    """runner"""

    config: str | None = flag(None, "YAML or JSON file of flags; flags given here win over it")
    from_step: int = flag(2, "read what the steps before N left, and start at N")
    to_step: int = flag(len(STEPS), "stop after step N")
    force: bool = flag(False, "do every step anew, up to date or not")

    def __post_init__(self) -> None:
        for name in ("from_step", "to_step"):
            if not 1 <= getattr(self, name) <= len(STEPS):
                raise ValueError(
                    f"--{name} must lie between 1 and {len(STEPS)}, got {getattr(self, name)}"
                )
        if self.from_step > self.to_step:
            raise ValueError(f"--from_step {self.from_step} comes after --to_step {self.to_step}")


JOINERS = "\u200c\u200d"  # they shape letters and pictures, and are no more printable than a space


class LastStepDone(Exception):
    """The chain has reached --to_step."""


class Left:
    """What a finished step left: read when a later step needs it, and not before."""

    def __init__(self, read: Callable[[], Any]):
        self.read = functools.cache(read)

    def __getitem__(self, part: int) -> Left:
        return Left(lambda: self.read()[part])


class Chain:
    """Do a step, or take what it left where doing it would change nothing."""

    def __init__(self, given: dict[str, Any]):
        self.given, self.runner, self.looked_ahead = given, build(RunnerOptions, given), False
        self.options = {name: build(options_of(name), given) for name in STEPS[1:]}
        if self.runner.force and "resume" not in given:
            self.options["train_model"].resume = "never"
        self.run = read_run(self.options["import_modules"])
        for name in ("interactive", "serve", "push_to_hub"):
            if name in given and self.runner.to_step < len(STEPS):
                raise UserError(f"--{name} comes after step {len(STEPS)}: drop --to_step")
        self.refuse_contradictions()

    def refuse_contradictions(self) -> None:
        """Refuse flags of several steps that cannot go together."""
        splitting, training = self.options["train_test_split"], self.options["configure_trainer"]
        if self.options["create_dataset"].streaming:
            if splitting.hold_out_by == "shuffle" and self.runner.to_step >= 5:
                raise UserError(
                    "--hold_out_by shuffle needs every document at once; a stream has hash"
                )
            if not training.max_steps and self.runner.to_step >= 6:
                raise UserError("--max_steps is needed with --streaming: a stream has no known end")
            for pair in training.trainer or []:
                if why := OF_BLOCKS.get(pair.partition("=")[0]):
                    raise UserError(f"--trainer {pair}: {why}")
        stride, block_size = self.options["evaluate_model"].stride, splitting.block_size
        if stride and block_size and stride > block_size:
            raise UserError(f"--stride {stride} is beyond the blocks of {block_size} tokens")

    def __call__(self, step: Callable, read: Callable | None, *inputs: Any) -> Any:
        """Return what `step` returns, from `inputs`, or what `read` finds that it left."""
        name = step.__name__
        number, options, left = number_of(name), self.options[name], Left(lambda: read(self.run))
        if number > self.runner.to_step:
            raise LastStepDone
        if number < self.runner.from_step:
            self.refuse_ignored_flags(name, number, options)
            self.run.finished(name)
            return left
        reason = "--force" if self.runner.force else self.run.reason_to_redo(name, options)
        if reason is None and name == "import_modules":  # a new version redoes nothing else
            reason = changed_versions(self.run)
        if reason is None:
            say(f"{label(name)} up to date: {self.run.record(name)['measured']['summary']}")
            return left
        if reason not in (NOT_RUN, "--force"):
            say(f"{label(name)} again: {reason}")
        self.look_ahead(name)
        return step(*map(value_of, inputs), options, self.run)

    def look_ahead(self, name: str) -> None:
        """Before the first step that is done, refuse what it or a later one could not obey.

        Of the model that is from when step 3 has loaded it; from scratch its sizes are flags.
        """
        loading = self.options["load_gpt2"]
        known = number_of(name) > number_of("load_gpt2") or loading.from_scratch
        if self.looked_ahead or name == "import_modules" or not known:
            return
        model = loading.shape() if name == "load_gpt2" else self.run.results("load_gpt2")
        for step in STEPS[number_of(name) - 1 : self.runner.to_step]:
            if hasattr(self.options[step], "refuse_impossible"):
                self.options[step].refuse_impossible(model, self.run)
        self.looked_ahead = True

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


def options_of(name: str) -> type:
    """Return the options class of a step: what its function says that `options` are."""
    module = sys.modules[name]
    return getattr(module, getattr(module, name).__annotations__["options"])


def value_of(given: Any) -> Any:
    return given.read() if isinstance(given, Left) else given


@command
def main(argv: list[str] | None = None) -> None:
    groups = [RunnerOptions, *map(options_of, STEPS[1:])]
    given = parse_flags(argv, __doc__, *groups)
    if "config" in given:
        given = {**read_config_file(given["config"], *groups), **given}
    chain = Chain(given)
    redo_damaged(chain)
    if compared := chain.options["visualize_performance"].compare:
        say(compare_runs(compared))


def redo_damaged(chain: Chain) -> None:
    """Run all steps; from the start where one opens what is damaged: its step is then done again.

    Only who opens an artifact hashes all of it.
    """
    redone: set[str] = set()
    while True:
        try:
            return run_steps(chain)
        except LastStepDone:
            return None
        except Damaged as damage:
            if damage.step in redone:
                raise
            redone.add(damage.step)


def run_steps(chain: Chain) -> None:
    """The pipeline."""
    say(f"{label('install_libraries')} up to date: the libraries are in {sys.prefix}")
    chain(import_modules, None)
    loaded = chain(load_gpt2, read_gpt2)
    model, tokenizer = loaded[0], loaded[1]
    documents = chain(create_dataset, read_documents, tokenizer)
    splits = chain(train_test_split, read_splits, documents)
    tokenizer = Left(lambda: read_own_tokenizer(chain.run))  # from scratch it is trained by now
    trainer = chain(configure_trainer, read_trainer, model, splits)
    tuned = chain(train_model, read_tuned, trainer, tokenizer)
    metrics = chain(evaluate_model, read_metrics, tuned, tokenizer, splits)
    report = chain(visualize_performance, read_report, metrics)
    samples = chain(generate, read_samples, tuned, tokenizer, splits)
    options = chain.options["generate"]
    if options.interactive or options.serve:
        converse(value_of(tuned), value_of(tokenizer), options, chain.run)
    else:
        conclude(value_of(report), value_of(metrics), value_of(samples), chain.run)
    if options.push_to_hub:
        publish(chain.run, options.push_to_hub)


def conclude(report: Any, metrics: dict[str, Any], samples: list[dict], run: RunDirectory) -> None:
    """Print where the report is, what training changed, and one sample."""
    say(f"\nreport    {report}")
    say(f"plot      {run.path / 'performance.png'}")
    say(f"result    {summarize(metrics)}")
    prompt = samples[0]["prompt"]
    prompt = prompt if len(prompt) < 80 else "".join(characters(prompt)[-60:])
    for title, name in (("before", "base"), ("after", "tuned")):
        text, ending = samples[0][name][0], endings(samples[0], name)[0]
        say(f"{title:<10}{one_line(prompt + text)}{f' [{ending}]' if ending else ''}")
    say(f"model     {run.path / 'model'}  (more samples: {run.path / 'samples.md'})")


def one_line(text: str) -> str:
    """Return a text without line ends, at most three lines of the terminal long."""
    kept = (c if c.isprintable() or c in JOINERS else " " for c in text)
    columns = shutil.get_terminal_size((100, 24)).columns
    return shortened(" ".join("".join(kept).split()), 3 * columns)


if __name__ == "__main__":
    main()
