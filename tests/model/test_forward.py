"""One forward pass: it computes what transformers' GPT-2 and plain PyTorch compute."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import GPT2Config
from transformers.activations import ACT2FN

from tests.conftest import PROJECT, library_model, without_dropout
from toolkit.model import cpu_kernels
from toolkit.model.cpu_kernels import CausalAttention, Masks, drop
from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.fused_loss import ROWS_ON_CPU, next_token_loss, token_losses
from toolkit.model.gpt2 import fresh_model, take_over
from toolkit.model.kernels import PLAIN, CPUKernels, choose_kernels
from toolkit.model.precision import autocast
from toolkit.model.trainable import add_adapters, train_last_blocks

VOCABULARY = 131  # no multiple of 64
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 48, "vocab_size": VOCABULARY}


def config_of(**changes) -> GPT2Config:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2Config(**{**SHAPE, **NO_DROPOUT, **ends, **changes})


@pytest.fixture
def model():
    torch.manual_seed(5)
    return fresh_model(config_of())


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
    padded = CPUKernels(head=torch.float64).padded(weight)
    assert len(padded) == 192
    loss = next_token_loss(states, weight, padded, targets, 11)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for got, wanted in zip(
        torch.autograd.grad(3 * loss, (states, weight)), expected_gradients, strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_a_frozen_head_gets_no_gradient():
    states = torch.randn(5, 16, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16)
    next_token_loss(states, weight, PLAIN.padded(weight), torch.arange(5), 5).backward()
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
    dropped = drop(values, 0.1)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)
    assert dropped.mean().item() == pytest.approx(1, abs=3e-3)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
    torch.manual_seed(1)
    assert torch.equal(drop(values, 0.1), dropped)
    assert not torch.equal(drop(values, 0.1), dropped)
    assert drop is cpu_kernels.drop and CPUKernels().drop(values, 0.0) is values


def test_neighbouring_mask_bits_are_independent():
    mask = Masks(3, 0.5).next(torch.empty(400_000)) > 0
    for lag in (1, 2, 3, 4):
        agree = (mask[lag:] == mask[:-lag]).float().mean().item()
        assert agree == pytest.approx(0.5, abs=4e-3)


WITH_WEIGHTS = {"prelu", "xielu"}  # refused: see tests/run/test_refusals.py
VARIANTS = [{"activation_function": name} for name in sorted({*ACT2FN} - WITH_WEIGHTS)]
VARIANTS += [
    {"activation_function": "relu", "n_inner": 48},
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True},
    {"reorder_and_upcast_attn": True},
    {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    {"layer_norm_epsilon": 1e-2},
    {"tie_word_embeddings": False},
    {"tie_word_embeddings": False, "scale_attn_weights": False, "n_inner": 8},
    {"vocab_size": 192},
    {"n_head": 1},
    {"n_head": 8, "n_layer": 5},
    {"n_layer": 1, "n_embd": 24, "n_head": 3},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "cpu"])
def test_logits_loss_and_gradients_are_the_librarys(changes, kind):
    torch.manual_seed(4)
    config = config_of(**changes)
    # Without this the library ignores `reorder_and_upcast_attn`.
    library = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager")
    library.loss_type = "ForCausalLM"
    for weight in library.parameters():  # so that attention and logits are far from even
        weight.data *= 3
    model = take_over(library)
    used = PLAIN if kind == "plain" else choose_kernels("cpu", "fp32", "training")
    ids, labels = batch_of(3, masked=5).values()
    expected = library.eval()(ids, labels=labels)
    torch.testing.assert_close(model(ids, kernels=used), expected.logits, atol=1e-5, rtol=1e-5)
    loss = model(ids, labels=labels, kernels=used)
    assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    expected.loss.backward()
    loss.backward()
    assert model.state_dict().keys() == library.state_dict().keys()
    wanted = {name: weight.grad for name, weight in library.named_parameters()}
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, wanted[name], atol=1e-5, rtol=1e-5, msg=name)


def test_the_weights_drawn_are_the_librarys():
    torch.manual_seed(8)
    library = transformers.GPT2LMHeadModel(config_of())
    torch.manual_seed(8)
    for ours, theirs in zip(fresh_model(config_of()).parameters(), library.parameters()):  # noqa: B905
        assert torch.equal(ours, theirs)


def test_gradients_flow_through_logits_too(model):
    library, ids = library_model(model), batch_of(2)["input_ids"]
    for used in (PLAIN, choose_kernels("cpu", "fp32", "scoring")):
        model.zero_grad()
        library.zero_grad()
        model(ids, kernels=used).pow(2).sum().backward()
        library(ids).logits.pow(2).sum().backward()
        for ours, theirs in zip(model.parameters(), library.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("masked", [0, 20], ids=["whole blocks", "prompts masked"])
@pytest.mark.parametrize("precision, most", [("bf16", 0.05), ("fp16", 0.01)])
def test_lower_precisions_are_near_and_leave_the_model_in_float32(model, masked, precision, most):
    batch = batch_of(3, masked)
    library = library_model(model)
    expected = library(**batch).loss
    expected.backward()
    used = choose_kernels("cpu", precision, "training")
    loss = model(**batch, kernels=used)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-2)
    wanted = gradients_of(library)
    for name, gradient in gradients_of(model).items():
        assert gradient.dtype == torch.float32
        error = (gradient - wanted[name]).norm() / wanted[name].norm()
        assert error < most, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_micro_batches_add_up_to_the_batch(model, precision):
    batch, count = batch_of(4), 4 * 47
    used = choose_kernels("cpu", precision, "training")
    model(**batch, kernels=used).backward()
    wanted = gradients_of(model)
    for row in range(4):
        part = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        model(**part, count=count, kernels=used).backward()
    for name, gradient in gradients_of(model).items():
        error = (gradient - wanted[name]).norm() / wanted[name].norm()
        assert error < (1e-5 if precision == "fp32" else 5e-2), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_refreshed_copies_follow_the_weights(model, precision):
    batch = batch_of(2)
    used = choose_kernels("cpu", precision, "training")
    before = model(**batch, kernels=used).item()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.5)
    used.refresh()
    fresh = choose_kernels("cpu", precision, "training")
    assert model(**batch, kernels=used).item() == model(**batch, kernels=fresh).item() != before


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["full", "adapters", "last block"])
def test_checkpointed_blocks_have_the_same_gradients_dropout_included(precision, kind):
    torch.manual_seed(5)
    model = fresh_model(config_of(**dict.fromkeys(NO_DROPOUT, 0.2), n_layer=3))
    if kind == "adapters":
        model = add_adapters(model, 4, seed=1)
    elif kind == "last block":
        model = train_last_blocks(model, 1)
    model.train()
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable()
        used = choose_kernels("cpu", precision, "training")
        torch.manual_seed(1)
        with autocast("cpu", precision):
            loss = model(**batch_of(2), kernels=used)
        loss.backward()
        grads = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
        found.append([loss.detach(), *grads])
        model.zero_grad()
    assert len(found[0]) > 5
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


def test_adapters_are_added_to_the_same_products(model):
    """Against the library's model with the same adapters."""
    library = library_model(model)
    ours, theirs = add_adapters(model, 4, seed=1), add_adapters(library, 4, seed=1)
    for (name, weight), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if "lora" in name:
            weight.data.normal_(std=0.1)
        other.data.copy_(weight)
    batch = batch_of(2)
    expected = theirs.eval()(**batch).loss
    loss = ours(**batch, kernels=choose_kernels("cpu", "fp32", "training"))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    expected.backward()
    for weight, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_the_compiled_forward_pass_is_one_graph_and_the_same(model):
    ids = batch_of(2)["input_ids"]
    expected = model.transformer(ids, PLAIN)
    compiled = torch.compile(model.transformer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids, PLAIN), expected)


def test_a_cards_kernels_mix_no_devices():
    """Without a card: meta tensors refuse tensors of another device just so."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(config_of())
        ids = torch.zeros(2, 48, dtype=torch.int64)
    states = model.transformer(ids, choose_kernels("cuda", "bf16", "training"))
    assert states.device.type == "meta" and states.dtype == torch.bfloat16
    states.sum().backward()
    assert model.transformer.wte.weight.grad.dtype == torch.float32


def test_what_only_the_librarys_forward_takes_is_refused(model):
    with pytest.raises(TypeError, match="attention_mask: not here"):
        model(batch_of(1)["input_ids"], attention_mask=torch.ones(1, 48))


# Losses that 16 bits cannot hold


def source_text() -> torch.Tensor:
    """Tokens of Python code, which the bundled model has never seen: many are beyond 17 nats."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(PROJECT / "data/gpt2-mini")
    text = "".join(path.read_text() for path in sorted(Path(PROJECT, "toolkit").rglob("*.py"))[:12])
    ids = tokenizer(text)["input_ids"]
    return torch.tensor(ids[: 4 * 4 * 64]).view(4, 4, 64)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_training_steps_on_unlikely_text_have_finite_true_losses(precision):
    from toolkit.model.gpt2 import open_model

    model = without_dropout(open_model(PROJECT / "data/gpt2-mini")).train()
    used = choose_kernels("cpu", precision, "training")
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4)
    losses = []
    for ids in source_text():
        exact = model(ids, labels=ids)  # float32
        loss = model(ids, labels=ids, kernels=used)
        assert loss.item() == pytest.approx(exact.item(), abs=0.03)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        used.refresh()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_token_far_beyond_float32s_smallest_share_has_its_loss(dtype):
    weight = torch.zeros(64, 2, dtype=dtype)
    weight[0, 0], weight[1, 0] = 60.0, -60.0
    states = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=dtype, requires_grad=True)
    targets = torch.tensor([1, 1])
    expected = torch.nn.functional.cross_entropy((states.float() @ weight.T.float()), targets)
    loss = next_token_loss(states, weight, weight, targets, 2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6) and loss > 80
    loss.backward()
    assert states.grad.isfinite().all()
    scored, right = token_losses(states.detach(), weight, 64, targets)
    assert scored.mean().item() == pytest.approx(expected.item(), rel=1e-6) and not right.any()
