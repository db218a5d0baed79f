"""What training will need in memory and on disk, told before its first step."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from toolkit.model.fused_loss import chunk_bytes
from toolkit.model.kernels import ALIGNMENT, choose_kernels
from toolkit.model.precision import autocast
from toolkit.model.trainable import plain_model
from toolkit.run.command import UserError

CGROUP = Path("/sys/fs/cgroup")  # where a container's memory is bounded


@dataclass
class MemoryNeed:
    """Bytes that training adds to what the process holds: `fixed`, and `row` for each block."""

    fixed: int
    row: int

    def of(self, micro_batch: int) -> int:
        return self.fixed + micro_batch * self.row


def memory_need(model: torch.nn.Module, block_size: int, precision: str) -> MemoryNeed:
    """Return what training `model` takes, by sending one block through it and counting.

    Fixed are the weights in `precision`, gradients and AdamW's two moments in float32, and the
    chunk of logits; for each block, what forward keeps for going back.
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
    return MemoryNeed(copies + 12 * trained + chunk + head, sum(kept.values()))


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
        f"{need.of(sizes[-1]) / 1e9:.1f} GB more memory, {free_bytes / 1e9:.1f} GB are free; take "
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
            f"--run_dir: {folder} has {free / 1e9:.1f} GB of disk left, checkpoints and model take "
            f"up to {needed / 1e9:.1f} GB; choose another --run_dir, or --lora_rank"
        )
    return needed
