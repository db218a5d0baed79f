"""From scratch the tokenizer is trained on the training part alone; every text stays as it was."""

import numpy as np
import pytest
from datasets import DatasetDict

from tests.scripts import SCRIPTS
from toolkit.blocks.own_tokenizer import in_own_tokens
from toolkit.blocks.splitting import learned_in, split_documents
from toolkit.corpus.document import Document
from toolkit.corpus.tokenized_documents import tokenize_documents
from toolkit.corpus.tokenizing import encode_text
from toolkit.model.byte_level_bpe import SMALLEST, train_byte_level_bpe

FRACTIONS = {"validation": 0.2, "test": 0.2}
TEXTS = [text for script in SCRIPTS.values() for text in (script.one, script.other)]


@pytest.fixture
def split(tmp_path):
    """Take documents through step 4 with bytes for tokens, and hold some out."""

    def split(documents, completions=False):
        of_bytes = train_byte_level_bpe([], SMALLEST, context=64)
        found, _ = tokenize_documents(documents, of_bytes, tmp_path / "x.arrow", "train")
        documents = DatasetDict(train=found)
        parts, _ = split_documents(documents, FRACTIONS, seed=1)
        order = {name: part.order for name, part in parts.items()}
        return order, in_own_tokens(documents, parts, of_bytes, 2000, completions, tmp_path)

    return split


def test_every_part_holds_its_texts_in_tokens_of_its_own(split):
    order, (tokenizer, documents, parts, accounts) = split(
        Document(str(number), text) for number, text in enumerate(TEXTS)
    )
    for name, part in parts.items():
        texts = [tokenizer.decode(ids) for ids in part]
        assert texts == [TEXTS[number] + tokenizer.eos_token for number in order[name]]
        assert documents[name]["name"] == [str(number) for number in order[name]]
        assert accounts[name]["tokens"] == part.tokens()
    assert parts["train"].tokens() < sum(len(t.encode()) for t in TEXTS) / 4


def test_the_tokenizer_has_seen_nothing_of_what_is_held_out(split):
    texts = [f"{'abcdefghij'[n // 4] * 3}{'klmnopqrst'[n % 10]}qx " * 30 for n in range(40)]
    order, (tokenizer, *_) = split(Document("", text) for text in texts)
    words = [text.split()[0] for text in texts]
    own = {words[number] for number in order["train"]}
    held_out = {words[n] for name in FRACTIONS for n in order[name]} - own
    assert held_out and all(len(encode_text(f" {word}", tokenizer)) == 1 for word in own)
    assert all(len(encode_text(f" {word}", tokenizer)) > 1 for word in held_out)


def test_of_one_text_the_parts_are_its_beginning_middle_and_end(split):
    whole = "".join(TEXTS)
    _, (tokenizer, _, parts, _) = split([Document("book", whole)])
    pieces = [np.concatenate(list(part)) for part in parts.values()]
    assert "".join(map(tokenizer.decode, pieces)) == whole + tokenizer.eos_token
    assert [piece[-1] == tokenizer.eos_token_id for piece in pieces] == [False, False, True]
    assert "\ufffd" not in "".join(map(tokenizer.decode, pieces))


def test_of_examples_the_prompts_stay_prompts(split):
    pairs = [(script.one, script.other) for script in SCRIPTS.values()]
    order, (tokenizer, documents, parts, _) = split(
        [Document(str(number), *pair) for number, pair in enumerate(pairs)], completions=True
    )
    learned = learned_in(documents, parts)
    for name, part in parts.items():
        for number, ids, (start, end) in zip(order[name], part, learned[name], strict=True):
            assert tokenizer.decode(ids[:start]) == pairs[number][0]
            assert tokenizer.decode(ids[start : end - 1]) == pairs[number][1] and end == len(ids)


def test_of_conversations_the_turns_stay_turns(split):
    talks = [
        Document(str(number), "", "", ("User: " + script.one, script.other, "User: ok", "fine"))
        for number, script in enumerate(SCRIPTS.values())
    ]
    order, (tokenizer, documents, parts, _) = split(talks, completions=True)
    learned = learned_in(documents, parts)
    for name, part in parts.items():
        for number, ids, stretches in zip(order[name], part, learned[name], strict=True):
            texts = [tokenizer.decode(turn) for turn in np.split(ids, stretches[:-1].astype(int))]
            end = tokenizer.eos_token
            turns = talks[number].parts
            assert texts == ["", "", turns[2], turns[3] + end, turns[4], turns[5] + end]
