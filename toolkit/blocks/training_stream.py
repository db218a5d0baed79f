"""Training blocks packed from a stream of documents, shuffled, and resumed to the very block.

The stream is read in chunks of whole documents, of about SHUFFLED_TOKENS. A chunk's blocks are
shuffled and given out before the next one's, which a thread reads meanwhile. So a place in the
stream is small: where the chunk began, and how many blocks are given. To go on from it, the chunk
is read again; what lies before is skipped over, in the last file only, and not tokenized.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset
from torch.utils.data import IterableDataset

from toolkit.blocks.document_stream import DocumentStream
from toolkit.blocks.examples import SHORTENED, TOO_LONG, pad_examples
from toolkit.blocks.holding_out import hold_out_by_hash
from toolkit.corpus.contents import content_of
from toolkit.corpus.document import Document
from toolkit.corpus.tokenized_documents import batches_of, has_text, token_type
from toolkit.corpus.tokenizing import tokenize
from toolkit.run.command import UserError

SHUFFLED_TOKENS = 1 << 23
COUNTS = ("documents_read", "documents_held_out", "empty_documents_dropped", "tokens_read")
State = dict[str, Any]  # JSON: what reading goes on from, between two chunks; see `beginning`


class TrainingStream(IterableDataset):
    """Blocks of all documents that are not held out, pass after pass, without end.

    Yields what the packed splits hold a row of: `input_ids`, `block_size` token ids, and for
    examples `learned` and `length`. `shares`: of validation and test, as
    cut from train by hash; `held_out`: contents of documents that are held out anyhow.
    """

    def __init__(
        self,
        documents: DocumentStream,
        shares: dict[str, float],
        held_out: np.ndarray,
        block_size: int,
        seed: int,
    ):
        self.documents, self.shares, self.held_out = documents, shares, held_out
        self.block_size, self.seed = block_size, seed
        self.start, self.given = beginning(), 0  # what to go on from, and blocks not to give again
        self.chunks = [self.start]  # the states in which chunks in use, and read ahead, begin

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        state, self.chunks = self.start, [self.start]
        for rows, end in ahead(self.read_chunks(state)):
            self.chunks.append(end)
            first = state["first_block"]
            shuffled = np.random.default_rng([self.seed, first]).permutation(
                end["first_block"] - first
            )
            for number in shuffled[max(0, self.given - first) :]:
                yield {name: column[number] for name, column in rows.items()}
            state = end

    def state_at(self, block: int) -> State:
        """Return what to hand to `go_to` for the stream to go on with block number `block`."""
        while len(self.chunks) > 1 and self.chunks[1]["first_block"] <= block:
            del self.chunks[0]
        return {**self.chunks[0], "given": block}

    def go_to(self, state: State) -> None:
        """Begin where `state_at` was asked for."""
        self.start, self.given = state, state["given"]
        self.chunks = [state]

    def account(self, block: int) -> dict[str, int]:
        """Return what was read for the first `block` blocks: the chunk of the last one whole."""
        ends = [state for state in self.chunks if state["first_block"] >= block]
        end = ends[0] if ends else next(self.read_chunks(self.chunks[-1]))[1]
        unused = end["first_block"] - block
        return {
            "blocks": block,
            "passes_read": end["place"][0],
            **end["counts"],
            "blocks_read_but_not_used": unused,
            "tokens_left_over": len(end["carried"]),
        }

    def read_chunks(self, state: State) -> Iterator[tuple[dict[str, np.ndarray], State]]:
        """Yield chunks from a state on: columns of blocks, and the state after the chunk."""
        while True:
            begun = state
            batches = self.read_pass(*state["place"])
            while state["place"][0] == begun["place"][0]:
                rows, state = self.read_chunk(batches, state)
                yield rows, state
            if begun["place"][1:] == [0, 0] and learned(state) == learned(begun):
                raise UserError(
                    "--corpus: the whole stream leaves nothing to train on: its documents are "
                    "empty, held out, or examples longer than a block"
                )

    def read_chunk(
        self, batches: Iterator[tuple[list[Document], list[int]]], state: State
    ) -> tuple[dict[str, np.ndarray], State]:
        """Return about SHUFFLED_TOKENS of a pass, or its rest, as blocks; and the state after."""
        counts, texts, learned, size = dict(state["counts"]), [], [], 0
        place = [state["place"][0] + 1, 0, 0]
        for batch, place_after in batches:
            kept = self.kept_for_training(batch, counts)
            ids, spans, _ = tokenize(kept, self.documents.tokenizer, self.documents.num_proc)
            texts += ids
            learned += spans
            counts["tokens_read"] += sum(map(len, ids))
            size += len(ids) * self.block_size if self.documents.completions else sum(map(len, ids))
            if size >= SHUFFLED_TOKENS:
                place = place_after
                break
        make = self.as_examples if self.documents.completions else self.as_blocks
        rows, carried = make(texts, learned, state["carried"], counts)
        first = state["first_block"] + len(rows["input_ids"])
        return rows, {"first_block": first, "place": place, "carried": carried, "counts": counts}

    def read_pass(
        self, number: int, first_source: int, first_document: int
    ) -> Iterator[tuple[list[Document], list[int]]]:
        """Yield the rest of a pass in batches, each with the place after it.

        The files come in another order in every pass.
        """
        place = [number, first_source, first_document]
        sources = self.documents.sources["train"]
        order = np.random.default_rng([self.seed, number, 1]).permutation(len(sources))

        def walk() -> Iterator[Document]:
            for position in range(first_source, len(order)):
                place[1:] = [position, 0]
                for document in self.documents.read(sources[order[position]]):
                    place[2] += 1
                    if position > first_source or place[2] > first_document:
                        yield document

        for batch in batches_of(walk()):
            yield batch, list(place)

    def kept_for_training(self, batch: list[Document], counts: dict[str, int]) -> list[Document]:
        contents = np.array([content_of(document) for document in batch], np.uint64)
        train = hold_out_by_hash(contents, self.shares["validation"], self.shares["test"])["train"]
        train = train[~np.isin(contents[train], self.held_out)]
        kept = [batch[number] for number in train if has_text(batch[number])]
        counts["documents_read"] += len(batch)
        counts["documents_held_out"] += len(batch) - len(train)
        counts["empty_documents_dropped"] += len(train) - len(kept)
        return kept

    def as_blocks(
        self, texts: list[np.ndarray], _: list[np.ndarray], carried: list[int], __: dict[str, int]
    ) -> tuple[dict[str, np.ndarray], list[int]]:
        """Return texts end to end in blocks, and the tokens that do not fill one."""
        kind = token_type(self.documents.tokenizer)
        flat = np.concatenate([np.array(carried, kind), *texts]).astype(kind)
        whole = len(flat) // self.block_size * self.block_size
        return {"input_ids": flat[:whole].reshape(-1, self.block_size)}, flat[whole:].tolist()

    def as_examples(
        self,
        texts: list[np.ndarray],
        learned: list[np.ndarray],
        _: list[int],
        counts: dict[str, int],
    ) -> tuple[dict[str, np.ndarray], list[int]]:
        """Return examples, one a row; what is longer than a block is counted."""
        end = self.documents.tokenizer.eos_token_id
        table, dropped = pad_examples(texts, learned, self.block_size, padding=end)
        for name, count in dropped.items():
            counts[name] += count
        return dict(table.with_format("numpy")[:]), []


Splits: TypeAlias = dict[str, Dataset | TrainingStream]  # train, validation, test


def beginning() -> State:
    """Return the state in which nothing has been read.

    `first_block`: how many blocks came before; `place`: pass, source in that pass's order, and how
    many of its documents are read; `carried`: tokens that did not fill a block; `counts`.
    """
    counts = dict.fromkeys((*COUNTS, *TOO_LONG, *SHORTENED), 0)
    return {"first_block": 0, "place": [0, 0, 0], "carried": [], "counts": counts}


def learned(state: State) -> int:
    """Return how many tokens have been read that blocks are, or will be, made of."""
    return state["counts"]["tokens_read"] - state["counts"]["tokens_dropped_too_long"]


def ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the items, the next of which a thread fetches while one is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items)
        while True:
            item = coming.result()
            coming = thread.submit(next, items)
            yield item
