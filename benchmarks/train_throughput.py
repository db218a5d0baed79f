"""How fast, and in how much memory, GPT-2 is trained: this pipeline against what users have.

    python3 benchmarks/train_throughput.py --blocks 4 --block_size 256 --dropout 0
    python3 benchmarks/train_throughput.py --examples --shape mini
    python3 benchmarks/train_throughput.py --shape toy --rounds 1    # to see whether it runs

Each contender trains the same GPT-2 (124M, random weights) on the same blocks, in the same batches,
with the same optimizer, in a process of its own, in turn, `--rounds` times over:

    ours        this pipeline's trainer, bf16
    ours_fp32   the same in float32
    stock_bf16  transformers.Trainer with bf16 (what run_clm.py does)
    stock_fp32  transformers.Trainer in float32
    trl_bf16    TRL's SFTTrainer with bf16 (benchmarks/requirements.txt)
    last_block  ours, all but the last block, the final norm and the head frozen
    lora        ours, adapters of rank 8 alone (benchmarks/requirements.txt)
    padded      ours, but padding is computed like text

With `--examples` the rows are prompts and completions (data/dialogues.jsonl), of which only the
completion is learned, padded to `--block_size`; to the longest of its batch for stock and TRL, as
TRL does. A second's tokens are those of text.

Printed are medians over the rounds of tokens a second (of the median step, the first two aside),
peak memory, both as ratios to ours, and the loss curves. Stock training mis-scales GPT-2's loss by
one token a row; here it is told the right way (`model.loss_type`), which costs no time.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import measure_alone
from toolkit.run.command import UserError, command

OURS = ("ours", "ours_fp32", "last_block", "lora", "padded")
CONTENDERS = (
    "ours",
    "ours_fp32",
    "stock_bf16",
    "stock_fp32",
    "trl_bf16",
    "last_block",
    "lora",
    "padded",
)
SHAPES = {
    "gpt2": {"n_positions": 1024},  # 124M parameters
    "mini": {"n_layer": 5, "n_head": 4, "n_embd": 256, "n_positions": 256, "vocab_size": 8192},
    "toy": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 300},
}
BLOCK_SIZE = {"gpt2": 256, "mini": 256, "toy": 32}
TEXT_ENTRIES = {"gpt2": 8192, "mini": 8192, "toy": 300}  # of the tokenizer of the text
EXAMPLES = "data/dialogues.jsonl"
WARM_UP = 2  # steps that are not timed
OPTIONS = {
    "blocks": (4, "blocks a batch"),
    "dropout": (0.1, "GPT-2's own is 0.1"),
    "steps": (12, "optimizer steps a round"),
    "rounds": (3, "rounds"),
}


def train(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train in this process and return tokens a second, the losses and the peak memory."""
    import torch
    from transformers import set_seed

    from toolkit.model.trainable import plain_model
    from toolkit.training.compute_rate import matrix_product_rate, training_operations_per_token
    from toolkit.training.memory import peak_memory_bytes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matrix_product_rate(device, precision_of(contender))
    set_seed(1)
    model = make_model(contender, options)
    operations = training_operations_per_token(plain_model(model), options.block_size)
    clock, tokens = make_clock(), []
    with tempfile.TemporaryDirectory() as folder:
        make = make_trl_trainer if contender == "trl_bf16" else make_trainer
        trainer = make(contender, model, options, Path(folder))
        trainer.data_collator = count_tokens(trainer.data_collator, contender, tokens)
        trainer.add_callback(clock)
        trainer.train()
    steps = zip(tokens, clock.seconds, strict=False)  # batches may be fetched ahead of their step
    speeds = [count / seconds for count, seconds in steps]
    tokens_per_second = statistics.median(speeds[WARM_UP:])
    return {
        "tokens_per_second": tokens_per_second,
        "utilization": tokens_per_second * operations / rate,
        "rate": rate,
        "losses": clock.losses,
        "peak_bytes": peak_memory_bytes(),
    }


def precision_of(contender: str) -> str:
    return "fp32" if contender.endswith("fp32") else "bf16"


def make_model(contender: str, options: argparse.Namespace) -> Any:
    """Return the model with random weights, as the contender trains it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from toolkit.model.gpt2 import take_over
    from toolkit.model.trainable import add_adapters, train_last_blocks

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), options.dropout)
    shape = SHAPES[options.shape]
    if "vocab_size" in shape:  # 50256, the library's default, is no entry of this one
        shape = {**shape, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**shape, **rates))
    model.loss_type, model.config.use_cache = "ForCausalLM", False
    if contender in OURS:
        model = take_over(model)
    if contender == "padded":
        model.keeps_padding = True
    if contender == "last_block":
        return train_last_blocks(model, 1)
    return add_adapters(model, 8, seed=1) if contender == "lora" else model


def make_clock() -> Any:
    """Return a callback that keeps the `seconds` of each step and the `losses` of the log."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.seconds, self.losses = [], []

        def on_step_begin(self, *_, **__):
            self.begin = time.perf_counter()

        def on_step_end(self, *_, **__):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self.begin)

        def on_log(self, args, state, control, logs, **_):
            if "loss" in logs:
                self.losses.append(float(logs["loss"]))

    return Clock()


def common_arguments(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what all contenders are told alike."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "max_steps": options.steps,
        "per_device_train_batch_size": options.blocks,
        "learning_rate": 3e-4,
        "warmup_steps": 10,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "bf16": contender.endswith("bf16"),
    }


def count_tokens(collate: Any, contender: str, tokens: list[int]) -> Any:
    """Return the collator, which adds each batch's tokens of text to `tokens`.

    Others than ours get examples padded to the longest of their batch.
    """

    def collate_and_count(blocks: list[dict[str, Any]]) -> dict[str, Any]:
        lengths = [int(block.get("length", len(block["input_ids"]))) for block in blocks]
        tokens.append(sum(lengths))
        batch = collate(blocks)
        if contender in OURS or "length" not in blocks[0]:
            return batch
        return {name: part[:, : max(lengths)] for name, part in batch.items()}

    return collate_and_count


def make_trainer(contender: str, model: Any, options: argparse.Namespace, folder: Path) -> Any:
    """Return this pipeline's Trainer around the model, or the library's."""
    from transformers import Trainer, TrainingArguments

    from toolkit.blocks.collator import collate
    from toolkit.training.memory import keep_freed_memory
    from toolkit.training.trainer import PipelineTrainer

    common = common_arguments(contender, options)
    arguments = TrainingArguments(str(folder), **common, remove_unused_columns=False)
    made = {"args": arguments, "train_dataset": make_blocks(options), "data_collator": collate}
    if contender not in OURS:
        return Trainer(model, **made)
    keep_freed_memory()
    own = {"history_path": folder / "log.jsonl", "precision": precision_of(contender)}
    return PipelineTrainer(model, **made, **own, plan=make_plan(model, options))


def make_plan(model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return step 6's plan for this training: one epoch, a validation block that nobody scores."""
    from configure_trainer import TrainerOptions
    from toolkit.model.trainable import plain_model
    from toolkit.training.compute_rate import training_operations_per_token
    from toolkit.training.plan import FROM_SCRATCH, plan_training

    asked = TrainerOptions(
        max_steps=options.steps,
        per_device_train_batch_size=options.blocks,
        eval_steps=options.steps,
        logging_steps=1,
    )
    counts = {"train": options.steps * options.blocks, "validation": 1}
    accounts = {
        split: {"blocks": count, "tokens_in_blocks": count * options.block_size}
        for split, count in counts.items()
    }
    operations = training_operations_per_token(plain_model(model), options.block_size)
    plan = plan_training(vars(asked), accounts, FROM_SCRATCH)
    return {"operations_per_token": operations, **plan}


def make_trl_trainer(contender: str, model: Any, options: argparse.Namespace, folder: Path) -> Any:
    """Return TRL's trainer around the model, its own preparation of texts left out."""
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        raise UserError(
            "trl_bf16 needs TRL; run: python3 -m pip install -r benchmarks/requirements.txt"
        ) from None
    arguments = SFTConfig(
        str(folder),
        **common_arguments(contender, options),
        max_length=None,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    rows = make_blocks(options).with_format(None)
    return SFTTrainer(model, arguments, train_dataset=rows, processing_class=no_tokenizer())


def make_blocks(options: argparse.Namespace) -> Any:
    """Return blocks of the bundled text, tokenized by a tokenizer trained on it, over and over."""
    from datasets import Dataset

    from toolkit.corpus.sources import Reading, read_corpus
    from toolkit.model.byte_level_bpe import train_byte_level_bpe

    if options.examples:
        return make_examples(options)
    texts = [d.text for d in read_corpus(["data/keepers_log"], Reading(), "corpus")["train"]]
    tokenizer = train_byte_level_bpe(texts, TEXT_ENTRIES[options.shape], 1024)
    ids = [token for text in texts for token in tokenizer(text)["input_ids"]]
    size, wanted = options.block_size, options.blocks * options.steps
    ids *= -(-wanted * size // len(ids))
    rows = [ids[start * size : (start + 1) * size] for start in range(wanted)]
    return Dataset.from_dict({"input_ids": rows}).with_format("numpy")


def make_examples(options: argparse.Namespace) -> Any:
    """Return the bundled dialogues, each with its summary, over and over; too long ones dropped."""
    from datasets import concatenate_datasets

    from toolkit.blocks.examples import pad_examples
    from toolkit.corpus.columns import Columns
    from toolkit.corpus.document import with_separator
    from toolkit.corpus.sources import Reading, read_corpus
    from toolkit.corpus.tokenizing import tokenize
    from toolkit.model.byte_level_bpe import train_byte_level_bpe

    columns = Columns(prompt="dialogue", completion="summary")
    read = read_corpus([EXAMPLES], Reading(columns), "corpus")["train"]
    documents = [with_separator(document, "\nTL;DR: ") for document in read]
    texts = ["".join(document.parts) for document in documents]
    tokenizer = train_byte_level_bpe(texts, TEXT_ENTRIES[options.shape], 1024)
    ids, starts, _ = tokenize(documents, tokenizer)
    rows, _ = pad_examples(ids, starts, options.block_size, tokenizer.eos_token_id)
    wanted = options.blocks * options.steps
    rows = concatenate_datasets([rows] * -(-wanted // max(1, len(rows))))
    if len(rows) < wanted:
        raise UserError(f"no example fits --block_size {options.block_size}")
    return rows.select(range(wanted)).with_format("numpy")


def no_tokenizer() -> Any:
    """Return a tokenizer for SFTTrainer, which asks for one and has nothing to tokenize here."""
    from toolkit.model.byte_level_bpe import train_byte_level_bpe

    tokenizer = train_byte_level_bpe(["a text"], 300, 1024)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def measure(contender: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train in a process of its own."""
    names = ("shape", "block_size", *OPTIONS)
    flags = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    flags += ["--examples"] * options.examples
    return measure_alone(__file__, "--only", contender, *flags)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags. Raises UserError for what cannot be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    usual = ("ours", "stock_bf16", "stock_fp32")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=usual)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2", help="toy: to try this script")
    parser.add_argument("--block_size", type=int, help="tokens a block (default: 256; toy: 32)")
    parser.add_argument("--examples", action="store_true", help="prompts and completions")
    for name, (value, help_text) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=help_text)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.block_size = options.block_size or BLOCK_SIZE[options.shape]
    positions = SHAPES[options.shape]["n_positions"]
    if options.block_size > positions:
        raise UserError(
            f"--block_size {options.block_size} is more than the {positions} positions "
            f"of --shape {options.shape}"
        )
    if options.examples and "trl_bf16" in (options.only, *options.contenders):
        raise UserError("trl_bf16 is not measured with --examples; leave it out of --contenders")
    if options.steps <= WARM_UP:
        raise UserError(
            f"--steps must be above {WARM_UP}, got {options.steps}: the first {WARM_UP} are not "
            "timed"
        )
    return options


@command
def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    if options.only:
        print(json.dumps(train(options.only, options)))
        return
    rounds: dict[str, list[dict]] = {name: [] for name in options.contenders}
    for _ in range(options.rounds):
        for name, results in rounds.items():
            results.append(measure(name, options))
    show(rounds, options)


def show(rounds: dict[str, list[dict]], options: argparse.Namespace) -> None:
    """Print the table of medians, and the losses of each contender's first round."""
    medians = {
        name: {
            key: statistics.median(r[key] for r in results) for key in results[0] if key != "losses"
        }
        for name, results in rounds.items()
    }
    ours = medians["ours"] if "ours" in medians else next(iter(medians.values()))
    model = "GPT-2 124M" if options.shape == "gpt2" else f"a {options.shape} GPT-2"
    print(
        f"{model}, {options.blocks} x {options.block_size} tokens"
        f"{' (padded examples)' * options.examples}, dropout {options.dropout}, "
        f"{options.steps} steps, median of {options.rounds} rounds; matrix products, GFLOP/s: "
        + ", ".join(
            f"{precision} {median['rate'] / 1e9:,.0f}"
            for precision, median in {precision_of(n): m for n, m in medians.items()}.items()
        )
    )
    print("contender    tokens/s  ours is  of matmul rate  peak GB  of its memory")
    for name, median in medians.items():
        print(
            f"{name:11}  {median['tokens_per_second']:8,.0f}  "
            f"{ours['tokens_per_second'] / median['tokens_per_second']:6.2f}x  "
            f"{median['utilization']:14.0%}  {median['peak_bytes'] / 1e9:7.2f}  "
            f"{ours['peak_bytes'] / median['peak_bytes']:13.0%}"
        )
    for name, results in rounds.items():
        print(f"losses {name}: " + " ".join(f"{loss:.3f}" for loss in results[0]["losses"]))


if __name__ == "__main__":
    main()
