"""A batch without its padding: the losses and gradients of the padded one, for less work."""

import pytest
import torch
from transformers import GPT2Config

from tests.conftest import library_model
from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.fused_loss import next_token_loss
from toolkit.model.gpt2 import fresh_model
from toolkit.model.kernels import CPUKernels, Kernels, choose_kernels
from toolkit.model.precision import autocast
from toolkit.model.ragged_rows import RaggedRows
from toolkit.model.trainable import add_adapters, plain_model, train_last_blocks

VOCABULARY, TIME = 131, 96
# Of each example: tokens of the prompt, and of all.
EXAMPLES = {
    "ragged": [(5, 20), (30, 61), (1, 96), (44, 45), (9, 33)],
    "one": [(7, 40)],
    "none is padded": [(90, 96), (3, 96)],
    "all are short": [(1, 2), (2, 4)],
    "many": [(3 + n, 10 + 5 * n) for n in range(16)],
}


def model_with(dropout: float = 0.0, **changes) -> GPT2LMHeadModel:
    torch.manual_seed(5)
    shape = {"n_layer": 3, "n_head": 2, "n_embd": 32, "n_positions": TIME, "vocab_size": VOCABULARY}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    model = fresh_model(GPT2Config(**shape, **ends, **rates, **changes))
    for weight in model.parameters():  # so that attention is far from even
        weight.data *= 3
    return model.train()


def batch_of(examples: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(examples))
    ids = torch.randint(VOCABULARY, (len(examples), TIME), generator=generator)
    labels = ids.clone()
    for row, (prompt, length) in zip(labels, examples, strict=True):
        row[:prompt] = -100
        row[length:] = -100
    return {"input_ids": ids, "labels": labels}


def learn(model: torch.nn.Module, batch: dict[str, torch.Tensor], padding: bool, **more):
    """Return the loss and the gradients, with or without computing the padding."""
    model.zero_grad()
    plain_model(model).keeps_padding = padding
    loss = model(**batch, **more)
    loss.backward()
    grads = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    return loss.detach(), grads


def agree(found, expected, **tolerance) -> None:
    torch.testing.assert_close(found[0], expected[0], atol=1e-6, rtol=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], msg=name, **tolerance)


EXACT = {"atol": 1e-10, "rtol": 1e-8}


@pytest.mark.parametrize("examples", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("kind", [Kernels, CPUKernels])
def test_losses_and_gradients_are_those_of_the_padded_batch(kind, examples):
    model, kernels = model_with().double(), kind(*3 * [torch.float64])
    batch = batch_of(examples)
    expected = learn(model, batch, padding=True, kernels=kernels)
    agree(learn(model, batch, padding=False, kernels=kernels), expected, **EXACT)


def test_the_loss_is_the_librarys_too():
    model, batch = model_with(), batch_of(EXAMPLES["ragged"])
    kernels = choose_kernels("cpu", "fp32", "training")
    expected = library_model(model)(**batch).loss.item()
    assert learn(model, batch, False, kernels=kernels)[0].item() == pytest.approx(expected, 1e-6)


class SameMasks(Kernels):
    """Dropout that drops, at its n-th use, the same of a token wherever in memory it lies."""

    def __init__(self, batch: int, rows: RaggedRows | None):
        super().__init__(*3 * [torch.float64])
        self.batch, self.rows, self.uses = batch, rows, []

    def drop(self, x, rate):
        generator = torch.Generator().manual_seed(len(self.uses))
        kept = torch.rand((self.batch, TIME, x.shape[-1]), generator=generator) >= rate
        self.uses.append(rate)
        if self.rows is not None:
            kept = self.rows.take(kept)
            kept = kept if len(x) == len(kept) else kept[self.rows.wanted]
        return x * kept / (1 - rate)


def test_dropout_falls_on_real_tokens_as_it_does_in_the_padded_batch():
    model, batch = model_with(0.3).double(), batch_of(EXAMPLES["many"])
    for block in model.transformer.h:
        block.attn.weight_dropout = 0.0
    rows, found = RaggedRows(batch["labels"][:, 1:]), []
    for padding in (True, False):
        kernels = SameMasks(16, None if padding else rows)
        found.append(learn(model, batch, padding, kernels=kernels))
        assert kernels.uses == 7 * [0.3]
    agree(found[1], found[0], **EXACT)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_in_every_precision_dropout_leaves_the_mean_loss_as_it_is(precision):
    """Attention's dropout too: the masks differ, what they do on the whole does not."""
    model, batch = model_with(0.1), batch_of(EXAMPLES["many"])
    losses = {True: [], False: []}
    for padding, found in losses.items():
        model.keeps_padding = padding
        with torch.no_grad():
            kernels = choose_kernels("cpu", precision, "training")
            found += [model(**batch, kernels=kernels).item() for _ in range(40)]
    padded, found = (torch.tensor(losses[padding]) for padding in (True, False))
    error = ((padded.var() + found.var()) / 40).sqrt()
    assert padded.std() > 0 and (padded.mean() - found.mean()).abs() < 4 * error


@pytest.mark.parametrize("kind", ["full", "adapters", "last block"])
def test_what_is_trained_of_the_model_has_the_padded_batchs_gradients(kind):
    model, batch = model_with(), batch_of(EXAMPLES["ragged"])
    if kind == "adapters":
        model = add_adapters(model, 4, seed=1)
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.data.normal_(std=0.1)
    elif kind == "last block":
        model = train_last_blocks(model, 1)
    kernels = choose_kernels("cpu", "fp32", "training")
    expected = learn(model, batch, padding=True, kernels=kernels)
    found = learn(model, batch, padding=False, kernels=kernels)
    agree(found, expected, atol=1e-5, rtol=1e-4)


def test_micro_batches_add_up_to_the_batch():
    model, kernels = model_with().double(), CPUKernels(*3 * [torch.float64])
    batch = batch_of(EXAMPLES["many"])
    count = int((batch["labels"][:, 1:] != -100).sum())
    expected = learn(model, batch, padding=True, kernels=kernels)
    model.zero_grad()
    model.keeps_padding = False
    for first in range(0, 16, 5):  # the last one of a single row
        part = {name: tensor[first : first + 5] for name, tensor in batch.items()}
        model(**part, count=count, kernels=kernels).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[1][name], **EXACT)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointed_blocks_have_the_same_gradients(precision):
    model, batch, found = model_with(0.2), batch_of(EXAMPLES["ragged"]), []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
        torch.manual_seed(1)
        kernels = choose_kernels("cpu", precision, "training")
        with autocast("cpu", precision):
            found.append(learn(model, batch, False, kernels=kernels))
    agree(found[1], found[0], atol=0, rtol=0)


def test_linear_layers_see_the_text_and_the_last_ones_what_is_learned():
    model, seen = model_with(), {}
    for name, module in model.named_modules():
        if name.endswith(("c_attn", "c_fc", "c_proj")):
            module.register_forward_hook(
                lambda _, args, __, name=name: seen.update({name: len(args[0])})
            )
    model(**batch_of(EXAMPLES["many"]))
    text = sum(length - 1 for _, length in EXAMPLES["many"])  # an end is predicted, never read
    learned = sum(length - prompt for prompt, length in EXAMPLES["many"])
    rows = {name.removeprefix("transformer.h."): count for name, count in seen.items()}
    assert text == 744 and learned == 592
    for name in ("0.attn.c_attn", "0.attn.c_proj", "1.mlp.c_fc", "2.attn.c_attn"):
        assert rows[name] == 768  # of 16 x 96; a multiple of 64, few shapes being fast
    assert rows["2.attn.c_proj"] == rows["2.mlp.c_fc"] == rows["2.mlp.c_proj"] == 640


def test_whole_blocks_are_computed_as_they_lie():
    model, shapes = model_with(), []
    model.transformer.register_forward_hook(lambda _, args, __: shapes.append(args[0].shape))
    ids = batch_of(EXAMPLES["one"])["input_ids"]
    model(ids, labels=ids)
    assert shapes == [(1, TIME)]


def test_a_compiled_body_gets_one_shape(monkeypatch):
    model, shapes = model_with(), []
    monkeypatch.setattr(model.transformer, "compile", lambda: None)
    model.compile_body()
    model.transformer.register_forward_hook(lambda _, args, __: shapes.append(args[0].shape))
    for name in ("ragged", "one"):
        model(**batch_of(EXAMPLES[name])).backward()
    assert shapes == [(5, TIME), (1, TIME)]


def test_states_behind_the_targets_count_for_nothing():
    torch.manual_seed(1)
    states = torch.randn(300, 16, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16, requires_grad=True)
    targets = torch.randint(VOCABULARY, (270,))  # beyond the first chunk
    expected = torch.nn.functional.cross_entropy(states[:270] @ weight.T, targets)
    loss = next_token_loss(states, weight, CPUKernels().padded(weight), targets, 270)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for got, wanted in zip(
        torch.autograd.grad(loss, (states, weight)),
        torch.autograd.grad(expected, (states, weight)),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)
    assert got.isfinite().all()
