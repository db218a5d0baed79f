"""What this project uses of transformers and torch that they do not promise to keep.

Each stands here alone, with its reason; a new version that renames one fails
tests/model/test_library_internals.py by that name, and nowhere else. All else is their public API.
"""

import torch
from transformers.trainer_callback import ExportableState as KeptInCheckpoints

__all__ = ["INTERNALS", "KeptInCheckpoints"]

INTERNALS = {
    # A callback of this kind is in trainer_state.json; documented, yet exported by no package.
    "transformers.trainer_callback.ExportableState": "a stream's place lies in its checkpoint",
    # The attribute is read when a checkpoint is loaded; there is no other way to name tied weights.
    "transformers.PreTrainedModel._keys_to_ignore_on_save": "a tied head is not missing",
    # Called where a resumed training goes on: after the first batch, which may draw, is there.
    "transformers.Trainer._load_rng_state": "a resumed training goes on with the same dropout",
    # Begun anew at every start, so that the first loss logged would lack the steps before.
    "transformers.Trainer._tr_loss": "a loss logged after resuming is that of all its steps",
    "transformers.Trainer._globalstep_last_logged": "which those are",
    # One call for all weights: copying them one by one costs as much as a block's forward pass.
    "torch._foreach_copy_": "copies of the weights follow them once a step",
    # The fused kernel that torch's own softmax goes back with.
    "torch._softmax_backward_data": "attention goes back without keeping its weights",
    # oneDNN's product with packed weights, bias and activation; torch.compile uses it on CPUs.
    "torch.ops.mkldnn._linear_pointwise": "writing, a row at a time",
    "torch.ops.mkldnn._reorder_linear_weight": "its packed weights",
}

copy_all = torch._foreach_copy_
softmax_backward = torch._softmax_backward_data


def linear_pointwise(*args):
    """oneDNN's product of rows with a packed weight, plus bias, then an activation."""
    return torch.ops.mkldnn._linear_pointwise.default(*args)


def reorder_linear_weight(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a weight of (out, in) as `linear_pointwise` wants it for about so many rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def not_missing_in_checkpoints(model: torch.nn.Module, names: list[str]) -> None:
    """Let a checkpoint without these weights count as whole: they are tied to others."""
    model._keys_to_ignore_on_save = names


def loss_since_logged(trainer) -> tuple[torch.Tensor, int]:
    """Return the sum of losses that are not logged yet, of this process, and the step before."""
    return trainer._tr_loss, trainer._globalstep_last_logged


def restore_loss_since_logged(trainer, total: torch.Tensor, step: int) -> None:
    trainer._tr_loss, trainer._globalstep_last_logged = total.to(trainer.args.device), step


def restore_random_numbers(trainer, checkpoint: str) -> None:
    """Set every generator to where it was when the checkpoint was written."""
    trainer._load_rng_state(checkpoint)
