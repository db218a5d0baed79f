"""Options dataclasses as command-line flags: one field is one flag, its default and its help.

A field may be `str`, `int`, `float`, `bool`, a `Literal` of strings, a number `|` such a literal,
one of these `| None`, or `list[str]`. `metadata={"help": ..., "recorded": False}` keeps a field out
of the step's record.
Standard library only: step 1 reads its flags before anything is installed.
"""

import argparse
import dataclasses
import difflib
import math
import re
import shlex
import sys
import types
from collections.abc import Iterable
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from toolkit.run.command import UserError

Options = TypeVar("Options")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line and never end the process themselves."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parse_flags(argv: list[str] | None, about: str, *groups: type) -> dict[str, Any]:
    """Return the values of the flags that were given, by field name. `--help` lists every group."""
    parser = Parser(
        usage="%(prog)s [flags]",
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for group in groups:
        flags = parser.add_argument_group((group.__doc__ or group.__name__).strip().splitlines()[0])
        for field, kind in fields_of(group):
            add_flag(flags, field, kind)
    for word in sys.argv[1:] if argv is None else argv:
        if problem := what_no_path_holds(word):
            raise UserError(f"{word}: {problem}")
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        names = [f"--{field.name}" for group in groups for field, _ in fields_of(group)]
        hint = did_you_mean(unknown[0].split("=")[0], names) or "; --help lists the flags"
        raise UserError(f"unknown flag {unknown[0]}{hint}")
    return vars(given)


def what_no_path_holds(word: str) -> str | None:
    """Return why a flag's word cannot go into records, pages and file names, or None."""
    if "\0" in word:
        return "holds a zero byte, which is no text"
    try:
        word.encode()
    except UnicodeEncodeError:
        return "holds bytes that are no text in UTF-8; rename it, or type it anew"
    return None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the name that is closest, or nothing.

    One that has all words of `name` is closer than one that is spelt like it.
    """
    words = set(name.strip("-").split("_"))
    whole = [other for other in names if words <= set(other.strip("-").split("_"))]
    close = sorted(whole, key=len) or difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def build(options_class: type[Options], given: dict[str, Any]) -> Options:
    """Return the options with the given values, else their defaults; `given` may hold more."""
    names = {field.name for field in dataclasses.fields(options_class)}
    try:
        return options_class(**{name: value for name, value in given.items() if name in names})
    except ValueError as error:
        raise UserError(str(error)) from None


def as_flags(options: Any) -> list[str]:
    """Return the command-line words for these options: only what differs from the defaults."""
    words = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value == default_of(field) or value is None or not field.metadata.get("recorded", True):
            continue
        if isinstance(value, bool):
            words.append(f"--{field.name}" if value else f"--no-{field.name}")
        else:
            words += as_words(field.name, value if isinstance(value, list) else [value])
    return words


def as_words(name: str, values: list[Any]) -> list[str]:
    """Return a flag and its values as words; a value that begins with a dash is no flag."""
    texts = [str(value) for value in values]
    if any(text.startswith("-") for text in texts):
        return [f"--{name}={text}" for text in texts]
    return [f"--{name}", *texts]


def as_command(file: str, words: list[str]) -> str:
    """Return a command for a shell (bash, zsh), of one line whatever the words hold."""
    return in_shell(["python3", file, *words])


def in_shell(words: list[str]) -> str:
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    if all(c.isprintable() for c in word):
        return shlex.quote(word)
    plain = re.sub(r"([\\'])", r"\\\1", word)
    return "$'" + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain) + "'"


def as_record(options: Any) -> dict[str, Any]:
    """Return the options as they stand in a record."""
    fields = (f for f in dataclasses.fields(options) if f.metadata.get("recorded", True))
    return {field.name: getattr(options, field.name) for field in fields}


def flag(
    default: Any,
    text: str,
    recorded: bool = True,
    above: float | None = None,
    at_least: float | None = None,
) -> Any:
    """Return a flag's dataclass field: its default (a list is copied per instance) and its help.

    `above`, `at_least`: what its numbers must be; see `require_ranges`.
    """
    metadata = {"help": text, "recorded": recorded, "above": above, "at_least": at_least}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def require_ranges(options: Any) -> None:
    """Refuse options set to a number that is out of their flags' ranges."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not isinstance(value, int | float):
            continue
        above, at_least = field.metadata["above"], field.metadata["at_least"]
        if above is not None and not value > above:
            raise ValueError(f"--{field.name} must be above {above}, got {value}")
        if at_least is not None and not value >= at_least:
            raise ValueError(f"--{field.name} must be at least {at_least}, got {value}")


def fields_of(group: type) -> list[tuple[dataclasses.Field, Any]]:
    hints = get_type_hints(group)
    return [(field, hints[field.name]) for field in dataclasses.fields(group)]


def default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def without_none(kind: Any) -> tuple[Any, bool]:
    """`int | None` -> (int, True); `int` -> (int, False); `int | Literal["auto"]` stays a union."""
    if get_origin(kind) not in (types.UnionType, Union):
        return kind, False
    plain = tuple(member for member in get_args(kind) if member is not type(None))
    optional = len(plain) < len(get_args(kind))
    return (plain[0] if len(plain) == 1 else Union[plain]), optional  # noqa: UP007


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def converter(kind: Any) -> Any:
    if get_origin(kind) is Literal:

        def choose(text: str) -> str:
            if text not in get_args(kind):
                raise argparse.ArgumentTypeError(f"must be {in_words(kind)}, got {text}")
            return text

        return choose

    if get_origin(kind) is Union:
        number, words = get_args(kind)

        def convert_either(text: str) -> Any:
            try:
                return text if text in get_args(words) else converter(number)(text)
            except argparse.ArgumentTypeError:
                raise argparse.ArgumentTypeError(f"must be {in_words(kind)}, got {text}") from None

        return convert_either

    def convert(text: str) -> Any:
        try:
            return {int: int, float: finite, str: str}[kind](text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {in_words(kind)}, got {text}") from None

    return convert


def in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is Union:
        number, words = get_args(kind)
        return " or ".join([in_words(number), *get_args(words)])
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(kind, "a list of texts")


def add_flag(group: Any, field: dataclasses.Field, kind: Any) -> None:
    """Add a field to a parser's group of arguments."""
    plain, _ = without_none(kind)
    default = default_of(field)
    text = field.metadata["help"]
    if default not in (None, False, []) and default is not True:
        shown = " ".join(default) if isinstance(default, list) else default
        text += f" (default: {shown})"
    settings: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
    flag = f"--{field.name}"
    if plain is bool:
        action = argparse.BooleanOptionalAction if default else "store_true"
        group.add_argument(flag, action=action, **settings)
    elif plain == list[str]:
        group.add_argument(flag, nargs="+", action="extend", metavar="TEXT", **settings)
    else:
        if get_origin(plain) is Literal:
            settings["metavar"] = "|".join(get_args(plain))
        elif get_origin(plain) is Union:
            settings["metavar"] = "|".join(["N", *get_args(get_args(plain)[1])])
        else:
            settings["metavar"] = {int: "N", float: "X", str: "TEXT"}[plain]
        group.add_argument(flag, type=converter(plain), **settings)
