"""Refining motifs: the distortion never rises, and where to stop is up to whoever asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import _core, errors, packing
from momos_rs.archive import open_archive
from momos_rs.mosaic import methods
from momos_rs.mosaic.build import build_mosaic
from momos_rs.mosaic.methods import KMeans
from momos_rs.mosaic.mosaic import Mosaic
from momos_rs.runtime.resources import BLOCKS_PER_BATCH, BlockPlan, Resources
from support.models import checkpoint_of


def mixture(seed: int, size: int, kind: Any = np.float32) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    scales = rng.choice([0.01, 0.1, 1.0], size)
    values: npt.NDArray[Any] = (rng.standard_normal(size) * scales).astype(kind)
    return values


def distortion(mosaic: Mosaic, values: npt.NDArray[Any]) -> float:
    decoded = mosaic.motifs[mosaic.indices].reshape(-1)[: values.size]
    return float(np.square(decoded.astype(np.float64) - values).sum())


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    block_size=st.integers(1, 6),
    motifs=st.integers(2, 40),
    wide=st.booleans(),
    force_zero=st.booleans(),
)
def test_the_distortion_never_rises(
    seed: int, block_size: int, motifs: int, wide: bool, force_zero: bool
) -> None:
    values = mixture(seed, 3000, np.float64 if wide else np.float32)
    mosaic = build_mosaic(
        [values],
        block_size=block_size,
        motifs=motifs,
        init="random",
        iterations=30,
        tolerance=0,
        force_zero=force_zero,
        motif_dtype="float32",
    )
    distortions = np.array(mosaic.distortions)
    # Means are rounded to the precision of the motifs.
    assert (distortions[1:] <= distortions[:-1] * (1 + 1e-6)).all()
    if not wide:
        assert distortion(mosaic, values) == pytest.approx(distortions[-1], rel=1e-9)
        assert distortion(mosaic, values) == pytest.approx(distortions.min(), rel=1e-6)


def test_it_is_the_core_at_any_tolerance_that_is_not_met() -> None:
    values = mixture(1, 60_000)
    blocks = values.reshape(-1, 4)
    chosen = _core.select_blocks(len(blocks), 100, 0, force_zero=False)
    motifs, indices, distortions = _core.lloyd(blocks, blocks[chosen], 6)
    options: dict[str, Any] = {
        "init": "random",
        "iterations": 6,
        "tolerance": 1e-5,
        "motifs": 100,
        "force_zero": False,
        "motif_dtype": "float32",
    }
    mosaic = build_mosaic([values], **options)
    assert np.array_equal(mosaic.motifs, motifs)
    assert np.array_equal(mosaic.indices, indices)
    assert mosaic.distortions == tuple(distortions)


def test_it_stops_after_the_iteration_that_gains_too_little() -> None:
    values = mixture(2, 60_000)
    options: dict[str, Any] = {
        "init": "random",
        "motifs": 60,
        "iterations": 100,
        "motif_dtype": "float32",
    }
    full = np.array(build_mosaic([values], tolerance=0, **options).distortions)
    mosaic = build_mosaic([values], tolerance=0.01, **options)
    gains = 1 - full[1:] / full[:-1]
    last = int(np.argmax(gains < 0.01)) + 1
    assert 1 < last < len(full) - 1
    assert mosaic.distortions == tuple(full[: last + 1])
    assert distortion(mosaic, values) == pytest.approx(full[last], rel=1e-9)


def test_a_motif_without_blocks_stays_where_it_is() -> None:
    values = np.repeat(np.array([1, 2, 3, 4, 5, 6], np.float32), 10)
    values[:6] += np.array([0.1, -0.1, 0.2, -0.2, 0.05, -0.05], np.float32)
    blocks = values.reshape(-1, 1)
    start = np.array([[1.0], [3.0], [50.0]], np.float32)
    moved, indices, _ = _core.lloyd(blocks, start, 5)
    assert moved[2] == 50
    assert indices.max() == 1
    clusters = _core.Clusters(3, 1, largest=6.2)
    clusters.add(blocks, indices)
    once, changed, before = clusters.move_motifs(start)
    assert before == pytest.approx(np.square(blocks - start[indices], dtype=np.float64).sum())
    assert once[2] == 50
    assert changed.tolist() == [True, True, False]


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets motifs be refined on a sample of few blocks already."""
    monkeypatch.setattr(methods, "LEAST_TRAINING_BLOCKS", 1000)


def test_motifs_are_refined_on_a_sample_where_blocks_are_many(small_samples: None) -> None:
    values = mixture(3, 400_000)
    options: dict[str, Any] = {"block_size": 2, "motifs": 100, "motif_dtype": "float32"}
    everything = build_mosaic([values], training_blocks=0, **options)
    sampled = build_mosaic([values], training_blocks=256, **options)
    drawn = build_mosaic([values], method="random", **options)
    few = build_mosaic([values], training_blocks=8, **options)
    assert not np.array_equal(sampled.motifs, everything.motifs)
    errors_of = [distortion(each, values) for each in (everything, sampled, few, drawn)]
    assert errors_of == sorted(errors_of)
    assert errors_of[1] < 1.05 * errors_of[0]
    # Blocks go to the nearest of the motifs in the end, all of them.
    nearest = _core.nearest_motifs(values.reshape(-1, 2), sampled.motifs)
    assert np.array_equal(sampled.indices, nearest)
    # What a sample tells of all blocks.
    assert sampled.distortions[-1] == pytest.approx(errors_of[1], rel=0.1)
    again = build_mosaic([values], training_blocks=256, threads=1, **options)
    assert np.array_equal(again.motifs, sampled.motifs)


def test_a_capacity_of_a_256th_or_more_is_refined_on_all_blocks() -> None:
    training = KMeans()
    for blocks in (10, 1000, 10**6, 10**9):
        assert training.sample_width(blocks, -(-blocks // 256)) == 1
        assert training.sample_width(blocks, -(-blocks // 512)) == 1
    assert 10**9 / training.sample_width(10**9, 1000) < methods.LEAST_TRAINING_BLOCKS
    assert training.sample_width(10**9, 10**6) == 4
    assert KMeans(training_blocks=0).sample_width(10**9, 1) == 1
    assert KMeans(mini_batch=10**5).sample_width(10**6, 10**5) == 10
    assert KMeans(mini_batch=10**7).sample_width(10**6, 1) == 1


def test_mini_batches_move_motifs_to_the_mean_of_what_they_saw() -> None:
    values = mixture(4, 400_000)
    options: dict[str, Any] = {"block_size": 2, "motifs": 100, "motif_dtype": "float32"}
    drawn = build_mosaic([values], method="random", **options)
    batched = build_mosaic([values], iterations=30, mini_batch=5000, **options)
    refined = build_mosaic([values], iterations=6, **options)
    assert len(batched.distortions) == 30
    error = distortion(batched, values)
    assert distortion(refined, values) < 1.1 * error
    assert error < 0.8 * distortion(drawn, values)
    nearest = _core.nearest_motifs(values.reshape(-1, 2), batched.motifs)
    assert np.array_equal(batched.indices, nearest)
    assert (batched.motifs[0] == 0).all()


def test_one_batch_of_all_blocks_is_one_iteration() -> None:
    values = mixture(5, 20_000)
    options: dict[str, Any] = {"motifs": 50, "iterations": 1, "motif_dtype": "float32"}
    batched = build_mosaic([values], mini_batch=1 << 20, **options)
    refined = build_mosaic([values], **options)
    assert np.allclose(batched.motifs, refined.motifs, rtol=1e-6, atol=0)
    assert batched.distortions == refined.distortions[:1]


@pytest.mark.parametrize("options", [{"training_blocks": 256}, {"mini_batch": 3000}])
@pytest.mark.parametrize("threads", [1, 2])
def test_samples_and_batches_do_not_depend_on_memory(
    options: dict[str, Any], threads: int, small_samples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint_of({f"{i}.weight": mixture(i, 150_000).reshape(300, -1) for i in range(2)})
    options = {"block_size": 1, "motifs": 30, **options}
    data = packing.pack(model, **options)
    for keep in (False, True):
        plan = BlockPlan(BLOCKS_PER_BATCH, keep=keep, indices_in_memory=keep)
        monkeypatch.setattr(Resources, "plan", lambda *_a, plan=plan, **_o: plan)
        assert packing.pack(model, threads=threads, **options) == data


def test_the_archive_says_how_motifs_were_refined(small_samples: None) -> None:
    model = checkpoint_of({"weight": mixture(0, 16_000).reshape(80, -1)})

    def settings_of(**options: Any) -> dict[str, Any]:
        with open_archive(packing.pack(model, motifs=10, **options)) as archive:
            assert archive.document.mosaic is not None
            return dict(archive.document.mosaic.settings)

    usual = settings_of()
    assert settings_of(training_blocks=100) == {**usual, "training_blocks": 100}
    assert settings_of(mini_batch=500) == {**usual, "mini_batch": 500}
    assert settings_of(tolerance=0.1) == {**usual, "tolerance": 0.1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "iterations must be at least 0"),
        ({"tolerance": 1.0}, "tolerance must be at least 0 and below 1"),
        ({"tolerance": float("nan")}, "tolerance must be"),
        ({"training_blocks": -1}, "training_blocks must be at least 0"),
        ({"mini_batch": -1}, "mini_batch must be at least 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        packing.pack(checkpoint_of({"weight": np.eye(9, dtype=np.float32)}), **options)
