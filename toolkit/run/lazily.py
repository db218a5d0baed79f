"""Imports that wait for their first use, so that a command that needs no torch loads none.

`torch` and `transformers` cost seconds; `--help`, a mistyped flag or a chain where all is up to
date need neither. Python 3.15 has `lazy from x import y` (PEP 810); until then:

    with lazily():
        from toolkit.model.gpt2 import open_model  # nothing is loaded here

    open_model(folder)                             # but here

In such a block stand functions and classes alone: what is called, asked for an attribute, or used
in `isinstance` and annotations. A constant, a base class or an error to catch is imported plainly.
"""

import builtins
import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any


class Lazy:
    """Stands for `name` of a module (a module itself, if `name` is empty) until it is used."""

    def __init__(self, module: str, name: str = ""):
        self._module, self._name = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return load(self._module, self._name)(*args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(load(self._module, self._name), attribute)

    def __instancecheck__(self, thing: Any) -> bool:
        return isinstance(thing, load(self._module, self._name))

    def __reduce__(self) -> tuple:
        return load, (self._module, self._name)


def load(module: str, name: str) -> Any:
    """Return what stands under a name in a module: `("os.path", "join")`, `("os", "path")`."""
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        return importlib.import_module(f"{module}.{name}")
    return getattr(found, name) if name else found


@contextlib.contextmanager
def lazily() -> Iterator[None]:
    """Put off the imports of the calling module inside the block."""
    home, plain_import = sys._getframe(2).f_globals, builtins.__import__

    def put_off(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002
        if globals is not home:  # another module's, or another thread's
            return plain_import(name, globals, locals, fromlist, level)
        if not fromlist and "." in name:  # it would bind `a`, or load it to take `b` from it
            raise ImportError(f"lazily: write `from a import b` for `import {name}`")
        if not fromlist:
            return Lazy(name)
        names = Lazy(name)
        for each in fromlist:
            setattr(names, each, Lazy(name, each))
        return names

    builtins.__import__ = put_off
    try:
        yield
    finally:
        builtins.__import__ = plain_import
