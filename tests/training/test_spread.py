"""Motifs drawn by distance: against the definition, in plain Python integers and floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from momos_rs.projection import INITS, MoMos
from momos_rs.projection.random_numbers import exponential, natural_log, seed_of_projection

MASK = (1 << 64) - 1


def uniform(position: int, seed: int) -> float:
    """SplitMix64 of Steele, Lea and Flood on the seed and a position, as a number in (0, 1)."""
    z = (position * 0x9E3779B97F4A7C15 + seed) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return (((z ^ (z >> 31)) >> 11) + 0.5) * 2.0**-53


def test_logarithms_are_within_a_few_units_in_the_last_place() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([
        torch.rand(20_000, dtype=torch.float64, generator=generator),
        torch.randn(20_000, dtype=torch.float64, generator=generator).mul(300).exp(),
        torch.tensor([2.0**-54, 1 - 2.0**-53, 1.0, 0.5, math.sqrt(0.5), 2.0], dtype=torch.float64),
    ])  # fmt: skip
    values = values[(values > 0) & values.isfinite()]
    expected = torch.tensor([math.log(each) for each in values.tolist()], dtype=torch.float64)
    error = (natural_log(values) - expected).abs()
    assert (error <= 4 * 2.0**-53 * expected.abs().clamp(min=2.0**-2)).all()


def test_exponential_numbers_are_those_of_the_definition() -> None:
    for seed in (0, 12345, (1 << 64) - 1):
        positions = torch.tensor([0, 1, 2, 1 << 20, (1 << 40) + 7])
        expected = [-math.log(uniform(each, seed)) for each in positions.tolist()]
        assert exponential(positions, seed).tolist() == pytest.approx(expected, rel=1e-14)
    many = exponential(torch.arange(200_000), 3)
    assert float(many.mean()) == pytest.approx(1, abs=0.01)
    assert float(many.var()) == pytest.approx(1, abs=0.02)


def drawn_by_definition(
    blocks: Sequence[Sequence[float]], first: list[int], count: int, seed: int
) -> list[int]:
    """Numbers of the blocks that become motifs beside a zero motif, in the order of drawing."""
    share = -(-count // 5)
    chosen = list(first)
    turn = 0
    while len(chosen) < count:
        motifs = [[0.0] * len(blocks[0]), *(blocks[each] for each in chosen)]
        keys = []
        for number, block in enumerate(blocks):
            far = min(math.dist(block, motif) ** 2 for motif in motifs)
            if far > 0:
                at = uniform(number, seed_of_projection(seed, turn))
                keys.append((math.log(at) / far, number))
        best = sorted(keys, reverse=True)[: min(share, count - len(chosen))]
        chosen += sorted(number for _, number in best)
        turn += 1
    return chosen


@pytest.mark.parametrize(("s", "k"), [(4, 17), (3, 2), (5, 40)])
def test_spread_draws_what_the_definition_draws(s: int, k: int) -> None:
    torch.manual_seed(s)
    model = nn.Linear(20, 30)
    with torch.no_grad():
        model.weight.pow_(3)  # heavy tails
    flat = [nn.functional.pad(each.detach().flatten(), (0, -each.numel() % s)).view(-1, s)
            for each in model.parameters()]  # fmt: skip
    blocks = torch.cat(flat).double()
    stats = MoMos(s, k=k, method="spread", seed=3)(model)
    assert stats.mosaic is not None
    got = stats.mosaic.motifs.double()
    share = -(-(k - 1) // 5)
    first = [int((blocks == motif).all(dim=1).nonzero()[0]) for motif in got[1 : 1 + share]]
    expected = drawn_by_definition(blocks.tolist(), first, k - 1, stats.seed)
    assert torch.equal(got[1:], blocks[expected])
    assert len(set(expected)) == k - 1


def test_spread_reaches_the_tails() -> None:
    def heavy() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Linear(64, 256, bias=False)
        with torch.no_grad():
            model.weight.normal_().pow_(5)
        return model

    uniform_draw = MoMos(4, capacity=0.05)(heavy()).distortion
    spread = MoMos(4, capacity=0.05, method="spread")(heavy()).distortion
    assert spread < 0.6 * uniform_draw
    refined = {
        init: MoMos(4, capacity=0.05, method="kmeans", init=init)(heavy()).distortion
        for init in INITS
    }
    assert refined["spread"] < 0.8 * refined["random"]


def test_fewer_different_blocks_than_motifs() -> None:
    model = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).repeat(4, 4).view(8, 8))
    before = model.weight.detach().clone()
    stats = MoMos(4, k=7, method="spread")(model)
    assert (stats.k, stats.motifs_used, stats.distortion) == (7, 1, 0.0)
    assert torch.equal(model.weight, before)


def test_warm_draws_motifs_that_nobody_takes_anew() -> None:
    torch.manual_seed(0)
    model = nn.Linear(32, 32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    momos = MoMos(4, k=20, method="warm", iterations=0)
    assert momos(model).motifs_used == 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    assert momos(model).motifs_used == 20
