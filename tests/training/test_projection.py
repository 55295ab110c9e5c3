"""Parity of the projection with the paper's formulas, computed by brute force in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import MoMos


def odd_model(seed: int = 0) -> Any:
    """Several layers of odd sizes, biases, a frozen layer and a norm."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 11), nn.Linear(11, 3, bias=False),
        nn.Linear(3, 1),
    )  # fmt: skip
    for parameter in model[3].parameters():
        parameter.requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.normal_()
    return model


def blocks_of(parameters: Sequence[Tensor], s: int) -> tuple[Tensor, Tensor]:
    """All blocks in float64, and which of their entries are real."""
    blocks, real = [], []
    for each in parameters:
        flat = each.detach().double().flatten()
        padding = -len(flat) % s
        blocks.append(nn.functional.pad(flat, (0, padding)).view(-1, s))
        mask = torch.ones(len(flat), dtype=torch.bool)
        real.append(nn.functional.pad(mask, (0, padding)).view(-1, s))
    return torch.cat(blocks), torch.cat(real)


def brute_force(blocks: Tensor, motifs: Tensor) -> Tensor:
    distances = (blocks[:, None, :] - motifs[None, :, :]).square().sum(dim=2)
    best = distances.min(dim=1, keepdim=True).values
    return (distances == best).int().argmax(dim=1)  # the first of several equal ones


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [each for each in model.parameters() if each.requires_grad]


def check_against_formulas(
    model: Any,
    momos: MoMos,
    expected_motifs: Callable[[Tensor], Tensor],
) -> None:
    before = copy.deepcopy(model)
    stats = momos(model)

    blocks, real = blocks_of(trainable(before), momos.s)
    motifs = expected_motifs(blocks)
    nearest = brute_force(blocks, motifs)
    replaced = motifs[nearest]

    assert (stats.k, stats.m) == (len(motifs), len(blocks))
    assert stats.n == int(real.sum())
    assert torch.equal(stats.motif_counts, torch.bincount(nearest, minlength=len(motifs)))
    error = ((blocks - replaced).square() * real).sum().item()
    assert stats.distortion == pytest.approx(error, rel=1e-13)
    assert stats.num_changed_weights == int(((blocks != replaced) & real).sum())
    assert stats.mosaic is not None
    assert torch.equal(stats.mosaic.motifs.double(), motifs)
    assert torch.equal(stats.mosaic.indices, nearest)

    after, _ = blocks_of(trainable(model), momos.s)
    assert torch.equal(after, replaced * real)
    for new, old in zip(model.parameters(), before.parameters(), strict=True):
        assert new.requires_grad == old.requires_grad
        if not old.requires_grad:
            assert torch.equal(new, old)
    for (name, new), old in zip(model.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(new, old), name


@pytest.mark.parametrize("s", [1, 2, 3, 4, 7, 8, 16, 97])
@pytest.mark.parametrize("force_zero", [True, False])
def test_projection_equals_the_formulas(s: int, force_zero: bool) -> None:
    model = odd_model(s)
    m = sum(-(-each.numel() // s) for each in trainable(model))
    k = max(2, m // 5)
    drawn = k - force_zero
    chosen = torch.randperm(m, generator=torch.Generator().manual_seed(s))[:drawn]

    def motifs(blocks: Tensor) -> Tensor:
        zero = torch.zeros(int(force_zero), s, dtype=torch.float64)
        return torch.cat([zero, blocks[chosen]])

    def select(given_m: int, given_k: int, generator: torch.Generator) -> Tensor:
        assert (given_m, given_k) == (m, drawn)
        assert isinstance(generator, torch.Generator)
        return chosen

    check_against_formulas(model, MoMos(s, k=k, force_zero=force_zero, select=select), motifs)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    s=st.integers(1, 9),
    k=st.integers(1, 12),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_projection_equals_the_formulas_on_any_sizes(
    sizes: list[int], s: int, k: int, seed: int, levels: int
) -> None:
    torch.manual_seed(seed)
    # Few levels make many exact ties, where the lowest index must win.
    model = nn.ParameterList(
        [torch.randint(-levels, levels + 1, (size,)).float() / levels for size in sizes]
    )
    s = min(s, max(sizes))
    given = torch.randint(-levels, levels + 1, (k, s)).float() / levels
    check_against_formulas(model, MoMos(s, motifs=given), lambda blocks: given.double())


def test_default_motifs_are_distinct_blocks_of_the_model_with_zero_first() -> None:
    model = odd_model()
    blocks, _ = blocks_of(trainable(model), 4)
    stats = MoMos(4, capacity=0.3)(model)
    assert stats.k == math.floor(0.3 * stats.m)
    assert stats.mosaic is not None
    motifs = stats.mosaic.motifs.double()
    assert torch.equal(motifs[0], torch.zeros(4, dtype=torch.float64))
    drawn = brute_force(motifs[1:], blocks)
    assert torch.equal(blocks[drawn], motifs[1:])
    assert len(set(drawn.tolist())) == len(drawn), "drawn without replacement"


@pytest.mark.parametrize(
    ("k", "capacity", "expected"),
    [(10_000, None, 60), (1, None, 1), (None, 1.0, 60), (None, 1e-9, 1), (None, 0.05, 3)],
)
def test_k_is_clamped(k: int | None, capacity: float | None, expected: int) -> None:
    model = nn.Linear(12, 20, bias=False)
    stats = MoMos(4, k, capacity)(model)
    assert (stats.k, stats.m) == (expected, 60)


def test_one_motif_with_force_zero_is_zero() -> None:
    model = odd_model()
    stats = MoMos(4, k=1)(model)
    assert all(not each.any() for each in trainable(model))
    assert stats.motif_counts.tolist() == [stats.m]


def test_as_many_motifs_as_blocks_change_nothing() -> None:
    model = odd_model()
    before = copy.deepcopy(model.state_dict())
    stats = MoMos(4, capacity=1.0, force_zero=False)(model)
    assert (stats.distortion, stats.num_changed_weights) == (0.0, 0)
    assert all(torch.equal(model.state_dict()[name], each) for name, each in before.items())


def test_projecting_a_mosaic_onto_its_motifs_changes_nothing() -> None:
    model = odd_model()
    mosaic = MoMos(4, k=9)(model).mosaic
    assert mosaic is not None
    stats = MoMos(4, motifs=mosaic.motifs)(model)
    assert (stats.distortion, stats.num_changed_weights) == (0.0, 0)


def test_padding_is_counted_nowhere() -> None:
    model = nn.Linear(7, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    stats = MoMos(4, motifs=torch.tensor([[1.0, 1.0, 1.0, 0.5]]))(model)
    # One real weight of the full block changes; the padded one becomes 0.5 too, uncounted.
    assert (stats.distortion, stats.num_changed_weights, stats.n) == (0.25, 1, 7)


@pytest.mark.parametrize("method", ["random", "kmeans", "warm"])
def test_equal_seeds_give_equal_projections_at_any_thread_count(method: str) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model = odd_model()
        torch.manual_seed(threads)  # torch's own generator plays no part
        momos = MoMos(4, capacity=0.2, method=method, seed=5)  # type: ignore[arg-type]
        figures = []
        for _ in range(3):
            stats = momos(model)
            figures.append((stats.distortion, stats.motif_counts.tolist(), stats.seed))
            with torch.no_grad():
                for parameter in trainable(model):
                    parameter.mul_(1.01).add_(0.003)
        results.append((figures, [each.clone() for each in model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_every_projection_and_every_seed_draws_other_motifs() -> None:
    drawn = set()
    for seed in range(3):
        momos = MoMos(4, k=8, seed=seed)
        for _ in range(3):
            stats = momos(odd_model())
            assert stats.mosaic is not None
            drawn.add(tuple(stats.mosaic.motifs.flatten().tolist()))
    assert len(drawn) == 9


def test_a_generator_replaces_the_seed() -> None:
    def run() -> float:
        generator = torch.Generator().manual_seed(3)
        momos = MoMos(4, k=8, generator=generator)
        momos(odd_model())
        return momos(odd_model()).distortion

    assert run() == run()


@pytest.mark.parametrize("method", ["random", "spread", "kmeans", "warm"])
def test_state_dict_takes_up_the_sequence(method: str) -> None:
    def make() -> MoMos:
        generator = torch.Generator().manual_seed(1) if method == "random" else None
        return MoMos(4, capacity=0.2, method=method, generator=generator)  # type: ignore[arg-type]

    first = make()
    first(odd_model(1))
    second = make()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert first(odd_model(2)).distortion == second(odd_model(2)).distortion
    assert first.projections == second.projections == 2


def test_lloyd_never_makes_the_projection_worse() -> None:
    distortions = [
        MoMos(4, capacity=0.2, method="kmeans", iterations=iterations, init="random")(
            odd_model()
        ).distortion
        for iterations in (0, 1, 2, 4, 8)
    ]
    assert distortions == sorted(distortions, reverse=True)
    assert distortions[-1] < 0.9 * distortions[0]


def test_lloyd_moves_motifs_to_the_means_of_their_blocks() -> None:
    model = odd_model()
    blocks, _ = blocks_of(trainable(model), 4)
    start = MoMos(4, k=6, iterations=0)(copy.deepcopy(model)).mosaic
    moved = MoMos(4, k=6, method="kmeans", iterations=1, init="random")(model).mosaic
    assert start is not None
    assert moved is not None
    assert torch.equal(moved.motifs[0], torch.zeros(4)), "the zero motif stays"
    nearest = brute_force(blocks, start.motifs.double())
    for motif in range(1, 6):
        mean = blocks[nearest == motif].mean(dim=0).float()
        assert torch.allclose(moved.motifs[motif], mean, rtol=0, atol=2e-7)


def test_a_motif_without_blocks_stays_where_it_was() -> None:
    model = nn.Linear(8, 8, bias=False)
    nn.init.constant_(model.weight, 1.0)
    stats = MoMos(4, k=3, method="kmeans")(model)
    assert stats.motifs_used == 1
    assert stats.mosaic is not None
    assert torch.equal(stats.mosaic.motifs[1:], torch.ones(2, 4))


def test_warm_start_keeps_the_most_used_motifs_when_capacity_shrinks() -> None:
    model = odd_model()
    momos = MoMos(4, k=12, method="warm", iterations=0, init="random")
    first = momos(model)
    second = momos(model, k=5)
    assert first.mosaic is not None
    assert second.mosaic is not None
    most_used = first.motif_counts[1:].argsort(descending=True, stable=True)[:4] + 1
    expected = first.mosaic.motifs[[0, *sorted(most_used.tolist())]]
    assert torch.equal(second.mosaic.motifs, expected)
    third = momos(model, k=9)
    assert third.mosaic is not None
    assert torch.equal(third.mosaic.motifs[:5], expected)


def test_the_call_may_override_k_capacity_and_motifs() -> None:
    momos = MoMos(4, capacity=0.5)
    assert momos(odd_model(), k=3).k == 3
    assert momos(odd_model(), capacity=0.1).k == 6
    assert momos(odd_model(), motifs=torch.ones(2, 4)).k == 2


def test_stats_give_the_papers_bound() -> None:
    stats = MoMos(4, k=8, q=16)(nn.Linear(16, 16))
    assert stats.bound_bits == 8 * 4 * 16 + 68 * 3
    figures = stats.to_dict()
    assert figures["k"] == 8
    assert sum(figures["motif_counts"]) == stats.m == figures["m"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"s": 0, "k": 1}, "s must be from 1 to 4096"),
        ({"s": 4097, "k": 1}, "s must be from 1 to 4096"),
        ({"s": 4}, "either k or capacity"),
        ({"s": 4, "k": 1, "capacity": 0.5}, "either k or capacity"),
        ({"s": 4, "k": 0}, "k must be at least 1"),
        ({"s": 4, "k": -3}, "k must be at least 1"),
        ({"s": 4, "k": 2.5}, "whole number"),
        ({"s": 4, "capacity": 0.0}, "capacity must be over 0"),
        ({"s": 4, "capacity": 1.5}, "capacity must be over 0"),
        ({"s": 4, "capacity": math.nan}, "capacity must be over 0"),
        ({"s": 4, "k": 1, "q": 1}, "q must be from 2 to 32"),
        ({"s": 4, "k": 1, "method": "best"}, "unknown method 'best'"),
        ({"s": 4, "k": 1, "init": "best"}, "unknown init 'best'"),
        ({"s": 4, "k": 1, "seed": -1}, "seed must be"),
        ({"s": 4, "motifs": torch.ones(2, 3)}, r"shape \(k, 4\)"),
        ({"s": 4, "motifs": torch.ones(0, 4)}, r"shape \(k, 4\)"),
        ({"s": 4, "motifs": torch.ones(2, 4, dtype=torch.int64)}, "floating-point tensor"),
        ({"s": 4, "motifs": torch.full((2, 4), math.inf)}, "NaN or Inf"),
        ({"s": 4, "k": 2, "motifs": torch.ones(2, 4)}, "motifs="),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        MoMos(**arguments)  # type: ignore[arg-type]


def frozen() -> nn.Module:
    model = nn.Linear(4, 4)
    return model.requires_grad_(False)


def poisoned(value: float) -> Any:
    model = odd_model()
    with torch.no_grad():
        model[2].bias[3] = value
    return model


@pytest.mark.parametrize(
    ("model", "momos", "message"),
    [
        (frozen(), MoMos(4, k=1), "no trainable parameter"),
        (nn.ReLU(), MoMos(4, k=1), "no trainable parameter"),
        (odd_model(), MoMos(4, k=1, include="nothing.*"), "patterns leave"),
        (nn.Linear(2, 2), MoMos(64, k=1), "s=64 is larger than every parameter .*'weight'"),
        (poisoned(math.nan), MoMos(4, k=1), "'2.bias' holds NaN or Inf"),
        (poisoned(-math.inf), MoMos(4, k=1), "'2.bias' holds NaN or Inf"),
        (nn.LazyLinear(4), MoMos(4, k=1), "run the model once"),
        (nn.Linear(8, 8, device="meta"), MoMos(4, k=1), "meta device"),
        (nn.Linear(8, 8, dtype=torch.complex64), MoMos(4, k=1), "complex64"),
        (odd_model(), MoMos(4, k=5, select=lambda m, k, g: [0]), "4 block indices"),
        (odd_model(), MoMos(4, k=2, select=lambda m, k, g: [m]), "outside"),
        (odd_model(), MoMos(4, k=2, select=lambda m, k, g: torch.tensor([0.5])), "block indices"),
    ],
)
def test_a_projection_that_fails_leaves_every_weight(
    model: nn.Module, momos: MoMos, message: str
) -> None:
    state = model.state_dict()
    lazy = isinstance(model, nn.LazyLinear)
    before = {} if lazy else {name: each.clone() for name, each in state.items()}
    with pytest.raises(InvalidArgumentError, match=message):
        momos(model)
    for name, each in before.items():
        if each.device.type != "meta":
            assert torch.equal(each, model.state_dict()[name]) or each.isnan().any()
    assert momos.projections == 0


def test_a_failure_while_writing_puts_the_weights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from momos_rs.projection.parameter_blocks import Blocks

    model = odd_model()
    before = copy.deepcopy(model.state_dict())
    write = Blocks._write
    calls = []

    def failing(self: Blocks, *arguments: object) -> None:
        calls.append(1)
        write(self, *arguments)  # type: ignore[arg-type]
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Blocks, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        MoMos(4, k=3)(model)
    assert len(calls) == 3
    assert all(torch.equal(model.state_dict()[name], each) for name, each in before.items())
