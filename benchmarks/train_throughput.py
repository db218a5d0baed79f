"""How fast, and in how much memory, GPT-2 is trained: this pipeline against what users have.

    python3 benchmarks/train_throughput.py --blocks 4 --block_size 256 --dropout 0

Each contender trains the same GPT-2 (124M, random weights) on the same blocks, in the same batches,
with the same optimizer, in a process of its own, in turn, `--rounds` times over:

    ours        this pipeline's trainer, bf16
    stock_bf16  transformers.Trainer with bf16 (what run_clm.py does)
    stock_fp32  transformers.Trainer in float32
    trl_bf16    TRL's SFTTrainer with bf16 (benchmarks/requirements.txt)
    last_block  ours, all but the last block, the final norm and the head frozen
    lora        ours, adapters of rank 8 alone

Printed are medians over the rounds of tokens a second (from the median step, the first two aside),
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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CONTENDERS = ("ours", "stock_bf16", "stock_fp32", "trl_bf16", "last_block", "lora")
OURS = ("ours", "last_block", "lora")
OPTIONS = {
    "blocks": (4, "blocks a batch"),
    "block_size": (256, "tokens a block"),
    "dropout": (0.1, "GPT-2's own is 0.1"),
    "steps": (12, "optimizer steps a round"),
    "rounds": (3, "rounds"),
}


def train(contender: str, options: argparse.Namespace) -> dict:
    """Train in this process and return the seconds of each step, the losses and the peak memory."""
    import torch
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, set_seed

    from create_dataset import collate
    from toolkit.model.gpt2 import take_over
    from toolkit.model.trainable import add_adapters, plain_model, train_last_blocks
    from toolkit.training.compute_rate import matrix_product_rate, training_operations_per_token
    from toolkit.training.memory import keep_freed_memory, peak_memory_bytes
    from toolkit.training.trainer import PipelineTrainer

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

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matrix_product_rate(device, "bf16")
    set_seed(1)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), options.dropout)
    model = GPT2LMHeadModel(GPT2Config(**rates))
    model.loss_type, model.config.use_cache = "ForCausalLM", False
    if contender in OURS:
        model = take_over(model)
    if contender == "last_block":
        model = train_last_blocks(model, 1)
    elif contender == "lora":
        model = add_adapters(model, 8)
    operations = training_operations_per_token(plain_model(model), options.block_size)
    blocks = Dataset.from_dict({"input_ids": text_blocks(options)}).with_format("numpy")
    clock = Clock()
    common = {
        "max_steps": options.steps,
        "per_device_train_batch_size": options.blocks,
        "learning_rate": 3e-4,
        "warmup_steps": 10,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "bf16": contender.endswith("bf16"),
    }
    with tempfile.TemporaryDirectory() as folder:
        if contender == "trl_bf16":
            from trl import SFTConfig, SFTTrainer

            arguments = SFTConfig(
                folder,
                **common,
                max_length=None,
                gradient_checkpointing=False,
                dataset_kwargs={"skip_prepare_dataset": True},
            )
            rows = blocks.with_format(None)
            trainer = SFTTrainer(
                model, arguments, train_dataset=rows, processing_class=no_tokenizer()
            )
        else:
            from transformers import TrainingArguments

            arguments = TrainingArguments(folder, **common, remove_unused_columns=False)
            made = {"args": arguments, "train_dataset": blocks, "data_collator": collate}
            if contender in OURS:
                keep_freed_memory()
                step = options.blocks * options.block_size
                plan = {"tokens_per_step": step, "tokens_per_epoch": step, "steps_per_epoch": 1}
                plan["steps"] = options.steps
                own = {"history_path": Path(folder) / "log.jsonl", "precision": "bf16"}
                plan |= {"eval_steps": 1, "tokens_per_validation": 0}
                plan["operations_per_token"] = operations
                trainer = PipelineTrainer(model, **made, **own, plan=plan)
            else:
                trainer = Trainer(model, **made)
        trainer.add_callback(clock)
        trainer.train()
    step = statistics.median(clock.seconds[2:])
    return {
        "tokens_per_second": options.blocks * options.block_size / step,
        "utilization": options.blocks * options.block_size / step * operations / rate,
        "rate": rate,
        "losses": clock.losses,
        "peak_bytes": peak_memory_bytes(),
    }


def text_blocks(options: argparse.Namespace) -> list[list[int]]:
    """Return blocks of the bundled text, tokenized by a tokenizer trained on it, over and over."""
    from toolkit.corpus.sources import PLAIN, read_corpus
    from toolkit.model.byte_level_bpe import train_byte_level_bpe

    texts = [d.text for d in read_corpus(["data/keepers_log"], PLAIN, "corpus")["train"]]
    tokenizer = train_byte_level_bpe(texts, 8192, 1024)
    ids = [token for text in texts for token in tokenizer(text)["input_ids"]]
    size, wanted = options.block_size, options.blocks * options.steps
    ids *= -(-wanted * size // len(ids))
    return [ids[start * size : (start + 1) * size] for start in range(wanted)]


def no_tokenizer():
    """Return a tokenizer for SFTTrainer, which asks for one and has nothing to tokenize here."""
    from toolkit.model.byte_level_bpe import train_byte_level_bpe

    tokenizer = train_byte_level_bpe(["a text"], 300, 1024)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def measure(contender: str, options: argparse.Namespace) -> dict:
    flags = [word for name in OPTIONS for word in (f"--{name}", str(getattr(options, name)))]
    words = [sys.executable, __file__, "--only", contender, *flags]
    done = subprocess.run(words, capture_output=True, text=True, cwd=PROJECT)
    if done.returncode:
        sys.exit(f"{contender}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS[:3])
    for name, (value, help_text) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=help_text)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(train(options.only, options)))
        return
    rounds: dict[str, list[dict]] = {name: [] for name in options.contenders}
    for _ in range(options.rounds):
        for name, results in rounds.items():
            results.append(measure(name, options))
    medians = {
        name: {
            key: statistics.median(r[key] for r in results) for key in results[0] if key != "losses"
        }
        for name, results in rounds.items()
    }
    ours = medians["ours"] if "ours" in medians else next(iter(medians.values()))
    print(
        f"GPT-2 124M, {options.blocks} x {options.block_size} tokens, dropout {options.dropout}, "
        f"{options.steps} steps, median of {options.rounds} rounds; "
        f"bf16 matrix products: {ours['rate'] / 1e9:,.0f} GFLOP/s"
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
