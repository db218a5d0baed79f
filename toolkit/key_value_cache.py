"""Keys and values of rows that begin at different columns and all end at the last one."""

import torch


class KeyValueCache:
    """What GPT-2's attention keeps, as transformers' models ask for it (`update`).

    `keys`, `values`: by layer, (rows, heads, columns, head width). `real`: bool, (rows, columns),
    False where a row that is shorter than the longest one has padding: on its left.
    Rows can come and go between forward passes.
    """

    def __init__(self, real: torch.Tensor, layers: int):
        self.real = real
        self.keys: list[torch.Tensor | None] = [None] * layers
        self.values: list[torch.Tensor | None] = [None] * layers

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_, **__
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the columns of one forward pass to a layer, and return all columns."""
        if self.keys[layer] is not None:
            keys = torch.cat([self.keys[layer], keys], dim=2)
            values = torch.cat([self.values[layer], values], dim=2)
        self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def get_seq_length(self, *_) -> int:
        return 0 if self.keys[0] is None else self.keys[0].shape[2]

    def add_column(self) -> None:
        """Make room for one more token in every row: the next forward pass fills it."""
        self.real = torch.nn.functional.pad(self.real, (0, 1), value=True)

    def join(self, other: "KeyValueCache") -> None:
        """Add another cache's rows below these; the narrower of the two is padded on its left."""
        width = max(self.real.shape[1], other.real.shape[1])
        self.real = torch.cat([widen(self.real, width, 1), widen(other.real, width, 1)])
        for mine, new in ((self.keys, other.keys), (self.values, other.values)):
            for layer, (one, two) in enumerate(zip(mine, new, strict=True)):
                mine[layer] = torch.cat([widen(one, width, 2), widen(two, width, 2)])

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows, and then the columns that are padding in every row."""
        index = torch.tensor(rows, device=self.real.device)
        self.real = self.real[index]
        first = int(self.real.any(0).int().argmax())
        self.real = self.real[:, first:]
        for tensors in (self.keys, self.values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = tensor[index, :, first:]


def widen(tensor: torch.Tensor, width: int, dimension: int) -> torch.Tensor:
    """Pad a tensor with zeros at the beginning of a dimension, up to a width."""
    missing = width - tensor.shape[dimension]
    behind = [0, 0] * (tensor.dim() - 1 - dimension)
    return torch.nn.functional.pad(tensor, [*behind, missing, 0]) if missing else tensor
