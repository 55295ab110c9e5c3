"""Fake quantisation: the grid, the straight-through gradient, and its place on modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import MoMos
from momos_rs.quantize.fake_quantize import (
    FakeQuantizer,
    attach_quantizers,
    enable_quantizers,
    fake_quantize,
    remove_quantizers,
)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_values_are_the_formulas(bits: int) -> None:
    torch.manual_seed(bits)
    weights = torch.randn(7, 13)
    levels = 2 ** (bits - 1) - 1
    scale = weights.abs().max() / levels
    expected = scale * torch.clamp(torch.round(weights / scale), -levels, levels)
    got = fake_quantize(weights, bits)
    assert torch.equal(got, expected)
    assert len(torch.unique(got)) <= 2 * levels + 1
    assert float((got - weights).abs().max()) <= float(scale) / 2 * (1 + 1e-5)


def test_rounding_has_gradient_one_and_the_scale_is_a_constant() -> None:
    weights = torch.tensor([[-1.0, 0.26], [0.4, 0.9]], requires_grad=True)
    factors = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.autograd.backward((fake_quantize(weights, 3) * factors).sum())
    assert weights.grad is not None
    assert torch.allclose(weights.grad, factors)


def test_zero_and_empty_tensors_and_32_bits_pass_through() -> None:
    assert torch.equal(fake_quantize(torch.zeros(3, 4), 4), torch.zeros(3, 4))
    assert fake_quantize(torch.empty(0, 4), 4).shape == (0, 4)
    weights = torch.randn(5)
    assert fake_quantize(weights, 32) is weights


@pytest.mark.parametrize("bits", [-1, 0, 1, 33])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(InvalidArgumentError, match="from 2 to 32"):
        fake_quantize(torch.ones(2), bits)
    with pytest.raises(InvalidArgumentError, match="from 2 to 32"):
        attach_quantizers(nn.Linear(2, 2), bits)


def small_model() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4), nn.Linear(4, 3))


def test_attaching_covers_trainable_weights_but_no_bias() -> None:
    model = small_model()
    model[3].requires_grad_(False)
    bias = model[0].bias.detach().clone()
    attached = attach_quantizers(model, 3, exclude=["1"])
    assert (attached.attached, attached.updated) == (2, 0)
    for position in (0, 2):
        original = model[position].parametrizations.weight.original
        assert torch.equal(model[position].weight, fake_quantize(original, 3))
    assert torch.equal(model[0].bias, bias)
    assert not hasattr(model[3], "parametrizations")
    assert not hasattr(model[1], "parametrizations")


def test_exclusion_tokens_match_in_any_case() -> None:
    model: Any = nn.ModuleDict({"Head": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    assert attach_quantizers(model, 4, exclude=["head"]).attached == 1
    assert not hasattr(model["Head"], "parametrizations")


def test_globs_of_weight_names_exclude_too() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    assert attach_quantizers(model, 4, exclude=["1.*"]).attached == 1
    assert not hasattr(model[1][0], "parametrizations")


def test_norms_are_quantised_only_if_asked_for() -> None:
    class RootMeanSquareNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

    norms = [nn.BatchNorm2d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), RootMeanSquareNorm()]
    model = nn.Sequential(nn.Linear(4, 4), *norms)
    assert attach_quantizers(model, 4).attached == 1
    assert attach_quantizers(model, 4, norms=True).attached == 4


def test_attaching_again_sets_the_bits() -> None:
    model = small_model()
    attach_quantizers(model, 8)
    again = attach_quantizers(model, 2)
    assert (again.attached, again.updated) == (0, 3)
    assert len(model[0].weight.unique()) <= 3


def test_nothing_to_quantise_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="no module has a trainable weight"):
        attach_quantizers(nn.ReLU(), 8)


def test_switching_off_and_on() -> None:
    model = small_model()
    before = model[0].weight.detach().clone()
    attach_quantizers(model, 2)
    quantized = model[0].weight.detach().clone()
    assert enable_quantizers(model, False) == 3
    assert torch.equal(model[0].weight, before)
    assert enable_quantizers(model) == 3
    assert torch.equal(model[0].weight, quantized)
    attach_quantizers(model, 2, enabled=False)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("keep", [False, True])
def test_removing_gives_plain_parameters_and_leaves_copies_alone(keep: bool) -> None:
    model = small_model()
    attach_quantizers(model, 2)
    quantized = model[0].weight.detach().clone()
    original = model[0].parametrizations.weight.original.detach().clone()
    duplicate = copy.deepcopy(model)
    assert remove_quantizers(model, keep_quantized=keep) == 3
    assert torch.equal(model[0].weight, quantized if keep else original)
    assert list(model.state_dict()) == list(small_model().state_dict()) or set(
        model.state_dict()
    ) == set(small_model().state_dict())
    assert torch.equal(duplicate[0].weight, quantized)
    assert remove_quantizers(model) == 0


def test_removing_refuses_a_weight_with_other_parametrizations() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3))
    attach_quantizers(model, 4)
    nn.utils.parametrizations.orthogonal(model[0])
    with pytest.raises(InvalidArgumentError, match="weight of '0'"):
        remove_quantizers(model)


def test_training_with_few_bits_learns() -> None:
    torch.manual_seed(1)
    model: Any = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    attach_quantizers(model, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs = torch.randn(256, 4)
    target = inputs[:, :1] * 2 - inputs[:, 1:2]
    losses = []
    for _ in range(150):
        loss = (model(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert len(model[0].weight.unique()) <= 7


def test_quantised_weights_compile_into_one_graph() -> None:
    model: Any = nn.Linear(4, 4)
    attach_quantizers(model, 4)
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    inputs = torch.randn(2, 4)
    assert torch.equal(compiled(inputs), model(inputs))


def test_momos_prepares_a_model_for_its_bits() -> None:
    model = small_model()
    assert MoMos(4, k=2).prepare(model) == 0
    assert MoMos(4, k=2, q=5).prepare(model, exclude=["3"]) == 2
    quantizers = [each for each in model.modules() if isinstance(each, FakeQuantizer)]
    assert [each.bits for each in quantizers] == [5, 5]
    assert "bits=5" in repr(model)
