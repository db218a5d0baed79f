"""GPT-2's forward pass for generation: a whole prompt, or a token of every row of a batch.

transformers' model would do. But its attention of one new token a row, in bf16 on a CPU, takes
three times as long as two batched products over keys that lie as they are read; and PyTorch's
float32 products (MKL, on an AMD processor) take twice as long as oneDNN's of weights laid out for
it once. oneDNN's sums, moreover, do not depend on the number of rows.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch.nn.functional import gelu, linear, scaled_dot_product_attention
from transformers import GPT2LMHeadModel

from toolkit.key_value_cache import KeyValueCache, rounded
from toolkit.precision import DTYPES

Layer = Callable[[torch.Tensor], torch.Tensor]
ROWS = 64  # for which weights are laid out


class Decoder:
    """A GPT-2 whose weights are laid out for few tokens at a time.

    As under autocast, the products of the blocks are in `precision`, what is between them in
    float32. So are the logits: in bf16's three digits the likeliest are often equal, and of 64
    greedy texts of a small trained model 27 were those of float32, but 58 with float32 logits.
    """

    def __init__(self, model: GPT2LMHeadModel, precision: str):
        self.model, self.dtype = model, DTYPES.get(precision, torch.float32)
        config = model.config
        fused = config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        self.blocks = []
        for block in model.transformer.h:
            modules = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
            qkv, out, up, down = (
                layer(part.weight.T, part.bias, self.dtype, fused and part is block.mlp.c_fc)
                for part in modules
            )
            after_up = torch.nn.Identity() if fused else block.mlp.act
            self.blocks.append((block.ln_1, qkv, out, block.ln_2, up, after_up, down))
        self.head = layer(model.lm_head.weight, None, torch.float32)

    def empty_cache(self) -> KeyValueCache:
        config = self.model.config
        depth = config.n_embd // config.n_head
        return KeyValueCache(config.n_layer, config.n_head, depth, self.dtype, self.model.device)

    @torch.inference_mode()
    def read(self, prompt: list[int], cache: KeyValueCache, row: int) -> torch.Tensor:
        """Fill a row of the cache; return the prompt's hidden states, (tokens, width)."""

        def attend(number, queries, keys, values):
            cache.fill(number, row, keys, values)
            queries, keys, values = (part.transpose(0, 1)[None] for part in (queries, keys, values))
            mixed = scaled_dot_product_attention(
                queries, keys, values, is_causal=True, scale=self.scale(number)
            )
            return mixed[0].transpose(0, 1)

        ids = torch.tensor(prompt, device=self.model.device)
        return self.pass_blocks(ids, torch.arange(len(prompt), device=ids.device), attend)

    @torch.inference_mode()
    def step(self, tokens: list[int], lengths: list[int], cache: KeyValueCache) -> torch.Tensor:
        """Return the logits after one more token of each row, (rows, vocabulary), float32.

        `lengths`: how many tokens each row has before this one.
        """
        ids = torch.tensor(tokens, device=self.model.device)
        places = torch.tensor(lengths, device=ids.device)
        width = rounded(max(lengths) + 1)
        later = torch.arange(width, device=ids.device) > places[:, None]
        mask = torch.zeros(later.shape, dtype=self.dtype, device=ids.device)
        mask = mask.masked_fill_(later, -torch.inf)[:, None, None]

        def attend(number, queries, keys, values):
            keys, values = cache.append(number, places, width, keys, values)
            scores = torch.matmul(queries[:, :, None] * self.scale(number), keys)
            return torch.matmul((scores + mask).softmax(-1), values)[:, :, 0]

        return self.logits(self.pass_blocks(ids, places, attend))

    def pass_blocks(
        self, ids: torch.Tensor, places: torch.Tensor, attend: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """Return the hidden states of tokens, (tokens, width), before the last norm.

        `attend`: from a block's number, and queries, keys, values, each (tokens, heads, depth), to
        what they become, in the same shape.
        """
        body, heads = self.model.transformer, self.model.config.n_head
        hidden = body.wte.weight[ids] + body.wpe.weight[places]
        for number, (norm_1, qkv, out, norm_2, up, after_up, down) in enumerate(self.blocks):
            parts = qkv(norm_1(hidden).to(self.dtype)).view(len(ids), 3, heads, -1)
            mixed = attend(number, *parts.unbind(1))
            hidden = hidden + out(mixed.reshape(hidden.shape))
            hidden = hidden + down(after_up(up(norm_2(hidden).to(self.dtype))))
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (tokens, vocabulary), float32."""
        return self.head(self.model.transformer.ln_f(hidden))

    def scale(self, number: int) -> float:
        config = self.model.config
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        return scale / (number + 1) if config.scale_attn_by_inverse_layer_idx else scale


def layer(
    weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, with_gelu: bool = False
) -> Layer:
    """Return x -> x weight^T + bias, or its GELU, for a weight (out, in) and x (rows, in)."""
    weight = weight.detach().to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    if weight.device.type != "cpu" or not packing_works(dtype):
        after = partial(gelu, approximate="tanh") if with_gelu else torch.nn.Identity()
        return lambda x: after(linear(x, weight, bias))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    name, kind = ("gelu", "tanh") if with_gelu else ("none", "")

    def multiply(x: torch.Tensor) -> torch.Tensor:
        rows = x if len(x) > 1 else x.expand(2, -1)  # for one row the sums are in another order
        return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, name, [], kind)[: len(x)]

    return multiply


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN's operators are there and give what `linear` gives.

    They are those that torch.compile uses, and private: another release may have them otherwise.
    """
    weight, rows = torch.eye(16, dtype=dtype), torch.arange(32.0).view(2, 16).to(dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        found = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
        return torch.equal(found, rows)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
