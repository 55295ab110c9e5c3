"""Quantised bit-planes against the published definition computed with torch and pybdm."""

import warnings

import numpy as np
import pytest
import torch

from momos_rs.complexity.bit_planes import matrix_columns, qubd
from momos_rs.errors import InvalidArgumentError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pybdm

BDM_2D = pybdm.BDM(ndim=2)


def published_planes(tensor, bits, robust=False, percentile=99.9):
    """The bit-planes of a tensor by the published definition, in torch's arithmetic."""
    matrix = tensor.flatten(1)
    if min(matrix.shape) < 4:
        return None
    if robust:
        q = (1.0 - percentile / 100.0) / 2.0
        flat = matrix.reshape(-1).float()
        low, high = torch.quantile(flat, q), torch.quantile(flat, 1.0 - q)
    else:
        low, high = matrix.min(), matrix.max()
    if high - low < 1e-8:
        levels = torch.zeros_like(matrix)
    else:
        step = (high - low) / (2**bits - 1)
        levels = torch.clamp(torch.round((matrix - low) / step), 0, 2**bits - 1)
    return [
        (torch.div(levels, 2**plane, rounding_mode="floor") % 2).numpy().astype(int)
        for plane in range(bits)
    ]


def published_manifold(planes):
    bits = len(planes)
    down, across = {4: (2, 2), 8: (4, 2), 2: (2, 1)}.get(bits, (bits, 1))
    rows, columns = planes[0].shape
    tiled = np.zeros((rows * down, columns * across), int)
    for row in range(down):
        for column in range(across):
            tiled[row::down, column::across] = planes[row * across + column]
    return tiled


def check(tensors, bits, **options):
    expected = np.zeros(bits)
    manifold = 0.0
    for tensor in tensors.values():
        planes = published_planes(tensor, bits, **options) if tensor.dim() > 1 else None
        if planes is not None:
            expected += [BDM_2D.bdm(plane) for plane in planes]
            manifold += BDM_2D.bdm(published_manifold(planes))
    found = qubd(tensors, bits=bits, tiled=True, **options)
    np.testing.assert_allclose(found.planes, expected, rtol=1e-12)
    assert found.tiled is not None
    np.testing.assert_allclose(found.tiled, manifold, rtol=1e-12)
    return found


@pytest.mark.parametrize("bits", range(1, 17))
def test_random_tensors_at_every_depth(bits):
    torch.manual_seed(bits)
    check({"a": torch.randn(19, 23), "b": torch.randn(8, 3, 3, 3) * 0.01}, bits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("percentile", [99.9, 95.0, 100.0])
def test_ranges_of_every_kind(dtype, robust, percentile):
    torch.manual_seed(3)
    tensors = {"heavy": torch.randn(40, 61, dtype=dtype) ** 3, "small": torch.randn(4, 4)}
    check(tensors, 8, robust=robust, percentile=percentile)


def test_tensors_without_a_whole_block_are_skipped_and_named():
    tensors = {
        "vector": torch.randn(100),
        "flat": torch.randn(3, 100),
        "thin": torch.randn(100, 3),
        "fine": torch.randn(5, 2, 2),
    }
    found = check(tensors, 4)
    assert found.measured == ("fine",)
    assert [each.name for each in found.skipped] == ["vector", "flat", "thin"]
    assert list(found) == list(found.planes)
    assert len(found) == 4
    assert found[0] == found.planes[0]


def test_a_constant_tensor_has_zero_planes():
    found = check({"constant": torch.full((8, 8), 0.25)}, 8)
    assert len(set(found.planes)) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened_first(dtype):
    torch.manual_seed(0)
    narrow = torch.randn(20, 33).to(dtype)
    assert qubd(narrow) == qubd(narrow.float())


def test_a_real_layer():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.squeezenet1_1()
    weights = {name: value for name, value in model.state_dict().items() if "squeeze" in name}
    found = check(weights, 8)
    assert len(found.measured) == 8


def test_values_that_cannot_be_quantised_are_named():
    with pytest.raises(InvalidArgumentError, match=r"'bad' has NaN or infinite"):
        qubd({"bad": torch.full((4, 4), float("nan"))})
    with pytest.raises(InvalidArgumentError, match="bits must be between 1 and 16"):
        qubd(torch.randn(4, 4), bits=17)
    with pytest.raises(InvalidArgumentError, match="percentile"):
        qubd(torch.randn(4, 4), robust=True, percentile=0.0)


def test_threads_do_not_change_the_result():
    torch.manual_seed(1)
    tensor = torch.randn(300, 700)
    assert qubd(tensor, tiled=True, threads=1) == qubd(tensor, tiled=True, threads=3)


def test_quantiles_have_no_limit_of_size():
    # torch.quantile refuses more than 16 million elements.
    tensor = torch.linspace(-1, 1, 17_000_000).reshape(4250, 4000)
    found = qubd(tensor, bits=1, robust=True)
    assert found.measured == ("weights",)


@pytest.mark.parametrize(
    ("shape", "columns"),
    [((4, 4), 4), ((8, 3, 3, 3), 27), ((3, 9), None), ((9, 3), None), ((16,), None), ((), None)],
)
def test_matrices(shape, columns):
    assert matrix_columns(shape) == columns
