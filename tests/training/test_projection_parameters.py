"""A projection meets parameters of every kind and leaves everything around them in place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import MoMos
from momos_rs.projection.targets import find_targets, plain_name
from momos_rs.quantize.fake_quantize import attach_quantizers

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def distinct_blocks(values: Tensor, s: int) -> int:
    whole = values.detach().flatten()[: values.numel() // s * s].view(-1, s)
    return len(torch.unique(whole, dim=0))


def test_optimizers_go_on_with_their_state() -> None:
    torch.manual_seed(0)
    model: Any = nn.Linear(16, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 16)).square().sum().backward()
        optimizer.step()

    step()
    identities = [id(each) for each in model.parameters()]
    moments = copy.deepcopy(optimizer.state_dict()["state"])
    MoMos(4, k=3)(model)
    assert [id(each) for each in model.parameters()] == identities
    for position, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, moments[position][name])
    mosaic = [each.detach().clone() for each in model.parameters()]
    step()
    assert all(not torch.equal(a, b) for a, b in zip(mosaic, model.parameters(), strict=True)), (
        "the optimizer trains the projected parameters"
    )


def test_gradients_taken_before_are_kept() -> None:
    model: Any = nn.Linear(8, 8)
    model(torch.ones(1, 8)).sum().backward()
    gradient = model.weight.grad
    assert gradient is not None
    kept = gradient.clone()
    MoMos(4, k=2)(model)
    assert torch.equal(gradient, kept)
    assert model.weight.grad is gradient


def test_tied_parameters_are_projected_once_and_stay_tied() -> None:
    model: Any = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10, bias=False))
    model[1].weight = model[0].weight
    stats = MoMos(4, k=3)(model)
    assert (stats.m, stats.n) == (15, 60)
    assert model[1].weight is model[0].weight


def test_parameters_tied_by_memory_are_projected_once() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 10, bias=False), nn.Linear(6, 10, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data)
    stats = MoMos(4, k=3)(model)
    assert stats.m == 15
    assert torch.equal(model[0].weight, model[1].weight)
    assert model[0].weight.data_ptr() == model[1].weight.data_ptr()


def test_frozen_parameters_are_neither_read_nor_written() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].requires_grad_(False)
    model[0].weight.data.fill_(torch.nan)
    stats = MoMos(4, k=2)(model)
    assert stats.n == 72
    assert bool(model[0].weight.isnan().all())


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_layout_does_not_matter(channels_last: bool) -> None:
    torch.manual_seed(1)
    plain = nn.Conv2d(5, 6, 3)
    other = copy.deepcopy(plain)
    if channels_last:
        other = other.to(memory_format=torch.channels_last)
    else:
        other.weight = nn.Parameter(
            torch.empty(3, 3, 6, 5).permute(2, 3, 1, 0).copy_(plain.weight.data)
        )
    strides = other.weight.stride()
    assert strides != plain.weight.stride()
    expected, got = MoMos(4, k=9)(plain), MoMos(4, k=9)(other)
    assert got.distortion == expected.distortion
    assert torch.equal(got.motif_counts, expected.motif_counts)
    assert torch.equal(other.weight, plain.weight)
    assert other.weight.stride() == strides


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    model: Any = nn.Linear(12, 9).to(dtype)
    before = copy.deepcopy(model)
    stats = MoMos(4, k=5)(model)
    assert model.weight.dtype == dtype
    assert distinct_blocks(model.weight, 4) <= 5
    error = sum(
        float((a.detach().double() - b.detach().double()).square().sum())
        for a, b in zip(before.parameters(), model.parameters(), strict=True)
    )
    assert stats.distortion == pytest.approx(error, rel=1e-13)


def test_mixed_dtypes_share_motifs_and_round_each_to_its_own() -> None:
    torch.manual_seed(3)
    model: Any = nn.Sequential(
        nn.Linear(8, 8).to(torch.bfloat16), nn.Linear(8, 8), nn.Linear(8, 8).double()
    )
    before = copy.deepcopy(model)
    stats = MoMos(4, k=6)(model)
    assert stats.mosaic is not None
    for span, parameter in zip(stats.mosaic.spans, model.parameters(), strict=True):
        assert torch.equal(parameter, stats.mosaic.values_of(span).to(parameter.dtype))
    error = sum(
        float((a.detach().double() - b.detach().double()).square().sum())
        for a, b in zip(before.parameters(), model.parameters(), strict=True)
    )
    assert stats.distortion == pytest.approx(error, rel=1e-13)


def test_empty_and_scalar_parameters() -> None:
    model: Any = nn.Module()
    model.empty = nn.Parameter(torch.empty(0, 4))
    model.scale = nn.Parameter(torch.tensor(2.5))
    model.weight = nn.Parameter(torch.randn(10))
    stats = MoMos(4, k=2)(model)
    assert (stats.m, stats.n) == (4, 11)
    assert model.empty.shape == (0, 4)
    assert model.scale.shape == ()


def test_huge_and_subnormal_weights() -> None:
    for magnitude in (1e-42, 1e-30, 1e30):
        torch.manual_seed(4)
        model = nn.Linear(16, 16, bias=False)
        with torch.no_grad():
            model.weight.mul_(magnitude)
        blocks = model.weight.detach().double().view(-1, 4)
        stats = MoMos(4, k=7)(model)
        assert stats.mosaic is not None
        motifs = stats.mosaic.motifs.double()
        distances = (blocks[:, None] - motifs[None]).square().sum(dim=2)
        taken = distances.gather(1, stats.mosaic.indices[:, None])[:, 0]
        assert torch.equal(taken, distances.amin(dim=1))


def test_the_original_of_a_parametrization_is_projected() -> None:
    model: Any = nn.Sequential(nn.Linear(16, 12), nn.Linear(12, 4))
    attach_quantizers(model, 4)
    stats = MoMos(4, k=5)(model)
    assert stats.n == 16 * 12 + 12 + 12 * 4 + 4
    original = model[0].parametrizations.weight.original
    assert distinct_blocks(original, 4) <= 5
    assert not torch.equal(model[0].weight, original), "what is computed with is quantised"


def test_parametrizations_with_several_originals() -> None:
    model: Any = parametrizations.weight_norm(nn.Linear(16, 12))
    targets, _ = find_targets(model)
    assert [each.name for each in targets] == [
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1",
    ]  # fmt: skip
    MoMos(4, k=5)(model)
    assert distinct_blocks(model.parametrizations.weight.original1, 4) <= 5


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("fc.weight", "fc.weight"),
        ("module.fc.weight", "fc.weight"),
        ("_orig_mod.fc.weight", "fc.weight"),
        ("module._orig_mod.a.b._checkpoint_wrapped_module.weight", "a.b.weight"),
        ("fc.parametrizations.weight.original", "fc.weight"),
        ("fc.parametrizations.weight.parametrizations.original.original", "fc.weight"),
        ("parametrizations.weight.original", "weight"),
        ("fc.parametrizations.weight.original0", "fc.parametrizations.weight.original0"),
        ("module", "module"),
    ],
)
def test_plain_names(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_include_and_exclude_narrow_the_choice_by_plain_name() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
    attach_quantizers(model[0], 8)

    def names(**patterns: object) -> list[str]:
        return [each.name for each in find_targets(model, **patterns)[0]]  # type: ignore[arg-type]

    assert names() == [
        "0.bias", "0.weight", "1.weight", "1.bias", "2.weight", "2.bias",
    ]  # fmt: skip
    assert names(include="0.*") == ["0.bias", "0.weight"]
    assert names(exclude=["*.bias", "1.*"]) == ["0.weight", "2.weight"]
    assert names(include=["*.weight"], exclude=["1.*"]) == ["0.weight", "2.weight"]


def test_a_tied_parameter_matches_by_any_of_its_names() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    assert [each.name for each in find_targets(model, include="1.*")[0]] == ["0.weight"]


def test_a_compiled_model_is_projected_and_sees_it() -> None:
    torch.manual_seed(5)
    model: Any = nn.Linear(8, 8)
    compiled: Any = torch.compile(model, backend="eager")
    compiled(torch.ones(1, 8))
    stats = MoMos(4, k=2)(compiled)
    assert [span.name for span in stats.mosaic.spans] == ["weight", "bias"]
    assert torch.equal(compiled(torch.ones(1, 8)), model(torch.ones(1, 8)))


def test_nothing_but_parameters_changes() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    model(torch.randn(16, 8))
    buffers = {name: each.clone() for name, each in model.named_buffers()}
    training, keys = model.training, list(model.state_dict())
    MoMos(4, k=2)(model)
    assert model.training == training
    assert list(model.state_dict()) == keys
    assert all(torch.equal(each, buffers[name]) for name, each in model.named_buffers())
    assert not parametrize.is_parametrized(model[0])


@needs_cuda
def test_devices_may_be_mixed_and_do_not_matter() -> None:
    torch.manual_seed(6)
    model: Any = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    mixed, whole = copy.deepcopy(model), copy.deepcopy(model).cuda()
    mixed[1].cuda()
    expected = MoMos(4, capacity=0.1)(model)
    for other in (mixed, whole):
        stats = MoMos(4, capacity=0.1)(other)
        assert stats.distortion == expected.distortion
        assert torch.equal(stats.motif_counts, expected.motif_counts)
        for a, b in zip(other.parameters(), model.parameters(), strict=True):
            assert torch.equal(a.cpu(), b)


class Shared(nn.Module):
    """Two parameters over one storage."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first = nn.Parameter(first)
        self.second = nn.Parameter(second)


def whole_blocks(values: Tensor, s: int) -> Tensor:
    return values.detach().reshape(-1, s)


def test_a_transpose_over_the_same_memory_is_projected_as_one() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 8)
    single = nn.Linear(8, 16, bias=False)
    single.weight.data.copy_(weight)
    expected = MoMos(4, k=5)(single)
    model = Shared(weight, weight.T)
    stats = MoMos(4, k=5)(model)
    assert (stats.n, stats.m, stats.distortion) == (128, 32, expected.distortion)
    assert torch.equal(model.first, single.weight)
    assert torch.equal(model.second, single.weight.T)
    assert model.first.data_ptr() == model.second.data_ptr()


def test_slices_of_one_storage_are_projected_each() -> None:
    base = torch.randn(16, 8)
    for first, second in ((base[:8], base[8:]), (base[:, :4], base[:, 4:])):
        model = Shared(first, second)
        stats = MoMos(4, k=5)(model)
        assert (stats.n, stats.m) == (128, 32)
        assert len(torch.unique(whole_blocks(torch.cat([model.first, model.second]), 4), dim=0)) < 6


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (lambda base: (base, base[2:5]), "'first' and 'second' share a part of their memory"),
        (lambda base: (base[:, :5], base[:, 3:]), "'first' and 'second' share a part"),
        (lambda base: (base[:1].expand(4, 8), base[2:]), "'first' is expanded"),
        (lambda base: (base[2:].clone(), base[:1].expand(4, 8)), "'second' is expanded"),
    ],
)
def test_memory_shared_in_part_is_refused_by_name(view: Any, message: str) -> None:
    base = torch.randn(16, 8)
    before = base.clone()
    model = Shared(*view(base))
    with pytest.raises(InvalidArgumentError, match=message):
        MoMos(4, k=5)(model)
    assert torch.equal(base, before)
    if "expanded" not in message:
        with pytest.raises(InvalidArgumentError, match="share a part"):
            MoMos(4, k=5, exclude="second")(model)


def test_motif_fine_tuning_refuses_a_transpose() -> None:
    from momos_rs.nn import mosaic_parametrize

    weight = torch.randn(16, 8)
    model = Shared(weight, weight.T)
    stats = MoMos(4, k=5)(model)
    assert stats.mosaic is not None
    with pytest.raises(InvalidArgumentError, match="'first' and 'second' share memory"):
        mosaic_parametrize(model, stats.mosaic)
    assert isinstance(model.first, nn.Parameter)
