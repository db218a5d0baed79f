"""Keys and values of the rows of a batch, in memory that is there before they come."""

import torch

STEP = 32  # columns


class KeyValueCache:
    """What attention keeps of each row's tokens, from column 0 on.

    By layer, `keys`: (rows, heads, depth, columns); `values`: (rows, heads, columns, depth).
    Columns that a row has not come to are zero, or an earlier row's: they are to be masked.
    """

    def __init__(
        self, layers: int, heads: int, depth: int, dtype: torch.dtype, device: torch.device
    ):
        like = {"dtype": dtype, "device": device}
        self.keys = [torch.zeros(0, heads, depth, 0, **like) for _ in range(layers)]
        self.values = [torch.zeros(0, heads, 0, depth, **like) for _ in range(layers)]

    def make_room(self, rows: int, columns: int, most_rows: int) -> None:
        """Have at least so many rows and columns, with what is in them.

        Rows double, up to the most there may be of so many columns.
        """
        had_rows, heads, had_columns, depth = self.values[0].shape
        if rows <= had_rows and columns <= had_columns:
            return
        wanted = 2 * had_rows if rows > had_rows else had_rows
        rows = max(rows, min(wanted, most_rows))
        columns = rounded(columns)
        width = min(columns, had_columns)
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            # Zeros, not whatever is there: what is masked counts 0 times, but not-a-number stays.
            self.keys[layer] = keys.new_zeros(rows, heads, depth, columns)
            self.values[layer] = values.new_zeros(rows, heads, columns, depth)
            kept = min(rows, had_rows)
            self.keys[layer][:kept, ..., :width] = keys[:kept, ..., :width]
            self.values[layer][:kept, :, :width] = values[:kept, :, :width]

    def fill(self, layer: int, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put a prompt's keys and values, (tokens, heads, depth), at the beginning of a row."""
        self.keys[layer][row, ..., : len(keys)] = keys.permute(1, 2, 0)
        self.values[layer][row, :, : len(values)] = values.transpose(0, 1)

    def append(
        self, layer: int, slots: "Slots", keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put one token of each row at its place, and return the rows as far as they are used.

        `keys`, `values`: (rows, heads, depth).
        """
        own_keys, own_values = self.keys[layer][: slots.count], self.values[layer][: slots.count]
        own_keys[slots.rows, :, :, slots.columns] = keys
        own_values[slots.rows, :, slots.columns] = values
        return own_keys[..., : slots.width], own_values[:, :, : slots.width]

    def move(self, source: int, target: int) -> None:
        """Let a row take the place of another that has ended."""
        for tensor in (*self.keys, *self.values):
            tensor[target] = tensor[source]


class Slots:
    """Where one more token of each of the first rows goes. `lengths`: the tokens of each so far."""

    def __init__(self, lengths: list[int], device: torch.device):
        self.count, self.width = len(lengths), rounded(max(lengths) + 1)
        self.places = torch.tensor(lengths, device=device)
        one = self.count == 1  # plain slices take half the time
        self.rows = 0 if one else torch.arange(self.count, device=device)
        self.columns = lengths[0] if one else self.places


def rounded(columns: int) -> int:
    """Return a number of whole vectors, so that no other row changes the order of a row's sums."""
    return -(-columns // STEP) * STEP
