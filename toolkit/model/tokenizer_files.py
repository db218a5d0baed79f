"""A GPT-2's tokenizer: opened as its files say, fitted to the model, saved so that all read it.

Saved, it is one form whatever it was before: tokenizer.json, and the names of its special tokens.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from toolkit.model.sentencepiece_file import open_sentencepiece
from toolkit.run.command import UserError, first_line
from toolkit.run.shortages import shortage_in

NAMES = ("eos_token", "bos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
# How tokenizers call what ends a text; BERT's [SEP] does so in Chinese GPT-2s.
ENDS = ("<|endoftext|>", "</s>", "<eos>", "<EOS>", "[EOS]", "<|eos|>", "<|end|>", "[SEP]")
NAMED = 5  # of entries that are dropped, in the line that says so
# Files that hold a tokenizer -> what opens them where no class is named.
FORMS = {
    "tokenizer.json": PreTrainedTokenizerFast,
    "vocab.json": AutoTokenizer,
    "vocab.txt": BertTokenizerFast,
}
SENTENCEPIECE = "*.model"


def open_tokenizer(folder: Path, where: str | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer in a folder, without its class's additions. Raises UserError.

    A tokenizer.json is taken as it is: the classes that others name may build another one from its
    entries (GPT-2's makes any tokenizer one of bytes).
    """
    where = where or str(folder)
    files = [folder / name for name in FORMS if (folder / name).is_file()]
    files += sorted(folder.glob(SENTENCEPIECE))
    if not files:
        raise UserError(f"{where} holds no tokenizer ({', '.join(FORMS)}, {SENTENCEPIECE})")
    try:
        opened = open_file(files[0], where)
        return plain(opened, opened.backend_tokenizer)
    except UserError:
        raise
    except Exception as error:  # the tokenizers library raises no narrower one
        if shortage_in(error):
            raise
        what = first_line(error)
        raise UserError(f"{where}: its {files[0].name} cannot be read ({what})") from None


def open_file(path: Path, where: str) -> PreTrainedTokenizerFast:
    if path.match(SENTENCEPIECE):
        return open_sentencepiece(path, where)
    own = path.name == "tokenizer.json" or not names_class(path.parent)
    opener = FORMS[path.name] if own else AutoTokenizer
    return opener.from_pretrained(path.parent, trust_remote_code=False)


def names_class(folder: Path) -> bool:
    """Tell whether a tokenizer's class is named: in its own settings, or in the model's."""
    files = [folder / name for name in ("tokenizer_config.json", "config.json")]
    held = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    return any(settings.get("tokenizer_class") for settings in held)


def plain(
    tokenizer: PreTrainedTokenizerFast, backend: Tokenizer, context: int | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer that does what `backend` does, and nothing around a text.

    Saved after use with truncation or padding, it would go on cutting and filling up texts. One
    that adds tokens (BERT's [CLS] and [SEP]) would give others texts that training never had.
    `context`: positions of the model it is for.
    """
    backend.no_truncation()
    backend.no_padding()
    adds = backend.num_special_tokens_to_add(is_pair=False)
    if is_plain(tokenizer, backend) and not adds:  # to make another takes as long as to open it
        tokenizer.model_max_length = context or tokenizer.model_max_length
        return tokenizer
    if adds:
        backend.post_processor = None
    special = {name: getattr(tokenizer, name) for name in NAMES}
    known = {name: token for name, token in special.items() if token and knows(backend, token)}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **known,
        model_max_length=context or tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,  # would drop spaces that the text had
        chat_template=tokenizer.chat_template,
    )


def is_plain(tokenizer: PreTrainedTokenizerFast, backend: Tokenizer) -> bool:
    """Tell whether a tokenizer has the form that `plain` makes, around this very backend."""
    usual = type(tokenizer) is PreTrainedTokenizerFast
    own = backend is tokenizer.backend_tokenizer
    return usual and own and not tokenizer.clean_up_tokenization_spaces


def knows(backend: Tokenizer, token: str) -> bool:
    return backend.token_to_id(token) is not None


def fit_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    config: GPT2Config,
    where: str,
    eos_token: str | None = None,
    resize: bool = False,
) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """Return the tokenizer fitted to a model's config, and what to tell the user of it.

    It has an end-of-text token and, unless the model is to be resized, no entry for which the model
    has no row.
    """
    rows, notes = config.vocab_size, []
    if resize:
        if len(tokenizer) > rows:
            more = len(tokenizer) - rows
            notes.append(f"{more} rows more in the model, each the mean of the others: as asked")
        rows = max(rows, len(tokenizer))
    tokenizer, dropped = without_entries(tokenizer, rows, where)
    if dropped:
        named = ", ".join([*dropped[:NAMED], *(["..."] if dropped[NAMED:] else [])])
        notes.append(
            f"the model has no row for {named}: where a text has it, it is read as characters; "
            "--resize_embeddings adds rows"
        )
    end, why = end_of_text(tokenizer, config, eos_token, where)
    tokenizer.add_special_tokens({"eos_token": end})
    notes += why
    return plain(tokenizer, tokenizer.backend_tokenizer, config.n_positions), notes


def without_entries(
    tokenizer: PreTrainedTokenizerFast, rows: int, where: str
) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """Return a tokenizer whose ids are below `rows`, and which entries it lost for it.

    Only entries that were added to a vocabulary can go; refuse a larger vocabulary.
    """
    backend = tokenizer.backend_tokenizer
    if len(tokenizer) <= rows:
        return tokenizer, []
    state = json.loads(backend.to_str())
    dropped = [token["content"] for token in state["added_tokens"] if token["id"] >= rows]
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < rows]
    smaller = Tokenizer.from_str(json.dumps(state))
    if smaller.get_vocab_size() > rows:
        raise UserError(
            f"{where}: its tokenizer has {len(tokenizer)} entries, the model only {rows}: they do "
            "not belong together; --resize_embeddings makes room for the others, untrained"
        )
    return plain(tokenizer, smaller), dropped


def end_of_text(
    tokenizer: PreTrainedTokenizerFast, config: GPT2Config, asked: str | None, where: str
) -> tuple[str, list[str]]:
    """Return the token that ends every text, and what to say of the choice.

    It is the one asked for, else the tokenizer's; else the model's where it is one that can be
    meant; else one whose name says so.
    """
    backend = tokenizer.backend_tokenizer
    if asked:
        if not knows(backend, asked):
            raise UserError(f"--eos_token {asked}: no entry of the tokenizer of {where}")
        return asked, []
    numbers = config.eos_token_id
    numbers = numbers if isinstance(numbers, list) else [numbers]
    meant = [backend.id_to_token(number) for number in numbers if number is not None]
    special = {*ENDS, *(str(token) for token in tokenizer.added_tokens_decoder.values())}
    by_name = [token for token in ENDS if knows(backend, token)]
    found = [*filter(None, [tokenizer.eos_token]), *(t for t in meant if t in special), *by_name]
    if not found:
        raise UserError(
            f"{where}: its tokenizer has no token that ends a text; name one of its entries with "
            "--eos_token, for instance --eos_token '</s>'"
        )
    return found[0], told(tokenizer, found[0], numbers)


def told(tokenizer: PreTrainedTokenizerFast, end: str, numbers: list[int | None]) -> list[str]:
    """Say where the end of text is not what both files say that it is."""
    number = tokenizer.backend_tokenizer.token_to_id(end)
    if numbers == [number]:
        return []
    if tokenizer.eos_token is None:
        return [f"end-of-text is {end} ({number}): the tokenizer names none; or give --eos_token"]
    said = "none of its entries" if numbers == [None] else ", ".join(map(str, numbers))
    return [f"end-of-text is {end} ({number}), as the tokenizer says; config.json says {said}"]


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, so that transformers from 4.40 on reads them.

    The library's own way names a class that releases before 5 lack, writes merges as pairs, which
    those before 4.45 cannot read, and notes from where it was opened.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    merges = state["model"].get("merges") or []
    if not any(" " in part for pair in merges for part in pair):
        state["model"] |= {"merges": list(map(" ".join, merges))} if merges else {}
    special = {name: getattr(tokenizer, name) for name in NAMES}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.model_max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.chat_template,
        **special,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, held in (("tokenizer.json", state), ("tokenizer_config.json", settings)):
        text = json.dumps(held, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")
