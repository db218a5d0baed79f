"""Products handed over in the layouts that matrix units are fast with: the same sums."""

import pytest
import torch

from toolkit.model import cpu_products, kernels
from toolkit.model.cpu_products import Project, multiply, turned, weight_gradient
from toolkit.model.forward import Projection
from toolkit.model.kernels import choose_kernels

SHAPES = [(512, 512), (768, 768), (768, 2304), (3072, 768), (64, 768), (768, 64)]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).bfloat16()


@pytest.mark.parametrize("inner, width", SHAPES)
@pytest.mark.parametrize("rows", [1, 300, 700])
def test_a_product_is_that_of_float64_rounded(rows, inner, width):
    x, weight, bias = draw(rows, inner), draw(inner, width), draw(width)
    for found, exact in (
        (multiply(x, weight), x.double() @ weight.double()),
        (multiply(x, weight, bias), x.double() @ weight.double() + bias.double()),
        (multiply(x @ weight, weight.T), (x @ weight).double() @ weight.double().T),
        (weight_gradient(x, x @ weight), x.double().T @ (x @ weight).double()),
    ):
        torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=exact.abs().max() / 500)


@pytest.mark.parametrize("shape", [(1, 1), (70, 768), (100, 3072)])
def test_a_turned_matrix_is_the_transposed_one(shape):
    x = draw(*shape)
    assert torch.equal(turned(x), x.T) and turned(x).is_contiguous()


@pytest.mark.parametrize("trained", ["all", "weight", "nothing"])
def test_gradients_are_those_of_the_plain_product(monkeypatch, trained):
    """And only those asked for are computed: of a frozen weight none."""
    monkeypatch.setattr(kernels, "has_matrix_units", lambda: True)
    layer = Projection(96, 64)
    layer.weight.requires_grad_(trained != "nothing")
    layer.bias.requires_grad_(trained == "all")
    x, gradient = draw(2, 5, 64), draw(2, 5, 96)
    found = []
    for device in ("cpu", "elsewhere"):
        layer.zero_grad()
        asked = x.clone().requires_grad_()
        out = layer(asked, choose_kernels(device, "bf16", "training"))
        assert ("Project" in type(out.grad_fn.next_functions[0][0]).__name__) == (device == "cpu")
        out.backward(gradient)
        found.append([out, asked.grad, layer.weight.grad, layer.bias.grad])
    for ours, plain in zip(*found, strict=True):
        assert (ours is None) == (plain is None)
        if ours is not None:
            assert ours.dtype == plain.dtype
            torch.testing.assert_close(ours, plain, rtol=2**-7, atol=2**-5)


def test_only_matrix_units_get_other_layouts(monkeypatch):
    called = []
    monkeypatch.setattr(Project, "apply", lambda *given: called.append(given))
    monkeypatch.setattr(kernels, "has_matrix_units", lambda: False)
    layer, chosen = Projection(8, 4), choose_kernels("cpu", "bf16", "training")
    assert layer(draw(3, 4), chosen).shape == (3, 8) and not called
    monkeypatch.setattr(kernels, "has_matrix_units", lambda: True)
    with torch.no_grad():
        assert layer(draw(3, 4), chosen).shape == (3, 8) and not called


def test_matrix_units_are_asked_of_the_processor():
    assert cpu_products.has_matrix_units() == bool(torch.cpu.get_capabilities().get("amx_bf16"))
