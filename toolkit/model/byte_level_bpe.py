"""Train GPT-2's kind of tokenizer, a byte-level BPE, on texts of one's own."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.run.lazily import lazily

with lazily():
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
SMALLEST = 257  # every byte, and the end-of-text token
# GPT-2's own pattern, but that marks and joiners are parts of words. GPT-2's cuts at each of them:
# a token of Hindi then holds 3.8 bytes, and with this one 10.5 (docs/languages.md).
IN_WORDS = r"\p{L}\p{M}\u200c\u200d"
PATTERN = (
    r"'(?:s|t|re|ve|m|ll|d)"
    rf"| ?[{IN_WORDS}]+| ?\p{{N}}+| ?[^\s{IN_WORDS}\p{{N}}]+|\s+(?!\S)|\s+"
)


def train_byte_level_bpe(
    texts: Iterable[str], vocab_size: int, context: int
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of at most `vocab_size` entries whose only special token is end-of-text.

    `context`: positions of the model it is for. The algorithm is that of GPT-2's own tokenizer
    (Radford et al. 2019, section 2.2): any text, in any script, encodes without an unknown token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cut_to_words()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # GPT2TokenizerFast would put its own pattern in place of ours
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=context,
    )


def cut_to_words() -> pre_tokenizers.PreTokenizer:
    """Return what cuts a text to words by PATTERN, and writes each as bytes."""
    by_pattern = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([by_pattern, as_bytes])
