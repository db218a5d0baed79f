"""State of a training as safetensors: numbers, texts and tensors, nothing that could be executed.

The tree that they hang in is JSON in the file's header. What safetensors has no form for, such as
the packed tensors of an optimizer in 4 bits, is left to torch, and read with `weights_only`.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from toolkit.run.command import UserError

TREE = "tree"  # its name in the header
PLAIN = (torch.Tensor, torch.nn.Parameter)


def write_state(path: Path, state: Any) -> None:
    """Write nested dicts, lists and tuples of numbers, texts and tensors; `path` has no suffix."""
    tensors: dict[str, torch.Tensor] = {}
    try:
        tree = json.dumps(taken_apart(state, tensors))
    except TypeError:
        torch.save(state, path.with_suffix(".pt"))
    else:
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(whole, path.with_suffix(".safetensors"), metadata={TREE: tree})


def read_state(path: Path, device: str | torch.device = "cpu") -> Any:
    """Return what `write_state` wrote, equal and of the same types."""
    packed = path.with_suffix(".pt")
    if packed.exists():
        try:
            return torch.load(packed, map_location=device, weights_only=True)
        except pickle.UnpicklingError:
            raise UserError(
                f"{packed}: not read: it may run code; the optimizer that made it is not installed"
            ) from None
    with safe_open(path.with_suffix(".safetensors"), framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return put_together(json.loads(file.metadata()[TREE]), tensors)


def taken_apart(state: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a tree as JSON has it; its tensors go to `tensors`. Raises TypeError for all else."""
    if isinstance(state, torch.Tensor):
        if type(state) not in PLAIN:
            raise TypeError(type(state))
        name = f"{len(tensors):06}"
        tensors[name] = state
        return {"tensor": name}
    if isinstance(state, dict):
        if not all(type(key) in (int, str) for key in state):
            raise TypeError("a key that JSON would change")
        return {"dict": [[key, taken_apart(value, tensors)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        kind = "tuple" if isinstance(state, tuple) else "list"
        return {kind: [taken_apart(value, tensors) for value in state]}
    return state


def put_together(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: put_together(value, tensors) for key, value in content}
    values = [put_together(value, tensors) for value in content]
    return tuple(values) if kind == "tuple" else values
