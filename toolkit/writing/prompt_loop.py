"""A prompt in the terminal: continue what is typed, or answer it, word by word."""

import dataclasses
from typing import get_type_hints

from toolkit.corpus.conversations import Message
from toolkit.run.command import UserError
from toolkit.run.console import count, say, say_on
from toolkit.writing.chat import answering, chat_ids
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.line_reader import reader
from toolkit.writing.sampling import (
    MOST_SEED,
    Sampling,
    all_prompt_ids,
    prompt_ids,
    require_possible,
    require_room,
)

HELP = """/tuned, /base, /both  the model after, before training; one after the other
/set NAME VALUE       change a setting; /set alone shows all
/set stop TEXT        end before this text; /set stop alone: nowhere
/seed N               the seed of what is written next
/help, /quit          this; end (so does Ctrl-D)
//...                 a prompt that begins with /
Ctrl-C                drops the line, or stops what is being written"""
RESET = "/reset                begin a new conversation\n"
NUMBERS = {n: kind for n, kind in get_type_hints(Sampling).items() if kind in (int, float)}


class PromptLoop:
    """Reads a prompt, answers it, until Ctrl-D. What begins with / is a command.

    `chat`: prompts are messages of a conversation; what either model was told and has answered is
    its own, as long as it fits the context.
    """

    def __init__(self, models: dict[str, Generator], sampling: Sampling, seed: int, chat: bool):
        self.models, self.sampling, self.seed, self.chat = models, sampling, seed, chat
        self.names = ["tuned"]  # who answers
        self.talks: dict[str, list[Message]] = {name: [] for name in models}

    def run(self) -> None:
        what = "a message" if self.chat else "the beginning of a text"
        say(f"type {what}, then Enter; /help lists commands; Ctrl-D ends")
        read = reader()
        while True:
            try:
                typed = read(f"\n{' and '.join(self.names)}> ")
                if typed.startswith("/") and not typed.startswith("//"):
                    self.obey(typed[1:])
                elif typed.strip():
                    self.answer(typed.removeprefix("/") if typed.startswith("//") else typed)
            except EOFError:
                return say()
            except KeyboardInterrupt:  # drops the line
                say()
            except UserError as error:
                say(str(error))

    def obey(self, line: str) -> None:
        match line.split():
            case ["base" | "tuned" as name]:
                self.names = [name]
            case ["both"]:
                self.names = list(self.models)
            case ["reset"] if self.chat:
                self.talks = {name: [] for name in self.models}
                say("(a new conversation)")
            case ["set"]:
                say("\n".join(f"{name:<20}{getattr(self.sampling, name)}" for name in NUMBERS))
                say(f"{'stop':<20}{' '.join(map(repr, self.sampling.stop))}")
            case ["set", "stop", *_]:
                text = line.partition("stop")[2].strip().replace("\\n", "\n")
                self.sampling = dataclasses.replace(self.sampling, stop=(text,) if text else ())
            case ["set", name, value]:
                self.change(name, value)
            case ["seed", number]:
                self.reseed(number)
            case ["quit" | "exit"]:
                raise EOFError
            case ["help"]:
                say((RESET if self.chat else "") + HELP)
            case _:
                raise UserError(f"/{line.strip()}: no such command; /help lists them")

    def change(self, name: str, value: str) -> None:
        if name not in NUMBERS:
            raise UserError(f"/set {name}: no such setting; there are {', '.join(NUMBERS)}, stop")
        try:
            number = NUMBERS[name](value)
        except ValueError:
            kind = "a whole number" if NUMBERS[name] is int else "a number"
            raise UserError(f"/set {name} must be {kind}, got {value}") from None
        changed = dataclasses.replace(self.sampling, **{name: number})
        try:
            require_possible(changed, prefix="/set ")
        except ValueError as error:
            raise UserError(str(error)) from None
        for generator in self.models.values():
            require_room(changed.max_new_tokens, generator.positions, "/set max_new_tokens")
        self.sampling = changed

    def reseed(self, number: str) -> None:
        if not number.isdecimal() or int(number) > MOST_SEED:
            raise UserError(f"/seed must lie between 0 and {MOST_SEED}, got {number}")
        self.seed = int(number)

    def answer(self, text: str) -> None:
        """Let the models that are asked write, each from the same seeds."""
        for name in self.names:
            for sample in range(self.sampling.num_samples):
                if len(self.names) > 1:
                    say(f"\n{name}:")
                if not self.write(name, text, self.seed + sample):
                    return
        self.seed = (self.seed + self.sampling.num_samples) % MOST_SEED

    def write(self, name: str, text: str, seed: int) -> bool:
        """Write one continuation; return whether it came to its end, and was not stopped."""
        generator, told = self.models[name], [*self.talks[name], Message("user", text)]
        ids = self.told_ids(generator, told) if self.chat else self.prompt_ids(generator, text)
        sampling = answering(self.sampling) if self.chat else self.sampling
        row = Continuation(ids, sampling, seed, progress=Printer(self.chat))
        try:
            generator.finish_all([row])
            say(f"\n[{row.ending}]")
        except KeyboardInterrupt:
            generator.drop_all()
            say("\n[stopped]")
        if self.chat:
            self.talks[name] = [*told, Message("assistant", row.text)]
        return row.finish is not None

    def prompt_ids(self, generator: Generator, text: str) -> list[int]:
        most = self.sampling.max_new_tokens
        ids = prompt_ids(text, generator.tokenizer, generator.positions, most)
        if cut := len(all_prompt_ids(text, generator.tokenizer)) - len(ids):
            say(f"(the first {cut} tokens of the prompt do not fit the context and are left out)")
        return ids

    def told_ids(self, generator: Generator, told: list[Message]) -> list[int]:
        room = generator.positions - self.sampling.max_new_tokens
        ids, left_out = chat_ids(told, generator.tokenizer, room)
        if left_out:
            say(f"({count(left_out, 'oldest turn')} left out: they do not fit the context)")
        return ids


class Printer:
    """Prints what has been added to a continuation since the last time."""

    def __init__(self, chat: bool) -> None:
        self.printed, self.chat = 0, chat

    def __call__(self, row: Continuation) -> None:
        new = row.text[self.printed :]
        say_on(new.lstrip() if self.chat and not row.text[: self.printed].strip() else new)
        self.printed = len(row.text)
