"""Small models for tests, without torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from momos_rs.checkpoint import Base, Checkpoint, Entry
from momos_rs.dtypes import DTYPES
from momos_rs.mosaic.calibration import Calibration, LayerInputs, Moments

_NAMES = {np.dtype(each.numpy): each.name for each in DTYPES.values() if each.numpy}


def checkpoint_of(arrays: Mapping[str, npt.NDArray[np.generic]]) -> Checkpoint:
    """A checkpoint with one base per array."""
    return Checkpoint(
        entries=tuple(
            Entry(name, array.shape, i) for i, (name, array) in enumerate(arrays.items())
        ),
        bases=tuple(base_of(array, _NAMES[array.dtype]) for array in arrays.values()),
    )


def base_of(array: npt.NDArray[np.generic], dtype: str) -> Base:
    """An array's elements as a base."""
    data = np.frombuffer(array.tobytes(), np.uint8)
    return Base(dtype, data.size // DTYPES[dtype].itemsize, lambda: data)


def bfloat16_base(array: npt.NDArray[np.float32]) -> Base:
    """The upper halves of float32 values, which are bfloat16 values."""
    return base_of((array.view(np.uint32) >> 16).astype(np.uint16), "BF16")


def fields_model() -> Checkpoint:
    """Tensors of the types that are cut into fields, long enough to have many states and classes.

    Only integers and exact arithmetic make them, so they are the same everywhere.
    """
    rng = np.random.default_rng(11)
    sums = rng.integers(-64, 65, (6, 96, 120)).sum(axis=0)
    scales = 2.0 ** -rng.integers(6, 12, (96, 1))
    weight = (sums * scales).astype(np.float32) * np.float32(1.1)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "single": weight,
        "half": weight.astype(np.float16),
        "widened": weight.astype(np.float16).astype(np.float32),
        "double": weight.astype(np.float64),
        "signed": rng.integers(-9, 10, (50, 100)).astype(np.int32),
        "bytes": rng.integers(-9, 10, (50, 100)).astype(np.int8),
        "nibbles": (rng.integers(3, 7, 5000) * 16 + rng.integers(3, 7, 5000)).astype(np.uint8),
        "few": rng.integers(0, 3, 700).astype(np.int64),
    }
    plain = checkpoint_of(arrays)
    entry = Entry("brain", weight.shape, len(plain.bases))
    return Checkpoint(entries=(*plain.entries, entry), bases=(*plain.bases, bfloat16_base(weight)))


def small_model(seed: int = 0) -> Checkpoint:
    """Matrices, a bias, integers, a scalar, an empty tensor, a tie, a view and a copy."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((12, 10)).astype(np.float32)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "embed.weight": weight,
        "hidden.weight": rng.standard_normal((7, 9)).astype(np.float32),
        "hidden.bias": rng.standard_normal(7).astype(np.float32),
        "norm.running_mean": rng.standard_normal(7).astype(np.float32),
        "norm.num_batches_tracked": np.array(5, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "copy.weight": weight.copy(),
        "half.weight": rng.standard_normal((5, 6)).astype(np.float16),
    }
    plain = checkpoint_of(arrays)
    brain = rng.standard_normal((4, 8)).astype(np.float32)
    entries = (
        *plain.entries,
        Entry("brain.weight", (4, 8), len(plain.bases)),
        Entry("head.weight", (12, 10), 0),
        Entry("head.transposed", (10, 12), 0, 0, (1, 10)),
    )
    return Checkpoint(entries=entries, bases=(*plain.bases, bfloat16_base(brain)))


def same_tensors(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether two checkpoints hold the same tensors bit for bit, tied alike."""
    return a.entries == b.entries and all(
        (x.dtype, x.numel) == (y.dtype, y.numel) and np.array_equal(x.read(), y.read())
        for x, y in zip(a.bases, b.bases, strict=True)
    )


def small_calibration() -> Calibration:
    """A calibration of :func:`small_model`: uneven uses, and inputs of very different scales."""
    rng = np.random.default_rng(1)
    inputs = (rng.standard_normal((400, 9)) @ rng.standard_normal((9, 9))) * 4.0 ** -np.arange(9)
    return Calibration(
        "small",
        400,
        {
            "embed.weight": LayerInputs("Embedding", (12, 10), ("embed.weight",), rows=True),
            "hidden.weight": LayerInputs("Linear", (7, 9), ("hidden.weight",)),
        },
        {
            "embed.weight": Moments(
                (4.0 ** np.arange(12, dtype=np.float64))[None], 22_369_621 // 4
            ),
            "hidden.weight": Moments((inputs.T @ inputs)[None].astype(np.float64), 400),
        },
        {"embed.weight": np.full(12, 0.5), "hidden.weight": np.arange(1.0, 8.0)},
    )
