"""The test split document by document, and its passages that a model finds easiest and hardest."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from toolkit.run.characters import characters
from toolkit.scoring.windows import Pieces, block_size_of

PASSAGES, FEWEST_TOKENS = 10, 32  # shorter passages come out extreme by chance
MOST_CHARACTERS = 400

Sums = dict[str, np.ndarray]


def write_document_losses(
    path: Path, scores: dict[str, Sums], text: Sums, pieces: Pieces, size: int
) -> None:
    """Write a row for each test document: its place, its counts, each model's nats and loss.

    `first_token` is its position in the test blocks laid end to end (row `position // block_size`,
    place `position % block_size`). A loss is null where no token of the document was predicted.
    """
    documents = int(pieces.documents[-1]) + 1
    first = pieces.starts[np.searchsorted(pieces.documents, np.arange(documents))]

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(pieces.documents, values, documents)

    tokens = total(scores["tuned"]["tokens"])
    columns = {
        "document": np.arange(documents),
        "first_token": first,
        "predicted_tokens": tokens.astype(np.int64),
        **{name: total(values).astype(np.int64) for name, values in text.items()},
    }
    table = {name: pa.array(values) for name, values in columns.items()}
    for name, sums in scores.items():
        nats = total(sums["nats"])
        losses = np.divide(nats, tokens, out=np.zeros(documents), where=tokens > 0)
        table[f"{name}_nats"] = pa.array(nats)
        table[f"{name}_loss"] = pa.array(losses, mask=tokens == 0)
    pa.parquet.write_table(pa.table(table), path)


def extreme_passages(
    blocks: Dataset, tokenizer: PreTrainedTokenizerFast, scores: dict[str, Sums], pieces: Pieces
) -> dict[str, list[dict[str, Any]]]:
    """Return the `best` and the `worst` passages by the tuned model's loss, extremes first.

    A passage is what lies of one document in one block, of 32 predicted tokens or more.
    """
    tokens = scores["tuned"]["tokens"]
    fewest = min(FEWEST_TOKENS, int(np.median(tokens[tokens > 0])))
    long = np.flatnonzero(tokens >= fewest)
    order = long[np.argsort(scores["tuned"]["nats"][long] / tokens[long], kind="stable")]
    count = min(PASSAGES, len(order) // 2)

    def passage(piece: int) -> dict[str, Any]:
        losses = {
            f"{name}_loss": float(sums["nats"][piece] / tokens[piece])
            for name, sums in scores.items()
        }
        return {
            "document": int(pieces.documents[piece]),
            "predicted_tokens": int(tokens[piece]),
            **losses,
            "text": text_of(blocks, tokenizer, pieces, piece),
        }

    return {
        "best": [passage(piece) for piece in order[:count]],
        "worst": [passage(piece) for piece in order[::-1][:count]],
    }


def text_of(blocks: Dataset, tokenizer: PreTrainedTokenizerFast, pieces: Pieces, piece: int) -> str:
    """Return the beginning of a passage; of an example, of what is learned of it."""
    size = block_size_of(blocks)
    row = blocks[int(pieces.blocks[piece])]
    begin = int(pieces.starts[piece]) % size
    stop = size
    if "learned" in row:
        begin, stop = int(row["learned"][0]), int(row["length"])
    elif piece + 1 < len(pieces.starts) and pieces.blocks[piece + 1] == pieces.blocks[piece]:
        stop = int(pieces.starts[piece + 1]) % size
    text = tokenizer.decode(row["input_ids"][begin:stop], skip_special_tokens=True)
    text = text.strip("\ufffd").strip()  # a block may begin and end amid a character
    if len(text) <= MOST_CHARACTERS:
        return text
    return "".join(characters(text)[:MOST_CHARACTERS]).rstrip() + " ..."
