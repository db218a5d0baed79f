"""Train GPT-2's kind of tokenizer, a byte-level BPE, on texts of one's own."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.run.lazily import lazily

with lazily():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2TokenizerFast, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
SMALLEST = 257  # every byte, and the end-of-text token


def train_byte_level_bpe(
    texts: Iterable[str], vocab_size: int, context: int
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of at most `vocab_size` entries whose only special token is end-of-text.

    `context`: positions of the model it is for. Same algorithm and pre-tokenizer as GPT-2's own
    (Radford et al. 2019, section 2.2): any text, in any script, encodes without an unknown token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return GPT2TokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=context,
    )
