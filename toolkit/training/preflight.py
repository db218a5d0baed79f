"""What training will need in memory and on disk, told before its first step."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.fused_loss import chunk_bytes
from toolkit.model.kernels import ALIGNMENT, choose_kernels
from toolkit.model.precision import autocast
from toolkit.model.trainable import plain_model
from toolkit.run.command import UserError
from toolkit.run.console import size as in_words
from toolkit.scoring.losses import tokens_at_once
from toolkit.training.compute_rate import MATRIX
from toolkit.training.memory import give_back_freed_memory

CGROUP = Path("/sys/fs/cgroup")  # where a container's memory is bounded
# Measured on a CPU, over six configurations: see tests/training/test_forecast.py.
LIBRARIES = 40_000_000  # bytes of code that training opens
PAGES = 40_000_000  # and that the pictures and pages open
GOING_BACK = 8  # tensors as wide as a block's widest that live at once on the way back
SCORING = {"fp32": 160}  # bytes of scoring for each token and each number of its state
SCORING_LOW = 240  # in bf16 and fp16: what is cast lives beside what it is cast from


@dataclass
class MemoryNeed:
    """Bytes that training adds to what the process holds: `fixed`, and `row` for each block.

    `afterwards`: what the steps after it add, when optimizer and gradients are gone.
    """

    fixed: int
    row: int
    afterwards: int = 0

    def of(self, micro_batch: int) -> int:
        return self.fixed + micro_batch * self.row

    def at_most(self, micro_batch: int) -> int:
        return max(self.of(micro_batch), self.afterwards)


def memory_need(model: torch.nn.Module, block_size: int, precision: str) -> MemoryNeed:
    """Return what training `model` takes, by sending one block through it and counting.

    Fixed are the weights in `precision`, gradients and AdamW's two moments in float32, the chunk of
    logits, and what the machine's own rate is measured with; for each block, what forward keeps for
    going back, and what goes back with it.
    """
    plain = plain_model(model)
    device, config = plain.device.type, plain.config
    kernels = choose_kernels(device, precision, "training")
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.zeros(1, block_size, dtype=torch.int64, device=plain.device)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.random.fork_rng(), autocast(device, precision), hooks:
        states = plain.train().transformer(ids, kernels)
    for tensor in (*model.parameters(), *kernels.copies.values()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    item, width = states.element_size(), config.vocab_size + ALIGNMENT
    chunk = chunk_bytes(device, width, item)
    copies = 0 if precision == "fp32" else sum(w.numel() * item for w in model.parameters())
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    head = 2 * width * config.n_embd * item  # its gradient, and the embedding's to be added to it
    rate = 3 * item * MATRIX[device] ** 2
    going_back = GOING_BACK * block_size * 4 * config.n_embd * item
    return MemoryNeed(
        libraries(device) + copies + 12 * trained + chunk + head + rate,
        sum(kept.values()) + going_back,
        afterwards(plain, precision),
    )


def libraries(device: str) -> int:
    return LIBRARIES if device == "cpu" else 0  # a card holds none


def afterwards(model: GPT2LMHeadModel, precision: str) -> int:
    """Return what steps 8 to 10 take: both models, and scoring or, on a CPU, packed weights."""
    device, config = model.device.type, model.config
    weights = sum(weight.numel() for weight in model.parameters())
    packed = (4 if precision == "fp32" else 2) * weights if device == "cpu" else 0
    scoring = SCORING.get(precision, SCORING_LOW) * tokens_at_once(device) * config.n_embd
    return libraries(device) + PAGES + 2 * 4 * weights + max(scoring, 2 * packed)


def free_memory_bytes(device: str) -> int:
    """Return what this process may still take, of the card or of the machine or container."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def held_bytes(device: str) -> int:
    """Return what this process holds now, of the card or of the machine."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    give_back_freed_memory()
    return psutil.Process().memory_info().rss


def settle_micro_batch(need: MemoryNeed, free_bytes: int, asked: int | str, blocks: int) -> int:
    """Return the blocks of a micro-batch: those asked for, or under `auto` as many as fit.

    `blocks`: the effective batch, which an automatic one must divide. Raises UserError where the
    memory cannot suffice.
    """
    sizes = [asked] if asked != "auto" else [n for n in range(blocks, 0, -1) if blocks % n == 0]
    for size in sizes:
        if need.of(size) <= free_bytes:
            return size
    raise UserError(
        f"--per_device_train_batch_size {asked}: training needs about "
        f"{in_words(need.of(sizes[-1]))} more memory, {in_words(free_bytes)} are free; take "
        "auto, a shorter --block_size, --trainable_blocks, --lora_rank or a smaller --model"
    )


def checkpoint_bytes(model: torch.nn.Module) -> int:
    """Return the size of one checkpoint: float32 weights and, for those trained, two moments."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    adapters_only = hasattr(model, "get_base_model")
    return sum(4 * n * (trained or not adapters_only) + 8 * n * trained for n, trained in sizes)


def refuse_too_little_disk(model: torch.nn.Module, folder: Path) -> int:
    """Return the disk that the run needs at most: best, newest, one being written, and model/."""
    weights = 4 * sum(weight.numel() for weight in model.parameters())
    needed, free = 3 * checkpoint_bytes(model) + weights, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"--run_dir: {folder} has {in_words(free)} of disk left, checkpoints and model take "
            f"up to {in_words(needed)}; choose another --run_dir, or --lora_rank"
        )
    return needed
