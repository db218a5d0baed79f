"""The collator: rows of blocks as a batch of tensors, with what is not to be learned masked."""

import numpy as np
import torch

from toolkit.blocks.examples import masked


def collate(blocks: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return a batch: `input_ids` and `labels`, both int64 of shape (batch, block_size).

    The labels are the inputs, end-of-text included: the model shifts them by one itself. Of an
    example all but the answers is masked (-100).
    """
    tokens = torch.from_numpy(np.stack([block["input_ids"] for block in blocks]).astype(np.int64))
    labels = tokens.clone()
    for row, block in zip(labels, blocks, strict=True):
        if "learned" in block:
            row[masked(block["learned"], len(row))] = -100
    return {"input_ids": tokens, "labels": labels}
