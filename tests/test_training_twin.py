"""The fast way through the model computes what the library's model and plain PyTorch compute."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from toolkit import cpu_kernels
from toolkit.cpu_kernels import CausalAttention, Dropout, Masks
from toolkit.fused_loss import ROWS_ON_CPU, aligned, next_token_loss
from toolkit.gpt2 import fresh_model
from toolkit.training_twin import TrainingTwin

VOCABULARY = 131  # no multiple of 64
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture
def model() -> GPT2LMHeadModel:
    torch.manual_seed(5)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 48}
    return fresh_model(GPT2Config(vocab_size=VOCABULARY, **shape, **NO_DROPOUT))


def batch_of(blocks: int, masked: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(VOCABULARY, (blocks, 48), generator=torch.Generator().manual_seed(blocks))
    labels = ids.clone()
    labels[:, :masked] = -100
    return {"input_ids": ids, "labels": labels}


def gradients_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("rows", [1, ROWS_ON_CPU, 2 * ROWS_ON_CPU + 7], ids=lambda n: f"{n} rows")
def test_the_fused_loss_and_its_gradients_are_those_of_cross_entropy(rows):
    torch.manual_seed(rows)
    states = torch.randn(rows, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(VOCABULARY, (rows,))
    expected = torch.nn.functional.cross_entropy(states @ weight.T, targets, reduction="sum") / 11
    expected_gradients = torch.autograd.grad(3 * expected, (states, weight))
    loss = next_token_loss(states, weight, aligned(weight.detach()), targets, 11)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for got, wanted in zip(
        torch.autograd.grad(3 * loss, (states, weight)), expected_gradients, strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_a_frozen_head_gets_no_gradient():
    states = torch.randn(5, 16, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16)
    next_token_loss(states, weight, aligned(weight), torch.arange(5), 5).backward()
    assert states.grad.abs().sum() > 0 and weight.grad is None


@pytest.mark.parametrize("time", [1, 7, 40], ids=lambda n: f"{n} tokens")
def test_attention_by_tiles_is_exact(monkeypatch, time):
    monkeypatch.setattr(cpu_kernels, "QUERIES_AT_ONCE", 16)
    monkeypatch.setattr(cpu_kernels, "WEIGHTS_AT_ONCE", 2 * 16 * 40)  # two heads of five at once
    torch.manual_seed(time)
    parts = [torch.randn(5, time, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    toward = torch.randn(5, time, 8, dtype=torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    out = CausalAttention.apply(*parts, 8**-0.5, 0.0)
    torch.testing.assert_close(out, expected)
    for got, wanted in zip(
        torch.autograd.grad(out, parts, toward),
        torch.autograd.grad(expected, parts, toward),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_attention_drops_the_same_weights_going_back_as_going_forward(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "QUERIES_AT_ONCE", 4)
    parts = [torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attend(*parts: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return CausalAttention.apply(*parts, 0.5, 0.3)

    assert not torch.equal(attend(*parts), CausalAttention.apply(*parts, 0.5, 0.0))
    assert torch.autograd.gradcheck(attend, parts)


def test_dropout_keeps_the_mean_and_the_share_it_says():
    values = torch.ones(400_000, requires_grad=True)
    torch.manual_seed(1)
    dropped = Dropout(0.1)(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)
    assert dropped.mean().item() == pytest.approx(1, abs=3e-3)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.1)(values), dropped)
    assert not torch.equal(Dropout(0.1)(values), dropped)
    assert torch.equal(Dropout(0.1).eval()(values), values)


def test_neighbouring_mask_bits_are_independent():
    mask = Masks(3, 0.5).next(torch.empty(400_000)) > 0
    for lag in (1, 2, 3, 4):
        agree = (mask[lag:] == mask[:-lag]).float().mean().item()
        assert agree == pytest.approx(0.5, abs=4e-3)


@pytest.mark.parametrize("masked", [0, 20], ids=["whole blocks", "prompts masked"])
def test_the_twin_has_the_librarys_loss_and_gradients(model, masked):
    batch = batch_of(3, masked)
    expected = model(**batch).loss
    expected.backward()
    wanted = gradients_of(model)
    count = int((batch["labels"][:, 1:] != -100).sum())
    loss = TrainingTwin(model, "fp32").loss(**batch, count=count)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, gradient in gradients_of(model).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_twin_in_bf16_is_near_and_leaves_the_model_in_float32(model):
    batch = batch_of(3)
    expected = model(**batch).loss
    expected.backward()
    wanted = gradients_of(model)
    twin = TrainingTwin(model, "bf16")
    loss = twin.loss(**batch, count=3 * 47)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-2)
    for name, gradient in gradients_of(model).items():
        assert gradient.dtype == torch.float32
        error = (gradient - wanted[name]).norm() / wanted[name].norm()
        assert error < 0.05, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_micro_batches_add_up_to_the_batch(model, precision):
    batch, count = batch_of(4), 4 * 47
    twin = TrainingTwin(model, precision)
    twin.loss(**batch, count=count).backward()
    wanted = gradients_of(model)
    for row in range(4):
        part = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        twin.loss(**part, count=count).backward()
    for name, gradient in gradients_of(model).items():
        error = (gradient - wanted[name]).norm() / wanted[name].norm()
        assert error < (1e-5 if precision == "fp32" else 5e-2), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_refreshed_twin_follows_the_model(model, precision):
    batch = batch_of(2)
    twin = TrainingTwin(model, precision)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.5)
    twin.refresh()
    fresh = TrainingTwin(model, precision)
    assert twin.loss(**batch, count=1).item() == fresh.loss(**batch, count=1).item()


def test_the_model_itself_is_left_as_it_was(model):
    before = [type(module) for module in model.modules()]
    TrainingTwin(model, "fp32")
    assert [type(module) for module in model.modules()] == before
    assert model.config._attn_implementation != "cpu_kernels"
