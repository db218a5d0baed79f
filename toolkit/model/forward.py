"""GPT-2's forward pass: the one that trains, scores and writes.

It computes what transformers' `GPT2LMHeadModel` computes. Parameters have the same names and
shapes, so that transformers reads and writes the files, and whatever hooks into modules that run
(adapters, DDP, FSDP) finds them. What differs between the uses is handed in as `kernels`
(`toolkit/model/kernels.py`): how attention is done, in which precision, and which code multiplies.

    model = open_model(Path("data/gpt2-mini"))
    logits = model(torch.tensor([[5, 6, 7]]))        # (1, 3, vocabulary)
    loss = model(ids, labels=ids)                    # mean nats per predicted token
"""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from toolkit.model.fused_loss import next_token_loss
from toolkit.model.kernels import PLAIN, Kernels
from toolkit.model.ragged_rows import RaggedRows


class Projection(Conv1D):
    """x -> x weight + bias, for a weight of (in, out). Adapters wrap these, and call them."""

    def forward(self, x: Tensor, kernels: Kernels) -> Tensor:
        return kernels.project(x, self.weight, self.bias)


def pick(x: Tensor, numbers: Tensor | None) -> Tensor:
    return x if numbers is None else x.index_select(0, numbers)


class Attention(nn.Module):
    """Each token takes from itself and the tokens before it, in several heads."""

    def __init__(self, config: GPT2Config, number: int):
        super().__init__()
        width, self.number, self.heads = config.n_embd, number, config.n_head
        self.depth = width // self.heads
        self.c_attn = Projection(3 * width, width)
        self.c_proj = Projection(width, width)
        self.scale = self.depth**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= number + 1
        self.in_float32 = config.reorder_and_upcast_attn
        self.weight_dropout, self.dropout = config.attn_pdrop, config.resid_pdrop

    def forward(self, x: Tensor, kernels: Kernels, wanted: Tensor | None) -> Tensor:
        parts = self.c_attn(x, kernels).view(*x.shape[:-1], 3, self.heads, self.depth)
        if self.in_float32:
            parts = parts.float()
        rate = self.weight_dropout if self.training else 0.0
        mixed = kernels.attend(self.number, *parts.unbind(-3), self.scale, rate)
        x = pick(mixed.reshape(x.shape).to(x.dtype), wanted)
        return kernels.drop(self.c_proj(x, kernels), self.dropout if self.training else 0.0)


class MLP(nn.Module):
    """Each token on its own: wider, through the activation, and back."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        inner = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.c_fc = Projection(inner, config.n_embd)
        self.c_proj = Projection(config.n_embd, inner)
        self.activation, self.dropout = config.activation_function, config.resid_pdrop

    def forward(self, x: Tensor, kernels: Kernels) -> Tensor:
        x = kernels.widen(x, self.c_fc, self.activation)
        return kernels.drop(self.c_proj(x, kernels), self.dropout if self.training else 0.0)


class Block(GradientCheckpointingLayer):
    def __init__(self, config: GPT2Config, number: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, number)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, kernels: Kernels, wanted: Tensor | None = None) -> Tensor:
        mixed = self.attn(kernels.norm(x, self.ln_1, kernels.products), kernels, wanted)
        x = pick(x, wanted) + mixed
        return x + self.mlp(kernels.norm(x, self.ln_2, kernels.products), kernels)


class Body(nn.Module):
    """All but the head: from token ids to the states that the head reads."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList([Block(config, number) for number in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.dropout, self.tied = config.embd_pdrop, config.tie_word_embeddings

    def forward(
        self,
        ids: Tensor,
        kernels: Kernels,
        positions: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Return states, (..., width), for token ids of (batch, time), or of what `attend` expects.

        `positions`: of the same shape, where tokens do not stand at 0, 1, 2, ... `wanted`: of ids
        in one row, the numbers of those whose states are returned; default: of all.
        """
        if positions is None:
            positions = torch.arange(ids.shape[-1], device=ids.device)
        x = kernels.embed(ids, self.wte.weight, self.tied)
        x = x + kernels.embed(positions, self.wpe.weight)
        x = kernels.drop(x.to(kernels.stream), self.dropout if self.training else 0.0)
        for block in self.h[:-1]:
            x = block(x, kernels)
        x = self.h[-1](x, kernels, wanted)  # no token takes from another's state after this one
        return kernels.norm(x, self.ln_f, kernels.head)


class GPT2LMHeadModel(transformers.GPT2LMHeadModel):
    """The library's model (`toolkit/model/gpt2.py` opens one), but for what it computes."""

    def __init__(self, config: GPT2Config):
        GPT2PreTrainedModel.__init__(self, config)
        self.transformer, self.keeps_padding = Body(config), False
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        # Stock matches no loss of the library: Trainer then counts one label too many in each row.
        self.loss_type = "ForCausalLM"
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        count: Tensor | int | None = None,
        kernels: Kernels = PLAIN,
        **others: Any,
    ) -> Tensor:
        """Return logits, (batch, time, vocabulary); with `labels` their summed loss over `count`.

        `labels`: (batch, time), not shifted yet; -100 is not scored. `count`: tokens that the whole
        step predicts, so that its micro-batches add up to the mean (default: those of this batch).
        Raises TypeError for what only the library's own takes.
        """
        if foreign := [name for name, value in others.items() if value is not None]:
            raise TypeError(f"{foreign[0]}: not here; open the saved folder with transformers")
        weight = self.lm_head.weight
        if labels is None:
            return kernels.logits(self.transformer(input_ids, kernels), weight)
        states, targets = self.predicting(input_ids, labels[:, 1:], kernels)
        count = len(targets) if count is None else count
        return next_token_loss(states, weight, kernels.padded(weight), targets, count)

    def predicting(self, ids: Tensor, targets: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor]:
        """Return what predicts the targets, states of (rows, width), and these: (targets,).

        `ids`: (batch, time); `targets`: of the tokens, or of all but each row's last; -100 is not
        predicted, and what no other target needs is not computed. So rows are in the order of the
        targets, but a few that predict none may follow.
        """
        scored = targets != -100
        if self.keeps_padding or scored.all():
            return self.transformer(ids, kernels)[:, : targets.shape[1]][scored], targets[scored]
        rows = RaggedRows(targets)
        own = kernels.with_attention(rows.attend_with(kernels))
        return self.transformer(rows.take(ids), own, rows.positions, rows.wanted), rows.targets

    def compile_body(self) -> None:
        """Compile all but the head. Padding is computed then: other shapes compile anew."""
        self.transformer.compile()
        self.keeps_padding = True

    def get_input_embeddings(self) -> nn.Embedding:
        return self.transformer.wte
