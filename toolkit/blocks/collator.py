"""The collator: rows of blocks as a batch of tensors, with what is not to be learned masked."""

import numpy as np
import torch


def collate(blocks: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return a batch: `input_ids` and `labels`, both int64 of shape (batch, block_size).

    The labels are the inputs, end-of-text included: the model shifts them by one itself. Of a
    prompt/completion example the prompt and the padding are masked (-100).
    """
    tokens = torch.from_numpy(np.stack([block["input_ids"] for block in blocks]).astype(np.int64))
    labels = tokens.clone()
    for row, block in zip(labels, blocks, strict=True):
        if "length" in block:
            row[: int(block["prompt_tokens"])] = -100
            row[int(block["length"]) :] = -100
    return {"input_ids": tokens, "labels": labels}
