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
        self,
        layer: int,
        places: torch.Tensor,
        width: int,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put one token of each row at its place, and return the rows up to a width.

        `places`: columns, (rows,). `keys`, `values`: (rows, heads, depth).
        """
        rows, count = torch.arange(len(places), device=places.device), len(places)
        self.keys[layer][rows, :, :, places] = keys
        self.values[layer][rows, :, places] = values
        return self.keys[layer][:count, ..., :width], self.values[layer][:count, :, :width]

    def move(self, source: int, target: int) -> None:
        """Let a row take the place of another that has ended."""
        for tensor in (*self.keys, *self.values):
            tensor[target] = tensor[source]


def rounded(columns: int) -> int:
    """Return a number of whole vectors, so that no other row changes the order of a row's sums."""
    return -(-columns // STEP) * STEP
