"""Motifs drawn by distance, against a plain oracle of the same definition, and how well they do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import _core, errors, packing
from momos_rs.archive import open_archive
from momos_rs.mosaic import methods, spread
from momos_rs.mosaic.build import build_mosaic
from momos_rs.mosaic.mosaic import Mosaic
from momos_rs.mosaic.relocation import relocated, squared_distances
from momos_rs.runtime.resources import BLOCKS_PER_BATCH, BlockPlan, Resources
from support.models import checkpoint_of

Rows = npt.NDArray[Any]
MASK = (1 << 64) - 1


def splitmix(seed: int, index: int) -> int:
    state = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def minus_logarithm(bits: int) -> float:
    u = ((bits >> 12) + 0.5) * 2.0**-52
    mantissa, exponent = math.frexp(u)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = 2 * mantissa, exponent - 1
    t = (mantissa - 1) / (mantissa + 1)
    total = 0.0
    for n in reversed(range(9)):
        total = total * (t * t) + 1 / (2 * n + 1)
    value = -(exponent * math.log(2) + 2 * t * total)
    assert value == pytest.approx(-math.log(u), rel=1e-12)
    return value


def oracle_draw(weights: npt.NDArray[np.float64], wanted: int, seed: int, number: int) -> list[int]:
    stream = splitmix(seed, number)
    keys = [
        (minus_logarithm(splitmix(stream, index)) / weight, index)
        for index, weight in enumerate(weights.tolist())
        if weight > 0
    ]
    return sorted(index for _, index in sorted(keys)[:wanted])


def oracle_distances(blocks: Rows, motifs: Rows) -> Rows:
    largest = max(np.abs(blocks.astype(np.float64)).max(), np.finfo(np.float64).tiny)
    exponent = 50 - (math.frexp(largest)[1] - 1)
    most = 100 if blocks.dtype == np.float32 else 1000
    scale = 2.0 ** min(max(exponent, -most), most)
    x, z = blocks.astype(np.float64) * scale, motifs.astype(np.float64) * scale
    distances = np.zeros((len(x), len(z)))
    for column in range(x.shape[1]):
        distances += (x[:, None, column] - z[None, :, column]) ** 2
    return distances


def without_repeats(rows: list[Rows], known: list[Rows]) -> list[Rows]:
    seen = {row.tobytes() for row in known}
    return [row for row in rows if row.tobytes() not in seen and not seen.add(row.tobytes())]  # type: ignore[func-returns-value]


def oracle_spread(blocks: Rows, k: int, seed: int, force_zero: bool) -> Rows:
    first = max(k // spread.SHARES, 1)
    motifs = [np.zeros_like(blocks[0])] if force_zero else []
    drawn = _core.select_blocks(len(blocks), first, seed, force_zero=force_zero)
    motifs += without_repeats([blocks[int(i)] for i in drawn], motifs)
    for number in range(1, spread.SHARES + 3):
        wanted = math.ceil((k - len(motifs)) / max(spread.SHARES - number, 1))
        if wanted <= 0:
            break
        weights = oracle_distances(blocks, np.array(motifs)).min(axis=1)
        new = without_repeats(
            [blocks[i] for i in oracle_draw(weights, wanted, seed, number)], motifs
        )
        if not new:
            break
        motifs += new
    return np.array(motifs)


def spread_of(values: Rows, **options: Any) -> Mosaic:
    return build_mosaic([values], iterations=0, motif_dtype="float32", **options)


def check(blocks: Rows, k: int, seed: int, force_zero: bool, **options: Any) -> None:
    mosaic = spread_of(
        blocks, block_size=blocks.shape[1], motifs=k, seed=seed, force_zero=force_zero, **options
    )
    if mosaic.exact:
        return
    expected = oracle_spread(blocks, k, seed, force_zero)
    if blocks.dtype == np.float64:
        # The precision asked for.
        assert np.array_equal(mosaic.motifs, expected.astype(np.float32))
    else:
        assert np.array_equal(mosaic.motifs, expected)
        nearest = oracle_distances(blocks, expected).argmin(axis=1)
        assert np.array_equal(mosaic.indices, nearest)


def heavy(seed: int, *shape: int, kind: Any = np.float32) -> Rows:
    return (np.random.default_rng(seed).standard_t(2, size=shape) * 0.1).astype(kind)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**64 - 1),
    size=st.integers(1, 9),
    k=st.integers(1, 60),
    wide=st.booleans(),
    force_zero=st.booleans(),
    repeats=st.booleans(),
)
def test_draws_are_those_of_the_definition(
    seed: int, size: int, k: int, wide: bool, force_zero: bool, repeats: bool
) -> None:
    blocks = heavy(seed % 1000, 300, size, kind=np.float64 if wide else np.float32)
    if repeats:
        blocks = blocks[np.random.default_rng(seed % 7).integers(0, 90, 300)]
    check(blocks, k, seed, force_zero)


@pytest.mark.parametrize("k", [1, 2, 5, 399, 400])
@pytest.mark.parametrize("force_zero", [False, True])
def test_any_number_of_motifs(k: int, force_zero: bool) -> None:
    check(heavy(0, 400, 3), k, 1, force_zero)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e30])
def test_subnormal_and_huge_values(scale: float) -> None:
    rng = np.random.default_rng(0)
    with np.errstate(under="ignore"):
        blocks = (rng.integers(-500, 500, (300, 4)) * scale).astype(np.float32)
    check(blocks, 40, 0, True)


def test_no_motif_is_drawn_twice() -> None:
    blocks = heavy(1, 60, 4)[np.random.default_rng(0).integers(0, 60, 5000)]
    mosaic = spread_of(blocks, block_size=4, motifs=50, force_zero=False)
    assert len(np.unique(mosaic.motifs, axis=0)) == len(mosaic.motifs) == 50


def test_blocks_that_are_all_equal_are_an_exact_mosaic() -> None:
    mosaic = build_mosaic([np.full(4000, 0.5, np.float32)], motifs=10)
    assert mosaic.exact
    # Of one block and zeros of both signs, which are different only by their bits.
    blocks = np.zeros((300, 2), np.float32)
    blocks[::3] = 7
    blocks[1::3] *= -1
    mosaic = build_mosaic([blocks], block_size=2, motifs=2, force_zero=False)
    assert np.array_equal(mosaic.motifs[mosaic.indices], blocks)


def test_it_is_the_same_on_any_kernel_and_instruction_set() -> None:
    blocks = heavy(3, 20_000, 4)
    motifs = blocks[::50].copy()
    largest = _core.largest_block(blocks)
    options: dict[str, Any] = {"blocks": len(blocks), "largest": largest}
    before = _core.MotifSearch(motifs[:300], **options).nearest(blocks)
    expected = _core.nearest_motifs(blocks, motifs)
    tried = 0
    for kernel in ("brute", "narrow", "group-tree", "block-tree"):
        for isa in ("avx512-vnni", "avx512", "avx2", "neon-dot", "neon", "portable"):
            try:
                search = _core.MotifSearch.of_added(motifs, 300, kernel=kernel, isa=isa, **options)
            except errors.InvalidArgumentError:
                continue  # this processor does not have it
            found, distances = search.nearest_with_added(blocks, previous=before)
            assert np.array_equal(found, expected), (kernel, isa)
            assert np.array_equal(distances, search.distances(blocks, found))
            tried += 1
    assert tried >= 4
    exact = oracle_distances(blocks, motifs)[np.arange(len(blocks)), expected]
    assert np.array_equal(distances, exact)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 5},
        {"iterations": 1, "force_zero": False},
        {"training_blocks": 100, "motifs": 20},
        {"mini_batch": 3000, "iterations": 3},
    ],
)
def test_chunks_and_threads_change_nothing(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "LEAST_TRAINING_BLOCKS", 20_000)
    model = checkpoint_of({f"{i}.weight": heavy(i, 300, 300) for i in range(3)})
    options = {"block_size": 1, "motifs": 300, **options}
    data = packing.pack(model, threads=1, **options)
    for keep in (False, True):
        plan = BlockPlan(BLOCKS_PER_BATCH, keep=keep, indices_in_memory=keep)
        monkeypatch.setattr(Resources, "plan", lambda *_a, plan=plan, **_o: plan)
        assert packing.pack(model, threads=3, **options) == data


def error(mosaic: Mosaic, values: Rows) -> float:
    decoded = mosaic.motifs[mosaic.indices].reshape(-1)[: values.size]
    difference = decoded.astype(np.float64) - values.reshape(-1)
    return float(np.square(difference).sum() / np.square(values.astype(np.float64)).sum())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_heavy_tails_get_motifs(kind: Any) -> None:
    values = heavy(5, 80_000, kind=kind)
    uniform = build_mosaic([values], motifs=1000, init="random")
    found = build_mosaic([values], motifs=1000)
    assert error(found, values) < 0.5 * error(uniform, values)
    drawn = build_mosaic([values], motifs=1000, iterations=0)
    assert error(found, values) < error(drawn, values) < error(uniform, values)


def test_relocations_lower_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    values = heavy(6, 80_000)
    found = error(build_mosaic([values], motifs=1000), values)
    monkeypatch.setattr("momos_rs.mosaic.lloyd.MOST_SHARE", 0.0)
    assert found < 0.98 * error(build_mosaic([values], motifs=1000), values)


def test_what_is_worth_least_is_moved() -> None:
    motifs = np.array([[0.0], [10.0], [10.5], [20.0], [20.1], [30.0], [50.0]], np.float32)
    counts = np.array([5.0, 5, 1, 3, 3, 0, 9])
    wanted = np.array([[44.0], [45.0], [46.0], [47.0], [48.0]], np.float32)
    distances = np.array([30.0, 20.0, 9.0, 8.0, 7.0])
    moved = relocated(motifs, counts, wanted, distances, fixed=1)
    # The empty one first; of 20.0 and 20.1 only one, since the other takes its blocks.
    assert moved[0] == 5
    assert len(set(moved) & {3, 4}) == 1
    assert 0 not in moved
    assert 6 not in moved
    assert len(relocated(motifs, counts, wanted[:0], distances[:0], fixed=1)) == 0
    assert squared_distances(motifs[:2], motifs[1:3]).tolist() == [100.0, 0.25]


def test_a_sensitivity_weighs_the_draws() -> None:
    weights = heavy(7, 200, 200)
    importance = np.ones_like(weights)
    importance[:, 100:] = 1e-4

    def errors_of(**options: Any) -> tuple[float, float]:
        model = checkpoint_of({"w": weights})
        archive = packing.pack(model, capacity=0.02, iterations=1, **options)
        decoded = packing.unpack(archive)["w"].numpy()
        squares = np.square(decoded.astype(np.float64) - weights)
        return float(squares[:, :100].sum()), float(squares[:, 100:].sum())

    plain, weighted = errors_of(), errors_of(sensitivity={"w": importance})
    assert weighted[0] < 0.9 * plain[0]
    assert weighted[1] > plain[1]


def test_a_draw_says_what_it_cannot_do() -> None:
    draw = _core.WeightedDraw(3, 0, 0)
    with pytest.raises(errors.InvalidArgumentError, match="at least 0"):
        draw.add(0, np.array([1.0, -1.0]))
    with pytest.raises(errors.InvalidArgumentError, match="must be at least 0"):
        draw.add(0, np.array([np.nan]))
    blocks = heavy(0, 10, 2)
    with pytest.raises(errors.InvalidArgumentError, match="are none of 10"):
        _core.MotifSearch.of_added(blocks, 10, blocks=10, largest=9.0)
    search = _core.MotifSearch.of_added(blocks, 5, blocks=10, largest=99.0)
    for indices in (np.zeros(9, np.uint32), np.full(10, 10, np.uint32)):
        with pytest.raises(errors.InvalidArgumentError, match="10 blocks need"):
            search.nearest_with_added(blocks, previous=indices)
        with pytest.raises(errors.InvalidArgumentError, match="10 blocks need"):
            search.distances(blocks, indices)
    with pytest.raises(errors.InvalidArgumentError, match="init must be one of spread, random"):
        methods.KMeans(init="near")  # type: ignore[arg-type]


def test_the_archive_says_where_it_began() -> None:
    model = checkpoint_of({"w": heavy(0, 100, 100)})

    def settings_of(**options: Any) -> dict[str, Any]:
        with open_archive(packing.pack(model, motifs=50, **options)) as archive:
            assert archive.document.mosaic is not None
            return dict(archive.document.mosaic.settings)

    assert settings_of() == settings_of(init="spread")
    assert settings_of(init="random")["init"] == "random"
