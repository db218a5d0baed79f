"""The forward pass for writing: a whole prompt, or one token of every row of a batch."""

import torch

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.kernels import choose_kernels
from toolkit.writing.key_value_cache import KeyValueCache, Slots


class Decoder:
    """A GPT-2 whose attention looks up what came before in a `KeyValueCache`.

    transformers' model would do. But its attention of one new token a row, in bf16 on a CPU, takes
    three times as long as two batched products over keys that lie as they are read.
    """

    def __init__(self, model: GPT2LMHeadModel, precision: str):
        self.model = model
        self.kernels = choose_kernels(model.device.type, precision, "writing")
        upcast = model.config.reorder_and_upcast_attn
        self.dtype = torch.float32 if upcast else self.kernels.products  # of the cache

    def empty_cache(self) -> KeyValueCache:
        config = self.model.config
        depth = config.n_embd // config.n_head
        return KeyValueCache(config.n_layer, config.n_head, depth, self.dtype, self.model.device)

    @torch.inference_mode()
    def read(
        self, prompts: list[list[int]], cache: KeyValueCache, first: int
    ) -> list[torch.Tensor]:
        """Fill rows of the cache, from `first` on; return each prompt's states, (tokens, width)."""
        lengths = [len(prompt) for prompt in prompts]

        def attend(number, queries, keys, values, scale, rate):
            mixed = []
            apart = zip(*(part.split(lengths) for part in (queries, keys, values)), strict=True)
            for row, own in enumerate(apart, start=first):
                cache.fill(number, row, *own[1:])
                own = (part[None] for part in own)
                mixed.append(self.kernels.attend(number, *own, scale, rate)[0])
            return torch.cat(mixed)

        like = {"device": self.model.device}
        ids = torch.tensor([token for prompt in prompts for token in prompt], **like)
        places = torch.cat([torch.arange(length, **like) for length in lengths])
        states = self.model.transformer(ids, self.kernels.with_attention(attend), places)
        return list(states.split(lengths))

    @torch.inference_mode()
    def step(self, tokens: list[int], lengths: list[int], cache: KeyValueCache) -> torch.Tensor:
        """Return the logits after one more token of each row, (rows, vocabulary), float32.

        `lengths`: how many tokens each row has before this one.
        """
        ids = torch.tensor(tokens, device=self.model.device)
        slots = Slots(lengths, ids.device)
        later = torch.arange(slots.width, device=ids.device) > slots.places[:, None]
        mask = torch.zeros(later.shape, dtype=self.dtype, device=ids.device)
        mask = mask.masked_fill_(later, -torch.inf)
        mask = mask.repeat_interleave(self.model.config.n_head, 0)[:, None]

        def attend(number, queries, keys, values, scale, rate):
            keys, values = cache.append(number, slots, keys, values)
            asked, keys, values = (
                queries.flatten(0, 1)[:, None],
                keys.flatten(0, 1),
                values.flatten(0, 1),
            )
            weights = torch.baddbmm(mask, asked, keys, alpha=scale).softmax(-1)
            return torch.bmm(weights, values).view(queries.shape)

        kernels = self.kernels.with_attention(attend)
        return self.logits(self.model.transformer(ids, kernels, slots.places))

    @torch.inference_mode()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return (tokens, vocabulary), float32."""
        return self.kernels.logits(states, self.model.lm_head.weight)
