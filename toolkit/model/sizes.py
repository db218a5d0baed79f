"""How large a model may be: told from its sizes, before anything of that size is made."""

from __future__ import annotations

from toolkit.run.lazily import lazily

with lazily():
    import psutil

MOST_BLOCKS = 1_000  # GPT-3 has 96


def refuse_too_large(
    n_layer: int,
    n_embd: int,
    n_positions: int,
    vocab_size: int,
    n_inner: int | None = None,
    n_head: int | None = None,
) -> None:
    """Raise ValueError where the weights alone, in float32, are more than this machine holds."""
    if n_layer > MOST_BLOCKS:
        raise ValueError(f"n_layer must be at most {MOST_BLOCKS:,}, got {n_layer:,}")
    block = 4 * n_embd**2 + 2 * n_embd * (n_inner or 4 * n_embd)
    parameters = n_layer * block + n_embd * (n_positions + vocab_size)
    needed, there = 4 * parameters, psutil.virtual_memory().total
    if needed > there:
        raise ValueError(
            f"a model of n_layer {n_layer:,}, n_embd {n_embd:,}, n_positions {n_positions:,} and "
            f"vocab_size {vocab_size:,} takes {needed / 1e9:,.0f} GB, this machine has "
            f"{there / 1e9:,.0f} GB of memory"
        )
