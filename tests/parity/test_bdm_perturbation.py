"""Perturbation experiments: pybdm's where it is right, the exact difference everywhere."""

import random
import warnings

import numpy as np
import pytest

import momos_rs.bdm as ours
from momos_rs.bdm import BDM, PerturbationExperiment

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pybdm

CASES = [
    (1, 2, "PartitionIgnore", {}),
    (1, 4, "PartitionIgnore", {}),
    (2, 2, "PartitionIgnore", {}),
    (2, 2, "PartitionCorrelated", {}),
    (1, 2, "PartitionCorrelated", {"shift": 5}),
    (2, 2, "PartitionRecursive", {"min_length": 1}),
]


def data(ndim, nsymbols):
    shape = (150,) if ndim == 1 else (25, 23)
    return np.random.default_rng(1001).integers(0, nsymbols, shape)


def value(experiment, array):
    return getattr(experiment.bdm, experiment.metric)(array)


@pytest.mark.parametrize("metric", ["bdm", "ent"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(("ndim", "nsymbols", "partition", "kwds"), CASES)
def test_changes_are_the_difference_of_the_whole(ndim, nsymbols, partition, kwds, keep, metric):
    method = BDM(
        ndim, nsymbols, partition=getattr(ours, partition), warn_if_missing_ctm=False, **kwds
    )
    array = data(ndim, nsymbols)
    experiment = PerturbationExperiment(method, array, metric=metric)
    rng = np.random.default_rng(3)
    for _ in range(25):
        index = tuple(int(rng.integers(size)) for size in array.shape)
        before = array.copy()
        symbol = int(rng.integers(-1, nsymbols))
        change = experiment.perturb(index, symbol, keep_changes=keep)
        after = before.copy()
        if keep:
            after = array.copy()
            assert (after != before).sum() <= 1
        else:
            assert np.array_equal(array, before)
            if symbol < 0 and nsymbols > 2:
                continue
            after[index] = 1 - before[index] if symbol < 0 else symbol
        expected = value(experiment, after) - value(experiment, before)
        assert change == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", ["bdm", "ent"])
@pytest.mark.parametrize(("ndim", "nsymbols"), [(1, 2), (2, 2)])
def test_runs_agree_with_pybdm(ndim, nsymbols, metric):
    mine = PerturbationExperiment(BDM(ndim, nsymbols), data(ndim, nsymbols), metric=metric)
    theirs = pybdm.PerturbationExperiment(
        pybdm.BDM(ndim, nsymbols), data(ndim, nsymbols), metric=metric
    )
    np.testing.assert_allclose(mine.run(), theirs.run(), atol=1e-9)
    index = np.array([[5] * ndim, [11] * ndim, [5] * ndim])
    values = np.array([-1, 1, -1])
    for keep in (False, True):
        np.testing.assert_allclose(
            mine.run(index, values, keep_changes=keep),
            theirs.run(index, values, keep_changes=keep),
            atol=1e-9,
        )
    assert mine.X is not None
    assert np.array_equal(mine.X, theirs.X)


def test_random_symbols_are_drawn_as_by_pybdm():
    for module in (ours, pybdm):
        random.seed(4)
        method = module.BDM(1, 4, warn_if_missing_ctm=False)
        experiment = module.PerturbationExperiment(method, data(1, 4))
        changes = experiment.run(np.arange(60), keep_changes=True)
        if module is ours:
            expected, kept = changes, experiment.X.copy()
    np.testing.assert_allclose(changes, expected, atol=1e-9)
    assert np.array_equal(experiment.X, kept)


def test_documented_examples():
    ones = np.ones(30, int)
    experiment = PerturbationExperiment(BDM(ndim=1), ones)
    assert experiment.perturb((10,), -1) == pytest.approx(26.91763012739709)
    np.testing.assert_allclose(experiment.run(np.array([10, 20])), [26.91763013, 27.34823681])
    assert (experiment.size, experiment.shape, experiment.ndim) == (30, (30,), 1)
    assert repr(experiment) == (
        "<PerturbationExperiment(metric=bdm) with BDM(ndim=1, nsymbols=2) with "
        "PartitionIgnore(shape=(12,))>"
    )


def test_a_partition_of_ones_own_is_measured_as_a_whole():
    class EveryOther(ours.PartitionIgnore):
        def decompose(self, X):  # noqa: N803
            yield from list(super().decompose(X))[::2]

    array = data(1, 2)
    experiment = PerturbationExperiment(BDM(1, partition=EveryOther), array)
    assert experiment.perturb((13,)) == 0.0
    changed = array.copy()
    changed[3] ^= 1
    expected = experiment.bdm.bdm(changed) - experiment.bdm.bdm(array)
    assert experiment.perturb((3,)) == pytest.approx(expected)


def test_blocks_around_an_element():
    array = np.arange(144).reshape(12, 12) % 2
    method = BDM(ndim=2, partition=ours.PartitionCorrelated)
    parts = list(PerturbationExperiment(method, array)._idx_to_parts((11, 1)))
    assert len(parts) == 2
    assert np.array_equal(parts[0], array[8:12, 0:4])
    assert np.array_equal(parts[1], array[8:12, 1:5])


def test_mistakes_are_named():
    with pytest.raises(AttributeError, match="Incorrect metric"):
        PerturbationExperiment(BDM(1), metric="size")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="malformed"):
        PerturbationExperiment(BDM(1), np.array([0, 2]))
    experiment = PerturbationExperiment(BDM(1))
    with pytest.raises(AttributeError, match="set_data"):
        experiment.run()
    experiment.set_data(data(1, 2))
    with pytest.raises(IndexError):
        experiment.perturb((1000,))
    assert experiment.X is not None
    assert experiment.perturb((0,), int(experiment.X[0])) == 0
