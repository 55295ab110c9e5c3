"""The paper's statements, checked by enumeration where that is possible."""

import doctest
import math
from itertools import product

import numpy as np
import pytest

from momos_rs import theory
from momos_rs.errors import InvalidArgumentError


def partitions(blocks, motifs):
    """All ways to put blocks together, as canonical labels."""
    found = set()
    for mosaic in product(range(motifs), repeat=blocks):
        names: dict[object, object] = {}
        found.add(tuple(names.setdefault(motif, len(names)) for motif in mosaic))
    return found


@pytest.mark.parametrize("blocks", range(1, 7))
@pytest.mark.parametrize("motifs", range(1, 5))
def test_components_are_the_partitions(blocks, motifs):
    found = partitions(blocks, motifs)
    assert theory.component_count(blocks, motifs) == len(found)
    used = min(blocks, motifs)
    maximal = [each for each in found if max(each) + 1 == used]
    assert theory.maximal_component_count(blocks, motifs) == len(maximal)
    assert theory.log2_component_count(blocks, motifs) == pytest.approx(math.log2(len(found)))


@pytest.mark.parametrize("blocks", [3, 4])
@pytest.mark.parametrize("block_size", [1, 2])
def test_the_dimension_of_a_component_is_the_rank_of_its_mosaic(blocks, block_size):
    for mosaic in partitions(blocks, 3):
        used = max(mosaic) + 1
        lift = np.zeros((blocks * block_size, used * block_size))
        for block, motif in enumerate(mosaic):
            for place in range(block_size):
                lift[block * block_size + place, motif * block_size + place] = 1
        rank = np.linalg.matrix_rank(lift)
        assert theory.component_dimension(used, block_size) == rank


@pytest.mark.parametrize(
    ("blocks", "motifs", "size", "bits"),
    [
        (1, 1, 1, 1),
        (3, 2, 1, 1),
        (3, 2, 1, 2),
        (4, 3, 1, 1),
        (2, 2, 2, 1),
        (3, 9, 1, 2),
    ],
)
def test_hypotheses_are_the_distinct_weight_vectors(blocks, motifs, size, bits):
    values = list(product(range(2**bits), repeat=size))
    found = {vector for vector in product(values, repeat=blocks) if len(set(vector)) <= motifs}
    assert theory.hypothesis_count(blocks, motifs, size, bits) == len(found)
    assert theory.log2_hypothesis_count(blocks, motifs, size, bits) == pytest.approx(
        math.log2(len(found))
    )


@pytest.mark.parametrize(
    ("blocks", "size", "bits"), [(1, 1, 1), (7, 1, 2), (100, 4, 8), (999, 2, 16)]
)
def test_break_even_is_where_the_regime_ends(blocks, size, bits):
    inside = [
        motifs
        for motifs in range(1, blocks + 1)
        if theory.complexity_bound(blocks, motifs, size, bits)
        < theory.unconstrained_bound(blocks, size, bits)
    ]
    assert theory.break_even_motifs(blocks, size, bits) == max(inside, default=0)
    assert inside == list(range(1, len(inside) + 1))
    assert theory.break_even_capacity(blocks, size, bits) == len(inside) / blocks
    for motifs in inside:
        index_bits = (motifs - 1).bit_length()
        assert motifs / blocks < 1 - index_bits / (size * bits)


def test_asymptotics_continue_the_exact_counts():
    n = theory.EXACT_BLOCKS
    classes = np.array([1, 2, 3, 10, 57, 200, 399, 400])
    exact = [theory.log2_stirling(n, int(k)) for k in classes]
    found = theory._log2_stirling(n, classes)
    np.testing.assert_allclose(found, exact, atol=3 / n)
    for motifs in (1, 2, 20, 150, 400):
        exact_count = theory.log2_component_count(n, motifs)
        asymptotic = theory._log2_sum(lambda k: theory._log2_stirling(n, k), motifs)
        assert asymptotic == pytest.approx(exact_count, abs=3 / n)


@pytest.mark.parametrize("value_bits", [6, 9, 12, 40, 2000])
def test_arrangements_continue_the_exact_products(value_bits):
    classes = np.array([1, 2, 30, 60, 64])
    exact = [theory._log2_integer(math.perm(2**value_bits, int(k))) for k in classes]
    found = theory._log2_arrangements(value_bits, classes.astype(float))
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=0.02)


def test_large_models():
    blocks, motifs = 5_675_000, 283_750
    count = theory.log2_component_count(blocks, motifs)
    # Between the terms of the crude bounds k**m / k! and k**m.
    upper = blocks * math.log2(motifs)
    assert upper - math.lgamma(motifs + 1) / math.log(2) - 1 < count < upper
    hypotheses = theory.log2_hypothesis_count(blocks, motifs, 4, 32)
    assert hypotheses < motifs * 4 * 32 + upper
    assert hypotheses == pytest.approx(count + motifs * 4 * 32, rel=1e-6)
    assert theory.component_growth(blocks, motifs) == pytest.approx(math.log2(motifs), rel=1e-2)


def test_growth_tends_to_the_bits_of_an_index():
    growth = [theory.component_growth(blocks, 8) for blocks in (5, 20, 100, 399, 400, 5000)]
    # Up to the accuracy of the asymptotics, which begin at 400.
    assert np.all(np.diff(growth) > -1e-7)
    assert growth[-1] == pytest.approx(3.0, abs=1e-7)
    exact = math.log2(theory.component_count(401, 8) / theory.component_count(400, 8))
    assert growth[4] == pytest.approx(exact, abs=1e-6)


def test_edges():
    assert theory.stirling(0, 0) == 1
    assert theory.stirling(3, 5) == 0
    assert theory.log2_stirling(0, 0) == 0.0
    assert theory.log2_stirling(3, 5) == -math.inf
    assert theory.component_count(3, 99) == 5
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(InvalidArgumentError, match="must be at least 1"):
            theory.component_count(*bad)
    with pytest.raises(InvalidArgumentError):
        theory.stirling(-1, 0)


def test_examples():
    assert doctest.testmod(theory).failed == 0
