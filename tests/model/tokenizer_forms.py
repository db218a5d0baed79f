"""Small tokenizers of the kinds that GPT-2s on the Hub have, trained on one text."""

from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

ENGLISH = "The lamp was lit at four. Rain, and no ship; the Keeper wrote it down.\nHe slept. "
KOREAN = "등대지기는 네 시에 등불을 켰다. 비가 왔고 배는 없었다.\n그는 그것을 적었다. "
CHINESE = "守灯人在四点钟点亮了灯。下雨，没有船；他把它写下来。\n他睡了。"
TEXT = (ENGLISH + KOREAN + CHINESE) * 3


@cache
def byte_level(end: str = "<|endoftext|>") -> Tokenizer:
    """GPT-2's own kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


@cache
def bert(end: str = "[SEP]", text: str = TEXT) -> Tokenizer:
    """Chinese GPT-2s': BERT's WordPiece, in lower case, each Chinese character on its own."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", end]))
    trainer = trainers.WordPieceTrainer(vocab_size=320, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


@cache
def unigram(end: str = "</s>", text: str = TEXT) -> Tokenizer:
    """Sentencepiece's: spaces are part of the entries, characters are normalized."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=220,
        special_tokens=["<unk>", "<s>", end],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


@cache
def kogpt2(end: str = "</s>") -> Tokenizer:
    """KoGPT2's: a BPE over characters, spaces as in sentencepiece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[end, "<unk>", "<pad>"], show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


@cache
def word_level(end: str = "<eos>") -> Tokenizer:
    """Music's and chemistry's: words, and an entry for all others."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [end, AddedToken("<unk>", special=True)]
    trainer = trainers.WordLevelTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


KINDS = {
    "byte-level": (byte_level, "<|endoftext|>"),
    "BERT": (bert, "[SEP]"),
    "Unigram": (unigram, "</s>"),
    "KoGPT2": (kogpt2, "</s>"),
    "words": (word_level, "<eos>"),
}
