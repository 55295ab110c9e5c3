"""BDM as a drop-in for pybdm 0.1.0: same results, errors and warnings."""

import importlib.metadata
import pickle
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import momos_rs.bdm as ours
from momos_rs.bdm import BDM, options, tables

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pybdm

ALPHABETS = [(1, 2), (1, 4), (1, 5), (1, 6), (1, 9), (2, 2)]
PARTITIONS = [
    ("PartitionIgnore", {}),
    ("PartitionRecursive", {"min_length": 1}),
    ("PartitionRecursive", {"min_length": 3}),
    ("PartitionCorrelated", {"shift": 1}),
    ("PartitionCorrelated", {"shift": 3}),
]
QUIET = {"warn_if_missing_ctm": False}


def pair(ndim, nsymbols=2, partition="PartitionIgnore", **kwds):
    return tuple(
        module.BDM(ndim, nsymbols, partition=getattr(module, partition), **QUIET, **kwds)
        for module in (ours, pybdm)
    )


def assert_equal(mine, reference, array):
    """Equal in everything that both compute of an array, which has at least one block."""
    assert mine.decompose_and_count(array) == reference.decompose_and_count(array)
    assert mine.bdm(array) == pytest.approx(reference.bdm(array), rel=1e-12)
    assert mine.ent(array) == pytest.approx(reference.ent(array), rel=1e-9, abs=1e-12)
    if isinstance(mine.partition, ours.PartitionCorrelated):
        with pytest.raises(NotImplementedError):
            mine.nbdm(array)
        with pytest.raises(NotImplementedError):
            mine.nent(array)
        return
    try:
        expected = reference.nbdm(array)
    except StopIteration:
        # Parts that are no squares, which pybdm's normalisation forgets to cut further.
        assert array.ndim == 2
        assert 0 <= mine.nbdm(array) <= 1
        return
    except ZeroDivisionError:
        # A single block of the only kind there is.
        with pytest.raises(ZeroDivisionError):
            mine.nbdm(array)
        return
    assert mine.nbdm(array) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    with np.errstate(invalid="ignore"):
        expected = float(reference.nent(array))
    assert mine.nent(array) == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("partition", "kwds"), PARTITIONS)
@pytest.mark.parametrize(("ndim", "nsymbols"), ALPHABETS)
def test_every_alphabet_and_partition(ndim, nsymbols, partition, kwds):
    mine, reference = pair(ndim, nsymbols, partition, **kwds)
    rng = np.random.default_rng(nsymbols)
    sizes = [(12,), (13,), (35,), (1000,)] if ndim == 1 else [(4, 4), (5, 7), (9, 30), (41, 42)]
    for size in sizes:
        assert_equal(mine, reference, rng.integers(0, nsymbols, size))
        # Few distinct blocks: counts and their logarithms matter.
        assert_equal(mine, reference, np.arange(np.prod(size)).reshape(size) // 3 % nsymbols)


@pytest.mark.parametrize(("ndim", "widths"), [(1, range(1, 13)), (2, range(1, 5))])
def test_every_width_of_the_binary_tables(ndim, widths):
    array = np.random.default_rng(7).integers(0, 2, (50,) if ndim == 1 else (13, 11))
    for width in widths:
        mine, reference = pair(ndim, shape=(width,) * ndim)
        assert_equal(mine, reference, array)


@pytest.mark.parametrize("name", sorted(set(tables.FILES) - {"CTM-B2-D12", "CTM-B2-D4x4"}))
def test_every_entry_of_the_large_tables(name):
    reference, missing = pybdm.utils.get_ctm_dataset(name)
    table = tables.load_table(name)
    for shape, entries in reference.items():
        (length,) = shape
        assert table.missing(length) == missing[shape]
        # All of the short strings, a sample of the longest, of which there are millions.
        step = max(1, len(entries) // 20_000)
        for digits, value in list(entries.items())[::step]:
            assert table.complexity(length, digits) == value
    assert 13 not in table


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        np.int64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
        elements={"min_value": 0, "max_value": 1},
    ),
    which=st.sampled_from(PARTITIONS),
)
def test_any_matrix(array, which):
    mine, reference = pair(2, 2, which[0], **which[1])
    if not reference.decompose_and_count(array):
        with pytest.raises(ValueError, match="Computed BDM is 0"):
            mine.bdm(array)
        assert mine.ent(array) == 0.0
        return
    assert_equal(mine, reference, array)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", "bool"])
def test_integers_of_any_type_and_layout(dtype):
    bits = np.random.default_rng(1).integers(0, 2, (24, 31)).astype(dtype)
    mine = BDM(ndim=2)
    expected = pybdm.BDM(ndim=2).bdm(bits.astype(int))
    check = dtype != "bool"
    assert mine.bdm(bits, check_data=check) == pytest.approx(expected, rel=1e-12)
    assert mine.bdm(bits.T.copy().T, check_data=check) == pytest.approx(expected, rel=1e-12)
    assert mine.bdm(np.asfortranarray(bits), check_data=check) == pytest.approx(expected)
    if dtype in ("i8", "u1"):
        assert mine.bdm(torch.from_numpy(bits)) == pytest.approx(expected, rel=1e-12)


def test_real_weights():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    parameters = models.squeezenet1_1().parameters()
    weights = torch.cat([each.detach().flatten() for each in parameters])[:150_001]
    bits = (weights > 0).numpy().astype(int)
    reference = pybdm.BDM(ndim=1)
    assert BDM(ndim=1).bdm(bits) == pytest.approx(reference.bdm(bits), rel=1e-12)
    assert ours.sign_bdm(weights) == pytest.approx(reference.bdm(bits), rel=1e-12)
    matrix = bits[:150_000].reshape(300, 500)
    signs = weights[:150_000].reshape(300, 500)
    expected = pybdm.BDM(ndim=2).bdm(matrix)
    assert ours.sign_bdm(signs, ndim=2) == pytest.approx(expected, rel=1e-12)
    assert ours.sign_bdm(signs.double().numpy(), ndim=2) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="ndim must be 1 or 2"):
        ours.sign_bdm(signs, ndim=3)  # type: ignore[arg-type]


# What pybdm's own tests expect: values of tests/test_bdm.py of its repository.
PUBLISHED_1D = [
    ("0" * 24, 26.610413747641715, 0.0),
    ("0" * 12 + "1" * 12, 51.22082749528343, 1.0),
    ("0" * 6 + "1" * 12 + "0" * 18 + "1" * 12, 114.06151272200972, 2.0),
]
PUBLISHED_9 = [
    ([0], 4.964344),
    ([0, 0, 0], 11.66997),
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 5], 49.712),
    ([2, 1, 0, 3, 4, 5, 6, 7, 8, 8, 8, 5], 49.712),
    ([2, 1, 0, 3, 4, 5, 6, 7, 8, 8, 8, 5, 4, 2, 4], 49.712 + 11.90539),
    ([4, 1, 2, 1, 5, 4, 0, 5, 1, 8, 4, 2], 53.897870350),
]
PUBLISHED_2D = [
    ("00000001-00010001-11110001-10000001", 56.359570016884945),
    ("00001111-00011111-11111111-10011111", 54.62895862824821),
    ("00001000-00011000-11111000-10001000", 56.359570016884945),
    ("00000000-00010000-11110000-10100000", 50.73763518824672),
]


@pytest.mark.parametrize(("digits", "bdm", "entropy"), PUBLISHED_1D)
def test_published_strings(digits, bdm, entropy):
    array = ours.encoding.array_from_string(digits, (len(digits),))
    assert BDM(ndim=1).bdm(array) == pytest.approx(bdm)
    assert BDM(ndim=1).ent(array) == pytest.approx(entropy)


@pytest.mark.parametrize(("symbols", "bdm"), PUBLISHED_9)
def test_published_strings_of_nine_symbols(symbols, bdm):
    method = BDM(1, 9, partition=ours.PartitionRecursive, min_length=1, **QUIET)  # type: ignore[arg-type]
    assert method.bdm(np.array(symbols)) == pytest.approx(bdm)


@pytest.mark.parametrize(("rows", "bdm"), PUBLISHED_2D)
def test_published_matrices(rows, bdm):
    array = np.array([[int(bit) for bit in row] for row in rows.split("-")])
    assert BDM(ndim=2).bdm(array) == pytest.approx(bdm)


def test_published_normalised_values():
    bits = np.array([0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1])
    assert BDM(ndim=1).nbdm(bits) == pytest.approx(0.648665654727082)
    assert BDM(ndim=1).nbdm(np.ones(30, int)) == 0
    assert BDM(ndim=2).nbdm(np.ones((20, 20), int)) == 0
    square = np.array([[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 1, 0]])
    assert BDM(ndim=2).nbdm(square) == pytest.approx(0.6139131118181638)
    assert BDM(ndim=1).nent(np.repeat([0, 1], 12)) == 1
    assert BDM(ndim=2).nent(np.repeat([[1], [0]], 4, axis=0).repeat(4, axis=1)) == 1


def test_parts_of_an_object_are_joined():
    array = np.random.default_rng(2).integers(0, 2, (80, 80))
    method = BDM(ndim=2)
    parts = ours.utils.decompose_dataset(array, (20, 20))
    # As a pool of processes would: the method and the counters are pickled on the way.
    method = pickle.loads(pickle.dumps(method))
    counters = [pickle.loads(pickle.dumps(method.decompose_and_count(part))) for part in parts]
    assert method.compute_bdm(*counters) == pytest.approx(method.bdm(array))
    assert method.compute_ent(*counters) == pytest.approx(method.ent(array))


def test_stages_one_by_one():
    mine, reference = pair(2, shape=(2, 2))
    array = np.random.default_rng(5).integers(0, 2, (5, 6))
    blocks = list(mine.decompose(array))
    assert all(map(np.array_equal, blocks, reference.decompose(array)))
    found = list(mine.lookup(blocks))
    assert found == list(reference.lookup(blocks))
    assert mine.count(found) == reference.count(found)
    assert next(mine.lookup(blocks, lookup_ctm=False))[1] is None
    assert repr(mine) == repr(reference)


def test_blocks_larger_than_a_key_have_entropy():
    array = np.random.default_rng(6).integers(0, 2, (40, 40))
    mine, reference = pair(2, shape=(10, 10))
    assert mine.ent(array) == pytest.approx(reference.ent(array))
    for method in (mine, reference):
        with pytest.raises(KeyError):
            method.bdm(array)


def test_a_shape_without_a_table_is_a_key_error():
    for method in pair(1, shape=(13,)):
        with pytest.raises(KeyError, match=r"13,"):
            method.bdm(np.zeros(26, int))


def test_a_partition_of_ones_own():
    class EveryOther(ours.PartitionIgnore):
        def decompose(self, X):  # noqa: N803
            yield from list(super().decompose(X))[::2]

    array = np.random.default_rng(8).integers(0, 2, 120)
    method = BDM(1, partition=EveryOther)
    kept = np.concatenate(list(method.decompose(array)))
    assert method.bdm(array) == pytest.approx(BDM(1).bdm(kept))
    assert method.ent(array) == pytest.approx(BDM(1).ent(kept))


def test_unchecked_symbols_are_taken_as_they_are():
    for method in pair(1):
        array = np.array([3, 7] * 12)
        expected = method.bdm(np.array([0, 1] * 12))
        assert method.bdm(array, check_data=False) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.ones(12), TypeError),
        (np.ones(12, bool), TypeError),
        (np.array([0, 1, 2] * 4), ValueError),
        (np.array([0, 2] * 6), ValueError),
        (np.array([0, -1] * 6), ValueError),
        (np.array([], int), ValueError),
        (np.ones((4, 4), int), AttributeError),
    ],
)
def test_bad_data_is_refused_as_by_pybdm(array, error):
    messages = []
    for method in pair(1):
        with pytest.raises(error) as caught:
            method.bdm(array)
        messages.append(str(caught.value))
    assert messages[0].startswith(messages[1])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"ndim": 3}, "CTMDatasetNotFoundError"),
        ({"ndim": 1, "nsymbols": 3}, "CTMDatasetNotFoundError"),
        ({"ndim": 1, "ctmname": "XXX"}, "BDMConfigurationError"),
        ({"ndim": 2, "shape": (3, 4)}, "BDMConfigurationError"),
        ({"ndim": 1, "ctmname": "CTM-B3-D12"}, None),
    ],
)
def test_bad_configurations_are_refused_as_by_pybdm(arguments, error):
    for module in (ours, pybdm):
        exceptions = module.exceptions if error else None
        kind = getattr(exceptions, error) if error else ValueError
        with pytest.raises(kind):
            module.BDM(**arguments)


def test_kinds_of_errors():
    for mine, reference in (
        (ours.BDMRuntimeWarning, RuntimeWarning),
        (ours.BDMConfigurationError, AttributeError),
        (ours.CTMDatasetNotFoundError, LookupError),
    ):
        assert issubclass(mine, reference)
    with pytest.raises(AttributeError, match="positive"):
        ours.PartitionCorrelated((4,), shift=0)


MISSING = np.array([4, 1, 2, 1, 5, 4, 0, 5, 1, 8, 4, 2])


def test_missing_blocks_are_warned_of():
    method = BDM(1, 9)
    with pytest.warns(ours.BDMRuntimeWarning, match="does not contain object '412154051842' of"):
        value = method.bdm(MISSING)
    assert value == pytest.approx(53.897870350)
    with pytest.warns(ours.BDMRuntimeWarning, match="nor 1 others"):
        method.bdm(np.concatenate([MISSING, MISSING[::-1]]))
    with pytest.warns(ours.BDMRuntimeWarning):
        method.decompose_and_count(MISSING)
    with pytest.warns(ours.BDMRuntimeWarning):
        list(method.lookup([MISSING]))


def test_options_hold_everywhere():
    assert options.get() == {"warn_if_missing_ctm": True, "raise_if_zero": True}
    try:
        options.set(warn_if_missing_ctm=False, raise_if_zero=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            BDM(1, 9).bdm(MISSING)
        assert BDM(1).bdm(np.array([0, 1])) == 0
    finally:
        options.set(warn_if_missing_ctm=True, raise_if_zero=True)
    assert BDM(1, raise_if_zero=False).bdm(np.array([0, 1])) == 0
    with pytest.raises(KeyError, match="there is no 'colour' option"):
        options.get("colour")


def test_without_pybdms_files_the_way_out_is_named(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    with pytest.raises(ours.CTMDatasetNotFoundError, match=r"pip install --no-deps pybdm==0\.1\.0"):
        tables.load_table.__wrapped__("CTM-B4-D12")
    assert tables.load_table.__wrapped__("CTM-B2-D12").complexity(1, "0") is not None


def test_tables_as_dictionaries():
    for name in ("CTM-B2-D12", "CTM-B2-D4x4"):
        entries, missing = pybdm.utils.get_ctm_dataset(name)
        # pybdm's dictionary grows by an empty entry for every shape it was asked for in vain.
        entries = {shape: values for shape, values in entries.items() if values}
        assert ours.utils.get_ctm_dataset(name) == (entries, missing)
    assert ours.utils.list_ctm_datasets() == pybdm.utils.list_ctm_datasets()
    with pytest.raises(ValueError, match="There is no X CTM dataset"):
        ours.utils.get_ctm_dataset("X")


def test_encoding():
    encoding = ours.encoding
    # pybdm 0.1.0 fails here on current numpy.
    assert encoding.encode_sequence(np.array([1, 0, 0])) == 4
    assert encoding.encode_array(np.array([[1, 0], [2, 3]]), base=4) == 75
    for code, base in ((0, 2), (4, 2), (75, 4), (10**20, 9)):
        expected = pybdm.encoding.decode_sequence(code, base, min_length=5)
        assert np.array_equal(encoding.decode_sequence(code, base, min_length=5), expected)
    assert np.array_equal(encoding.decode_array(75, (2, 2), 4), [[1, 0], [2, 3]])
    for key in ("40524", "123", "0", ""):
        assert encoding.normalize_key(key) == pybdm.encoding.normalize_key(key)
    array = np.array([[3, 1], [1, 0]])
    expected = pybdm.encoding.normalize_array(array)
    assert np.array_equal(encoding.normalize_array(array), expected)
    for bad, error in (
        (np.ones((2, 2), int), AttributeError),
        (np.ones(2), TypeError),
        (np.array([-1]), ValueError),
        (np.array([2]), ValueError),
    ):
        with pytest.raises(error):
            encoding.encode_sequence(bad)
    with pytest.raises(ValueError, match="does not encode"):
        encoding.decode_array(16, (2, 2))


def test_a_counter_of_blocks_is_plain():
    counter = BDM(ndim=1).decompose_and_count(np.ones(12, int))
    assert isinstance(counter, Counter)
    assert counter == {("111111111111", 25.610413747641715): 1}
