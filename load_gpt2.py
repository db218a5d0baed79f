"""Step 3: the model and its tokenizer - from the Hub, from a folder, or from scratch.

Leaves load_gpt2.json, and tokenizer/, or base_model/ if the model was made from scratch.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from pathlib import Path

from toolkit.corpus.files import named_paths
from toolkit.model.byte_level_bpe import SMALLEST
from toolkit.model.sizes import refuse_too_large
from toolkit.run.command import command
from toolkit.run.lazily import lazily
from toolkit.run.options import flag, require_ranges
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import parse

with lazily():
    from transformers import GPT2Config, PreTrainedTokenizerFast

    from toolkit.corpus.columns import Columns
    from toolkit.corpus.sources import Reading, read_corpus
    from toolkit.model import gpt2, hub
    from toolkit.model.byte_level_bpe import train_byte_level_bpe
    from toolkit.model.forward import GPT2LMHeadModel
    from toolkit.model.tokenizer_files import fit_tokenizer, open_tokenizer, save_tokenizer

# A model small enough to learn a short text on a laptop's CPU in a minute.
# GPT-2: 12, 12, 768, 1024, 50257.
SMALL = {"n_layer": 4, "n_head": 4, "n_embd": 256, "n_positions": 256, "vocab_size": 4096}


@dataclass
class LoadOptions:
    """step 3, load_gpt2"""

    model: str = flag(
        "auto",
        "Hub id (gpt2, distilgpt2, gpt2-medium, owner/name), local folder, or auto: gpt2 if it is "
        "cached or the Hub answers, else the small one in data/gpt2-mini",
    )
    model_revision: str | None = flag(None, "branch, tag or commit on the Hub")
    from_scratch: bool = flag(False, "random weights in a fresh GPT2Config")
    n_layer: int | None = flag(None, "from scratch: blocks (default: 4; GPT-2: 12)", above=0)
    n_head: int | None = flag(None, "from scratch: heads a block (default: 4; GPT-2: 12)", above=0)
    n_embd: int | None = flag(None, "from scratch: width (default: 256; GPT-2: 768)", above=0)
    n_positions: int | None = flag(
        None, "from scratch: longest context in tokens (default: 256; GPT-2: 1024)", at_least=8
    )
    dropout: float | None = flag(
        None, "from scratch: of embeddings, attention and blocks (default: 0.1; much text: 0)"
    )
    vocab_size: int | None = flag(
        None, "from scratch: entries of the tokenizer to train (default: 4096)", at_least=SMALLEST
    )
    tokenizer: str | None = flag(
        None, "from scratch: take this tokenizer (Hub id or folder), train none"
    )
    tokenizer_corpus: list[str] | None = flag(
        None,
        "from scratch: text to train the tokenizer on (default: the training documents, in step 5)",
    )
    eos_token: str | None = flag(
        None, "the tokenizer's entry that ends a text, where it does not say so itself"
    )
    resize_embeddings: bool = flag(
        False, "add rows, the mean of the others, for tokenizer entries that the model lacks"
    )

    def __post_init__(self) -> None:
        require_ranges(self)
        given = [
            name
            for name in (*SMALL, "dropout", "tokenizer", "tokenizer_corpus")
            if getattr(self, name) is not None
        ]
        if given and not self.from_scratch:
            raise ValueError(f"--{given[0]} shapes a new model: add --from_scratch")
        if self.from_scratch and self.model != "auto":
            raise ValueError(
                f"--from_scratch makes a new model: it cannot go with --model {self.model}"
            )
        if self.tokenizer and (self.vocab_size or self.tokenizer_corpus):
            raise ValueError(
                "--tokenizer takes a ready tokenizer: drop --vocab_size and --tokenizer_corpus"
            )
        if self.resize_embeddings and self.from_scratch:
            raise ValueError("--resize_embeddings is for a model that is there: drop it")
        if self.eos_token == "":
            raise ValueError("--eos_token must name an entry of the tokenizer, got an empty text")
        if self.eos_token and self.from_scratch and not self.tokenizer:
            raise ValueError(
                "--eos_token is for a ready tokenizer: one that is trained here has one"
            )
        if not self.model:
            raise ValueError("--model must name a Hub id or a folder, got an empty text")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"--dropout must lie from 0 to below 1, got {self.dropout}")
        shape = self.shape()
        if shape["n_embd"] % shape["n_head"]:
            raise ValueError(
                f"--n_embd {shape['n_embd']} must be a multiple of --n_head {shape['n_head']}"
            )

        if self.from_scratch:
            refuse_too_large(**shape)

    def shape(self) -> dict[str, int]:
        return {name: getattr(self, name) or default for name, default in SMALL.items()}

    def trains_tokenizer_later(self) -> bool:
        """Tell whether step 5 trains it, on the run's own training text; until then it is bytes."""
        return self.from_scratch and not (self.tokenizer or self.tokenizer_corpus)

    def files_read(self) -> list[Path]:
        if self.model == "auto" and not self.from_scratch:
            return [hub.bundled_folder()]
        if Path(self.model).is_dir():
            return [Path(self.model)]
        return named_paths(self.tokenizer_corpus or [])


def load_gpt2(
    options: LoadOptions, run: RunDirectory
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """Return the model (float32, on the CPU) and its tokenizer."""
    with run.step(__file__, options, after="import_modules") as step:
        if options.from_scratch:
            name, reason = "new model", "from scratch, as asked"
            model, tokenizer = make_model(options)
            folder = step.folder("base_model")
            gpt2.fit_model(model, tokenizer).save_pretrained(folder)
            save_tokenizer(tokenizer, folder)
            model = gpt2.open_model(folder)  # as every later process will see it
        else:
            name, folder, reason = hub.find_model(options.model, options.model_revision)
            model, found = gpt2.open_model(folder, name), open_tokenizer(folder, name)
            tokenizer, step.notes = fit_tokenizer(
                found, model.config, name, options.eos_token, options.resize_embeddings
            )
            save_tokenizer(tokenizer, step.folder("tokenizer"))
            gpt2.fit_model(model, tokenizer)
        config = model.config
        step.results = {
            "model": name,
            "from_scratch": options.from_scratch,
            "revision": hub.revision_of(folder),
            "parameters": model.num_parameters(),
            "tokenizer_entries": len(tokenizer),
            "tokenizer_to_train": options.trains_tokenizer_later(),
            **{key: getattr(config, key) for key in SMALL},
            "notes": step.notes,
        }
        step.measured = {"folder": None if options.from_scratch else str(folder.resolve())}
        step.summary = (
            f"{name}: {model.num_parameters():,} parameters "
            f"({config.n_layer} blocks, {config.n_embd} wide, {config.n_positions} positions), "
            + (
                f"up to {config.vocab_size:,} tokens, found in step 5; {reason}"
                if options.trains_tokenizer_later()
                else f"{len(tokenizer):,} tokens; {reason}"
            )
        )
    return model, tokenizer


def read_gpt2(run: RunDirectory) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """Return the model and tokenizer as step 3 left them: before any training."""
    folder, name = find_loaded(run)
    tokenizer = read_tokenizer(run)
    return gpt2.fit_model(gpt2.open_model(folder, name), tokenizer), tokenizer


def read_tokenizer(run: RunDirectory) -> PreTrainedTokenizerFast:
    """Return the tokenizer alone: no weights are read."""
    kept = run.results("load_gpt2").get("artifacts", {}).keys() & {"base_model", "tokenizer"}
    if not kept:  # a run of before tokenizers were kept
        return open_tokenizer(*find_loaded(run))
    return open_tokenizer(run.artifact("load_gpt2", *kept))


def find_loaded(run: RunDirectory) -> tuple[Path, str]:
    """Return the folder and the name of what step 3 loaded."""
    results = run.results("load_gpt2")
    if results["from_scratch"]:
        return run.artifact("load_gpt2", "base_model"), "base_model"
    folder = Path(run.record("load_gpt2")["measured"]["folder"])
    if results["model"] == hub.BUNDLED:
        folder = hub.bundled_folder()
    elif not folder.is_dir():  # the cache was emptied, or the run was copied here
        folder = hub.fetch_folder(results["model"], results["revision"])
    return folder, results["model"]


def make_model(options: LoadOptions) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """Return a model with random weights, and a tokenizer: the one named, or one trained for it."""
    shape = options.shape()
    if options.tokenizer:
        folder = hub.find_folder(options.tokenizer, weights=False, flag="--tokenizer")
        found = open_tokenizer(folder, options.tokenizer)
        whole = GPT2Config(**shape | {"vocab_size": len(found)}, eos_token_id=None)
        tokenizer, _ = fit_tokenizer(found, whole, options.tokenizer, options.eos_token)
        shape["vocab_size"] = len(tokenizer)
    elif options.tokenizer_corpus:
        words = Reading(Columns(every=True))
        corpus = read_corpus(options.tokenizer_corpus, words, "--tokenizer_corpus")
        texts = (document.text for document in corpus["train"])
        tokenizer = train_byte_level_bpe(texts, shape["vocab_size"], shape["n_positions"])
        shape["vocab_size"] = len(tokenizer)
    else:
        tokenizer = train_byte_level_bpe([], SMALLEST, shape["n_positions"])
    end = tokenizer.eos_token_id
    rates = {}
    if options.dropout is not None:
        rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), options.dropout)
    config = GPT2Config(**shape, **rates, bos_token_id=end, eos_token_id=end)
    return gpt2.fresh_model(config), tokenizer


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, LoadOptions, about=__doc__)
    load_gpt2(options, run)


if __name__ == "__main__":
    main()
