"""A prompt in the terminal: continue what is typed, word by word."""

import dataclasses
from typing import get_type_hints

from transformers import PreTrainedTokenizerFast

from toolkit.run.command import UserError
from toolkit.run.console import say, say_on
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling, all_prompt_ids, prompt_ids, require_possible

HELP = """/base, /tuned       the model before, after training
/set NAME VALUE     change a setting; /set alone shows all
/help               this
Ctrl-D              end; Ctrl-C stops a continuation"""
NUMBERS = {n: kind for n, kind in get_type_hints(Sampling).items() if kind in (int, float)}


class PromptLoop:
    """Reads a line, answers it, until Ctrl-D. Lines that begin with / are commands."""

    def __init__(
        self,
        models: dict[str, Generator],
        tokenizer: PreTrainedTokenizerFast,
        sampling: Sampling,
        seed: int,
    ):
        self.models, self.tokenizer = models, tokenizer
        self.sampling, self.seed, self.name = sampling, seed, "tuned"

    def run(self) -> None:
        try:
            import readline  # noqa: F401 - gives input() editing and history; absent on Windows
        except ImportError:
            pass
        say("type the beginning of a text, then Enter; /help lists commands; Ctrl-D ends")
        while True:
            try:
                line = input(f"\n{self.name}> ")
                self.obey(line[1:].split()) if line.startswith("/") else self.answer(line)
            except EOFError:
                return say()
            except UserError as error:
                say(str(error))

    def obey(self, words: list[str]) -> None:
        match words:
            case ["base" | "tuned" as name]:
                self.name = name
            case ["set"]:
                say("\n".join(f"{name:<20}{getattr(self.sampling, name)}" for name in NUMBERS))
            case ["set", name, value]:
                self.change(name, value)
            case ["help"]:
                say(HELP)
            case _:
                raise UserError(f"/{' '.join(words)}: no such command; /help lists them")

    def change(self, name: str, value: str) -> None:
        if name not in NUMBERS:
            raise UserError(f"/set {name}: no such setting; there are {', '.join(NUMBERS)}")
        try:
            changed = dataclasses.replace(self.sampling, **{name: NUMBERS[name](value)})
            require_possible(changed)
        except ValueError as error:
            raise UserError(f"/set {name} {value}: {error}") from None
        self.sampling = changed

    def answer(self, prompt: str) -> None:
        generator = self.models[self.name]
        positions, most = generator.model.config.n_positions, self.sampling.max_new_tokens
        ids = prompt_ids(prompt, self.tokenizer, positions, most)
        if cut := len(all_prompt_ids(prompt, self.tokenizer)) - len(ids):
            say(f"(the first {cut} tokens of the prompt do not fit the context and are left out)")
        for _ in range(self.sampling.num_samples):
            row = Continuation(ids, self.sampling, self.seed, progress=Printer())
            self.seed += 1
            try:
                generator.finish_all([row])
            except KeyboardInterrupt:
                generator.drop_all()
                return say()
            say()


class Printer:
    """Prints what has been added to a continuation since the last time."""

    def __init__(self) -> None:
        self.printed = 0

    def __call__(self, row: Continuation) -> None:
        say_on(row.text[self.printed :])
        self.printed = len(row.text)
