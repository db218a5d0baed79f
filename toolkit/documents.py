"""Cut texts into documents, and turn documents into token ids.

A document is the unit that must not be split between train and test. Every document ends with the
end-of-text token, which is trained on like any other.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, disable_progress_bars, enable_progress_bars
from datasets.table import MemoryMappedTable
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

GROUP_CHARACTERS = 2000  # blank-line paragraphs are grouped up to about this length
FEWEST_GROUPS = 10  # fewer make one document, of which step 5 holds out the tail
TOKENIZE_AT_ONCE = 512  # documents
TOP_LEVEL_HEADING = re.compile(r"^ = [^=](?:.*[^=])? = ?$")  # WikiText: ` = Title = `


def cut_texts(texts: list[str], separator: str | None) -> list[str]:
    """Return documents of text files: by the separator, else a file each, else grouped paragraphs.

    One text without enough paragraphs stays one document.
    """
    if separator:
        return [part.strip("\n") for text in texts for part in text.split(separator)]
    if any(looks_like_wikitext(text.splitlines()) for text in texts):
        return [
            article for text in texts for article in cut_articles(text.splitlines(keepends=True))
        ]
    if len(texts) > 1:
        return [text.strip("\n") for text in texts]
    groups = group_paragraphs(texts[0])
    return groups if len(groups) >= FEWEST_GROUPS else [texts[0].strip("\n")]


def group_paragraphs(text: str) -> list[str]:
    """Return neighbouring blank-line paragraphs joined to groups of about GROUP_CHARACTERS."""
    groups, group, length = [], [], 0
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip("\n")
        if group and length + len(paragraph) > GROUP_CHARACTERS:
            groups.append("\n\n".join(group))
            group, length = [], 0
        if paragraph.strip():
            group.append(paragraph)
            length += len(paragraph)
    return [*groups, "\n\n".join(group)] if group else groups


def looks_like_wikitext(lines: Iterable[str]) -> bool:
    """Tell whether lines are WikiText's: a ` = Title = ` within the first ones."""
    return any(TOP_LEVEL_HEADING.match(line.rstrip("\n")) for line in itertools.islice(lines, 20))


def cut_articles(lines: Iterable[str]) -> Iterator[str]:
    """Yield articles of WikiText lines: each starts at a top-level heading between blank lines."""
    article: list[str] = []
    before_is_blank = True
    lines = iter(lines)
    line = next(lines, None)
    while line is not None:
        after = next(lines, None)
        heading = TOP_LEVEL_HEADING.match(line.rstrip("\n"))
        starts_article = heading and before_is_blank and (after is None or not after.strip())
        if starts_article and any(line.strip() for line in article):
            yield "".join(article)
            article = []
        article.append(line if line.endswith("\n") else line + "\n")
        before_is_blank, line = not line.strip(), after
    if article:
        yield "".join(article)


def tokenize_documents(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerFast, path: Path, label: str
) -> tuple[Dataset, dict[str, int]]:
    """Write documents as token ids to an Arrow file and return it as a Dataset, with an account.

    The Dataset has one column, `input_ids`: a list a document, uint16 where the vocabulary fits.
    The account counts documents, tokens (end-of-text included), characters, and empty documents
    dropped.
    """
    kind = pa.uint16() if len(tokenizer) <= 2**16 else pa.uint32()
    schema = pa.schema({"input_ids": pa.list_(kind)})
    account = {"documents": 0, "tokens": 0, "characters": 0, "empty_documents_dropped": 0}
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    progress = tqdm(desc=f"tokenizing {label}", unit=" documents", unit_scale=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches_of(documents, TOKENIZE_AT_ONCE):
            texts = [text for text in batch if text.strip()]
            ids = [
                [*e.ids, tokenizer.eos_token_id] for e in encode(texts, add_special_tokens=False)
            ]
            column = pa.array(ids, pa.list_(kind))
            writer.write_batch(pa.record_batch([column], schema=schema))
            account["documents"] += len(texts)
            account["tokens"] += sum(map(len, ids))
            account["characters"] += sum(map(len, texts))
            account["empty_documents_dropped"] += len(batch) - len(texts)
            progress.update(len(batch))
    progress.close()
    return Dataset(MemoryMappedTable.from_file(str(path)), fingerprint=label), account


def batches_of(items: Iterable[str], size: int) -> Iterator[list[str]]:
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def token_ids(documents: Dataset) -> list[np.ndarray]:
    """Return one array of token ids a document, without copying: views of the Arrow buffers."""
    column = documents.with_format("arrow")[:]["input_ids"]
    arrays = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        arrays += [values[start:stop] for start, stop in itertools.pairwise(offsets)]
    return arrays


def save_splits(splits: dict[str, Dataset], folder: Path) -> None:
    """Save splits so that `load_from_disk` reads them.

    Quick, so without the library's progress bars.
    """
    disable_progress_bars()
    try:
        DatasetDict(splits).save_to_disk(folder)
    finally:
        enable_progress_bars()
