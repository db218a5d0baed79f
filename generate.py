"""Step 10: let the model write - samples before and after training, or an interactive prompt.

Leaves samples.md, samples.jsonl and generate.json.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from create_dataset import is_on_conversations
from load_gpt2 import read_gpt2
from toolkit.run.command import command
from toolkit.run.console import say
from toolkit.run.lazily import lazily
from toolkit.run.options import flag
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import parse
from toolkit.serving.addresses import Address, require_origin
from toolkit.writing.sampling import (
    MOST_SEED,
    Sampling,
    require_possible,
    require_room,
    usual_new_tokens,
)
from train_model import read_tuned
from train_test_split import read_own_tokenizer, read_splits

with lazily():
    from datasets import DatasetDict
    from tqdm import tqdm
    from transformers import PreTrainedTokenizerFast

    from toolkit.model.forward import GPT2LMHeadModel
    from toolkit.report.publishing import publish, require_hub
    from toolkit.report.samples_page import write_samples
    from toolkit.serving.server import require_server, serve
    from toolkit.writing.chat import answering, as_asked
    from toolkit.writing.generator import Generator
    from toolkit.writing.openings import openings
    from toolkit.writing.prompt_loop import PromptLoop
    from toolkit.writing.prompts import piped_prompts, read_prompts, report_cuts, write_json_lines
    from toolkit.writing.talks import continue_prompts


@dataclass
class GenerateOptions:
    """step 10, generate"""

    prompt: list[str] | None = flag(
        None, "text to continue; repeatable (default: openings of test documents)"
    )
    prompts_file: str | None = flag(
        None, 'prompts: a line each, or .jsonl with {"prompt": ...} a line; - is standard input'
    )
    interactive: bool = flag(False, "prompt in a loop; Ctrl-D ends", recorded=False)
    serve: bool = flag(
        False, "serve a page, and OpenAI's /v1/completions; Ctrl-C ends", recorded=False
    )
    host: str = flag("127.0.0.1", "address that --serve listens on", recorded=False)
    port: int = flag(8000, "port that --serve listens on; 0 takes a free one", recorded=False)
    allow_origin: list[str] | None = flag(
        None, "let web pages from here ask --serve: https://example.org; repeatable", recorded=False
    )
    push_to_hub: str | None = flag(
        None, "send model/ and its card to this Hub repository (new ones private)", recorded=False
    )
    max_new_tokens: int | None = flag(
        None, "longest continuation, in tokens (default: half as long again as a text is)"
    )
    temperature: float = flag(0.8, "0 is greedy; higher is bolder")
    top_p: float = flag(0.95, "sample from the likeliest tokens of this joint share")
    top_k: int = flag(50, "sample from this many likeliest tokens; 0: from all")
    min_p: float = flag(0.0, "leave out tokens less likely than this share of the likeliest one")
    repetition_penalty: float = flag(1.0, "above 1: tokens that were there are less likely")
    stop: list[str] | None = flag(None, "end before this text; repeatable")
    num_samples: int = flag(1, "continuations a prompt")
    sample_seed: int | None = flag(
        None, "seed of what is written, and of nothing else (default: --seed)"
    )

    def __post_init__(self) -> None:
        require_possible(self, prefix="--")
        if not 0 <= (self.sample_seed or 0) <= MOST_SEED:
            raise ValueError(
                f"--sample_seed must lie between 0 and {MOST_SEED}, got {self.sample_seed}"
            )
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port must lie between 0 and 65535, got {self.port}")
        if not self.host:
            raise ValueError("--host must not be empty")
        for origin in self.allow_origin or ():
            require_origin(origin)
        if self.serve and self.interactive:
            raise ValueError("--serve and --interactive exclude each other: give one")
        if self.push_to_hub is not None and (self.serve or self.interactive):
            raise ValueError("--push_to_hub ends by itself: give it without --serve, --interactive")
        if self.prompt and self.prompts_file:
            raise ValueError("--prompt and --prompts_file both name the prompts: give one")
        if not all(prompt.strip() for prompt in self.prompt or ()):
            raise ValueError("--prompt must not be empty")
        if self.push_to_hub is not None:
            require_hub(self.push_to_hub)  # now, not after hours of training
        if self.prompts_file == "-":
            self.prompt, self.prompts_file = piped_prompts(), None

    def files_read(self) -> list[Path]:
        return [Path(self.prompts_file)] if self.prompts_file else []

    def refuse_impossible(self, model: dict[str, Any], run: RunDirectory) -> None:
        """Refuse what a model of these sizes cannot do. `model`: step 3's results."""
        require_room(self.max_new_tokens or 1, model["n_positions"])
        if self.prompts_file:
            read_prompts(Path(self.prompts_file))
        if self.serve:
            require_server(self.address)

    @property
    def address(self) -> Address:
        return Address(self.host, self.port, tuple(self.allow_origin or ()))

    def sampling(self, run: RunDirectory) -> Sampling:
        """Return how to write with the model of this run."""
        chosen = {setting.name: getattr(self, setting.name) for setting in fields(Sampling)}
        positions = run.results("load_gpt2")["n_positions"]
        usual = usual_new_tokens(run.results("train_test_split"), positions)
        most = self.max_new_tokens or usual
        return Sampling(**chosen | {"max_new_tokens": most, "stop": tuple(self.stop or ())})

    def seed(self, run: RunDirectory) -> int:
        return run.seed if self.sample_seed is None else self.sample_seed

    def given(self, run: RunDirectory) -> list[tuple[str, ...]]:
        """Return the prompts that were given; to a model of conversations each is a message."""
        prompts = read_prompts(Path(self.prompts_file)) if self.prompts_file else self.prompt
        form = as_asked if is_on_conversations(run) else str
        return [(form(prompt),) for prompt in prompts or ()]


def generate(
    tuned: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    splits: DatasetDict,
    options: GenerateOptions,
    run: RunDirectory,
) -> list[dict]:
    """Return for each prompt what base and tuned model make of it, from the same seed.

    Each entry: `prompt`, `base` and `tuned`, the latter two lists of `num_samples` continuations,
    and `endings`, how each of these ended.
    """
    with run.step(
        __file__, options, after=("load_gpt2", "train_test_split", "train_model")
    ) as step:
        given, sampling = options.given(run), options.sampling(run)
        given = given or openings(splits["test"], tokenizer).prompts
        seed = options.seed(run)
        if is_on_conversations(run):
            sampling = answering(sampling)
        prompts = [prompt for prompt, *_ in given]
        report_cuts(prompts, tokenizer, tuned.config.n_positions, sampling.max_new_tokens)
        samples = [{"prompt": prompt, "endings": {}} for prompt in prompts]
        models = {"base": read_gpt2(run)[0].to(run.device).eval(), "tuned": tuned}
        total = len(models) * len(samples) * options.num_samples
        with tqdm(desc="sampling", total=total, unit="sample") as progress:
            for name, model in models.items():
                generator = Generator(model, tokenizer, run.precision)
                found = continue_prompts(generator, given, sampling, seed, progress.update)
                for entry, talks in zip(samples, found, strict=True):
                    entry[name] = [talk.text for talk in talks]
                    entry["endings"][name] = [talk.ending for talk in talks]
        write_samples(samples, sampling, seed, step.file("samples.md"))
        write_json_lines(samples, sampling, seed, step.file("samples.jsonl"))
        step.results = {"samples": samples}
        plural = "s" if len(samples) > 1 else ""
        where = run.path / "samples.md"
        step.summary = f"{len(samples)} prompt{plural} continued before and after training: {where}"
    return samples


def read_samples(run: RunDirectory) -> list[dict]:
    """Return the samples of step 10."""
    return run.results("generate")["samples"]


def converse(
    tuned: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    options: GenerateOptions,
    run: RunDirectory,
) -> None:
    """Continue what is typed, or what clients send, by the tuned or the base model."""
    models = {
        "tuned": Generator(tuned, tokenizer, run.precision),
        "base": Generator(read_gpt2(run)[0].to(run.device), tokenizer, run.precision),
    }
    run.unlock()
    sampling, seed = options.sampling(run), options.seed(run)
    if options.serve:
        serve(models, run, sampling, options.address)
    else:
        PromptLoop(models, sampling, seed, is_on_conversations(run)).run()


def show(samples: list[dict]) -> None:
    """Print every continuation of the tuned model after its prompt."""
    for entry in samples:
        for text, ending in zip(entry["tuned"], entry["endings"]["tuned"], strict=True):
            say(f"\n{entry['prompt']}{text}\n[{ending}]")


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, GenerateOptions, about=__doc__)
    if options.push_to_hub:
        return publish(run, options.push_to_hub)
    tuned, tokenizer = read_tuned(run), read_own_tokenizer(run)
    if options.interactive or options.serve:
        return converse(tuned, tokenizer, options, run)
    show(generate(tuned, tokenizer, read_splits(run), options, run))


if __name__ == "__main__":
    main()
