"""Step 10 of 10: let the model write - samples before and after training, or an interactive prompt.

Leaves samples.md and generate.json.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict
from tqdm import tqdm
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from import_modules import parse
from load_gpt2 import read_gpt2
from toolkit.command import UserError, command
from toolkit.console import say
from toolkit.corpus_files import read_text
from toolkit.options import flag, require_above
from toolkit.run_directory import RunDirectory
from toolkit.samples_page import write_samples
from toolkit.sampling import Sampling, continue_prompt, openings
from train_model import read_tuned
from train_test_split import read_splits

PROMPTS, PROMPT_WORDS = 3, 5  # without --prompt: this many openings of test documents, this long


@dataclass
class GenerateOptions:
    """step 10, generate"""

    prompt: list[str] | None = flag(
        None, "text to continue; repeatable (default: openings of test documents)"
    )
    prompts_file: str | None = flag(None, "a text file with a prompt a line")
    interactive: bool = flag(False, "prompt in a loop; Ctrl-D ends", recorded=False)
    max_new_tokens: int = flag(100, "longest continuation, in tokens")
    temperature: float = flag(0.8, "0 is greedy; higher is bolder")
    top_p: float = flag(0.95, "sample from the likeliest tokens of this joint share")
    top_k: int = flag(50, "sample from this many likeliest tokens; 0: from all")
    num_samples: int = flag(1, "continuations a prompt")

    def __post_init__(self) -> None:
        require_above(self, 0, "max_new_tokens", "top_p", "num_samples")
        for name in ("temperature", "top_k"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative, got {getattr(self, name)}")
        if self.top_p > 1:
            raise ValueError(f"--top_p must not be above 1, got {self.top_p}")
        if self.prompt and self.prompts_file:
            raise ValueError("--prompt and --prompts_file both name the prompts: give one")

    def files_read(self) -> list[Path]:
        return [Path(self.prompts_file)] if self.prompts_file else []

    def sampling(self) -> Sampling:
        return Sampling(
            self.max_new_tokens, self.temperature, self.top_p, self.top_k, self.num_samples
        )


def generate(
    tuned: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    splits: DatasetDict,
    options: GenerateOptions,
    run: RunDirectory,
) -> list[dict]:
    """Return for each prompt what base and tuned model make of it, from the same seed.

    Each entry: `prompt`, `base` and `tuned`, the latter two lists of `num_samples` continuations.
    """
    with run.step(
        __file__, options, after=("load_gpt2", "train_test_split", "train_model")
    ) as step:
        prompts = prompts_from(options) or openings(
            splits["test"], tokenizer, PROMPTS, PROMPT_WORDS
        )
        models = {"base": read_gpt2(run)[0].to(run.device).eval(), "tuned": tuned}
        samples = [{"prompt": prompt} for prompt in prompts]
        progress = tqdm(desc="sampling", total=len(models) * len(samples), unit="prompt")
        for name, model in models.items():
            for number, entry in enumerate(samples):
                progress.update()
                seed = run.seed + number
                entry[name] = continue_prompt(
                    model, tokenizer, entry["prompt"], options.sampling(), seed
                )
        progress.close()
        write_samples(samples, options.sampling(), run.seed, step.file("samples.md"))
        step.results = {"samples": samples}
        plural = "s" if len(samples) > 1 else ""
        where = run.path / "samples.md"
        step.summary = f"{len(samples)} prompt{plural} continued before and after training: {where}"
    return samples


def read_samples(run: RunDirectory) -> list[dict]:
    """Return the samples of step 10."""
    return run.results("generate")["samples"]


def prompts_from(options: GenerateOptions) -> list[str]:
    """Return the prompts that the options name, or none."""
    if not options.prompts_file:
        return options.prompt or []
    prompts = [
        line
        for line in read_text(Path(options.prompts_file), "--prompts_file").splitlines()
        if line.strip()
    ]
    if not prompts:
        raise UserError(f"--prompts_file {options.prompts_file}: holds no prompt")
    return prompts


def prompt_loop(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    options: GenerateOptions,
    run: RunDirectory,
) -> None:
    """Continue what is typed, until Ctrl-D. Arrow keys recall earlier prompts."""
    try:
        import readline  # noqa: F401 - gives input() editing and history; absent on Windows
    except ImportError:
        pass
    run.unlock()
    say("type the beginning of a text, then Enter; Ctrl-D ends")
    turn = 0
    while True:
        try:
            prompt = input("\n> ")
            for _ in range(options.num_samples):
                one = Sampling(**{**vars(options.sampling()), "num_samples": 1})
                continue_prompt(model, tokenizer, prompt, one, run.seed + turn, stream=True)
                turn += 1
        except EOFError:
            return say()


def show(samples: list[dict]) -> None:
    """Print every continuation of the tuned model after its prompt."""
    for entry in samples:
        for text in entry["tuned"]:
            say(f"\n{entry['prompt']}{text}")


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, GenerateOptions, about=__doc__)
    tuned, (_, tokenizer) = read_tuned(run), read_gpt2(run)
    if options.interactive:
        return prompt_loop(tuned, tokenizer, options, run)
    show(generate(tuned, tokenizer, read_splits(run), options, run))


if __name__ == "__main__":
    main()
