"""Bytes, characters and words are those of the text that was read, whatever the tokenizer does."""

import numpy as np
import pytest
from datasets import DatasetDict
from transformers import PreTrainedTokenizerFast

from tests.model.tokenizer_forms import CHINESE, ENGLISH, KINDS, KOREAN
from toolkit.blocks.collator import collate
from toolkit.blocks.examples import pad_examples
from toolkit.blocks.packing import pack
from toolkit.blocks.splitting import learned_in, split_documents, texts_of
from toolkit.corpus.document import Document
from toolkit.corpus.token_text import words_in
from toolkit.corpus.tokenized_documents import tokenize_documents
from toolkit.scoring.text_counts import count_text
from toolkit.scoring.windows import find_pieces

UNKNOWN = "Naïve Øre: ツ ﬁ  <eos> [SEP] </s>\u3000 end.  \n"
TEXTS = [ENGLISH, KOREAN, CHINESE, UNKNOWN, f" {CHINESE}{UNKNOWN}", f"{KOREAN}{ENGLISH}\t"]
HELD_OUT = {"validation": 0.2, "test": 0.3}


@pytest.fixture(params=KINDS)
def tokenizer(request):
    train, end = KINDS[request.param]
    unknown = {"BERT": "[UNK]", "byte-level": end}.get(request.param, "<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=train(), eos_token=end, unk_token=unknown)


def documents_of(texts, tokenizer, folder):
    documents = [
        Document(str(n), *(text if isinstance(text, tuple) else (text,)))
        for n, text in enumerate(texts)
    ]
    found, account = tokenize_documents(documents, tokenizer, folder / "x.arrow", "train")
    return DatasetDict(train=found), account


def words_of(texts):
    return sum(map(words_in, texts))


@pytest.mark.parametrize("texts", [TEXTS, ["".join(TEXTS * 3)]], ids=["documents", "a tail"])
def test_counts_of_blocks_are_those_of_the_text(tokenizer, tmp_path, texts):
    """With overlapping windows every token is predicted but the first."""
    documents, account = documents_of(texts, tokenizer, tmp_path)
    assert account["bytes"] == sum(len(text.encode()) for text in texts)
    assert account["characters"] == sum(map(len, texts)) and account["words"] == words_of(texts)
    part = split_documents(documents, HELD_OUT, seed=3)[0]["test"]
    stream = np.concatenate(list(part))
    size = next(size for size in range(7, len(stream) + 1) if len(stream) % size == 0)
    blocks = pack(part, size, tmp_path / "blocks.arrow").with_format("numpy")
    pieces = find_pieces(blocks, tokenizer.eos_token_id)
    kept = texts_of(documents["train"], part, None)
    counts = count_text(blocks, tokenizer, collate, pieces, size - 1, kept)
    if len(texts) > 1:
        held_out = [texts[number] for number in part.order]
        assert np.bincount(pieces.documents, counts["bytes"])[1:].tolist() == [
            len(text.encode()) for text in held_out[1:]
        ]
    else:
        told = tokenizer.decode(stream[:-1]) if kept is None else kept[0]["text"]
        assert texts[0].endswith(told.lstrip("�")) and len(told) > 50
        held_out = [told]
    first = 1 if kept is None else kept[0]["characters"][0]
    characters = sum(map(len, held_out))
    assert characters - first - 1 <= counts["characters"].sum() <= characters
    assert abs(counts["words"].sum() - words_of(held_out)) <= 1


def test_counts_of_examples_are_those_of_their_completions(tokenizer, tmp_path):
    texts = [(one, other) for one in TEXTS for other in TEXTS]
    documents, _ = documents_of(texts, tokenizer, tmp_path)
    part = split_documents(documents, HELD_OUT, seed=3)[0]["test"]
    learned = learned_in(documents, {"test": part})["test"]
    longest = sorted(map(len, part))[-3]
    end = tokenizer.eos_token_id
    blocks, dropped = pad_examples(part, learned, longest, padding=end)
    assert dropped["examples_dropped_too_long"]
    blocks = blocks.with_format("numpy")
    kept = texts_of(documents["train"], part, longest)
    pieces = find_pieces(blocks, end)
    counts = count_text(blocks, tokenizer, collate, pieces, longest, kept)
    short = zip(part, part.order, strict=True)
    completions = [texts[number][1] for ids, number in short if len(ids) <= longest]
    assert counts["characters"].tolist() == list(map(len, completions))
    assert counts["bytes"].tolist() == [len(text.encode()) for text in completions]
    assert counts["words"].sum() == words_of(completions)
