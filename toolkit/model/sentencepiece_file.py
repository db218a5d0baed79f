"""A tokenizer from sentencepiece's file alone: what its own program would make of a text.

The classes that the library has for such files (T5's, XLNet's) each add tokens and fix numbers that
other models do not have.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from toolkit.run.command import UserError


def open_sentencepiece(path: Path, where: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a .model file, with the special tokens that its settings name."""
    for package, name in (("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")):
        if not is_there(package):
            raise UserError(f"{where}: its {path.name} needs a package: pip install {name}")
    made = PreTrainedTokenizerFast.convert_to_native_format(vocab_file=str(path))
    backend = made["tokenizer_object"]
    rules = SentencePieceExtractor(str(path)).proto.normalizer_spec
    steps = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    prefix = "always" if rules.add_dummy_prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
    backend.decoder = decoders.Metaspace(prepend_scheme=prefix)
    names = ("eos_token", "bos_token", "unk_token")
    special = {name: made[name] for name in names if name in made}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **special | named_in(path.with_name("tokenizer_config.json"))
    )


def is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor is what it is part of
        return False


def named_in(settings: Path) -> dict[str, str]:
    """Return the special tokens that a tokenizer's settings name."""
    held: dict[str, Any] = json.loads(settings.read_text("utf-8")) if settings.exists() else {}
    tokens = {name: held[name] for name in held if name.endswith("_token")}
    tokens = {
        n: token["content"] if isinstance(token, dict) else token for n, token in tokens.items()
    }
    return {name: token for name, token in tokens.items() if isinstance(token, str)}
