"""How many tokens training has seen, counted in its very batches."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.model.library_internals import KeptInCheckpoints
from toolkit.run.processes import sum_over_processes

KINDS = ("tokens", "tokens_learned", "padding_tokens")


class TokenCount(TrainerCallback, KeptInCheckpoints):
    """Tokens of all steps that have ended, in all processes; kept in checkpoints.

    `totals`: `tokens`, those of text; `tokens_learned`, which a loss was taken of; and
    `padding_tokens`, which fill up rows. `last_step`: the tokens of text of the last one.
    """

    def __init__(self) -> None:
        self.totals = dict.fromkeys(KINDS, 0)
        self.last_step = 0
        self._step: list[torch.Tensor] = []  # counts of the micro-batches of a step under way

    def note(self, labels: torch.Tensor) -> None:
        """Count a micro-batch by its labels, (batch, time): text ends with a row's last label."""
        scored = labels != -100
        places = torch.arange(1, labels.shape[1] + 1, device=labels.device)
        text = (places * scored).amax(1).sum()
        self._step.append(torch.stack([text, scored[:, 1:].sum(), labels.numel() - text]))

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": dict(self.totals)}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if kept := state.stateful_callbacks.get(type(self).__name__):
            self.totals = {kind: kept["attributes"][kind] for kind in KINDS}

    def on_step_end(self, *_: Any, **__: Any) -> None:
        counts = sum_over_processes(torch.stack(self._step).sum(0)).tolist()
        self._step, self.last_step = [], counts[0]
        for kind, count in zip(KINDS, counts, strict=True):
            self.totals[kind] += count
