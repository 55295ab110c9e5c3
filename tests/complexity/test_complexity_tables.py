"""The compiled-in tables and what is counted with them, against pybdm."""

import warnings
from itertools import product

import numpy as np
import pytest

from momos_rs import _core

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pybdm
    from pybdm.utils import get_ctm_dataset


def key_of(string: str) -> int:
    return sum(int(symbol) << index for index, symbol in enumerate(string))


@pytest.mark.parametrize("length", range(1, 13))
def test_every_string_has_pybdms_complexity(length):
    table, _ = get_ctm_dataset("CTM-B2-D12")
    ours = _core.ctm_strings(length)
    assert ours.shape == (2**length,)
    for symbols in product("01", repeat=length):
        string = "".join(symbols)
        normal = string if string[0] == "0" else string.translate(str.maketrans("01", "10"))
        assert ours[key_of(string)] == table[(length,)][normal]


@pytest.mark.parametrize("width", range(1, 5))
def test_every_square_has_pybdms_complexity(width):
    table, _ = get_ctm_dataset("CTM-B2-D4x4")
    entries = table[width, width]
    ours = _core.ctm_squares(width)
    assert ours.shape == (2 ** (width * width),)
    assert len(entries) == len(ours) // 2
    for string, value in entries.items():
        key = key_of(string)
        assert ours[key] == value
        assert ours[len(ours) - 1 - key] == value


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2"])
@pytest.mark.parametrize("n", [12, 13, 1000, 123_457])
def test_bdm_of_signs_is_pybdms(dtype, n):
    weights = np.random.default_rng(n).normal(size=n).astype(dtype)
    weights[::7] = 0.0
    weights[1::11] = -0.0
    weights[3::17] = np.nan
    name = {"<f4": "F32", "<f8": "F64", "<f2": "F16"}[dtype]
    counter = _core.SignCounter()
    for part in np.array_split(weights, [n // 3, n // 2]):
        counter.update(part.view(np.uint8), name)
    reference = pybdm.BDM(ndim=1)
    bits = (weights > 0).astype(int)
    bdm = _core.bdm_of_counts(counter.counts(), _core.ctm_strings(12))
    _, _, entropy, _ = _core.block_entropy(counter.counts())
    assert bdm == pytest.approx(reference.bdm(bits), rel=1e-12)
    assert entropy == pytest.approx(reference.ent(bits), rel=1e-9, abs=1e-12)


def test_shapes_without_a_table_are_refused():
    with pytest.raises(ValueError, match="only of 1 to 12"):
        _core.ctm_strings(13)
    with pytest.raises(ValueError, match="only of 1 to 4"):
        _core.ctm_squares(0)
