"""Tensors of an archive decode in parts to the same bytes as in one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import momos_rs
from momos_rs import _core
from momos_rs.archive import open_archive
from momos_rs.archive.document import BaseRecord
from momos_rs.archive.parts import open_parts
from momos_rs.checkpoint.model import PIECE_ELEMENTS
from momos_rs.errors import CorruptionError


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    large = rng.standard_normal((1300, 1001)).astype(np.float32)
    return {
        "large": large,
        "copy": large.copy(),
        "odd": rng.standard_normal(3 * PIECE_ELEMENTS + 7).astype(np.float16),
        "norm": rng.standard_normal(9).astype(np.float32),
        "counts": rng.integers(0, 9, (1200, 1000)),
    }


@pytest.mark.parametrize(
    "options",
    [
        {"motifs": 40, "iterations": 1, "block_size": 2},
        {"motifs": 3, "iterations": 0, "effort": "best", "block_size": 4, "exclude": ["odd"]},
        {"motifs": 90, "iterations": 0, "effort": "fast", "block_size": 3, "all_parameters": True},
        {"lossless": True},
        {"lossless": True, "effort": "fast"},
        {"method": "grid", "step": 0.8},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_parts_join_to_the_whole(
    weights: dict[str, np.ndarray[Any, Any]], options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.momos"
    path.write_bytes(momos_rs.pack(weights, **options))
    rng = np.random.default_rng(1)
    with open_archive(path) as archive:
        for base in archive.checkpoint().bases:
            whole = base.read()
            itemsize = whole.nbytes // base.numel
            for nbytes in (1, 3 << 20):
                assert np.array_equal(np.concatenate(list(base.pieces(nbytes))), whole)
            for start, stop in rng.integers(0, base.numel + 1, (6, 2)):
                part = base.part(min(start, stop), max(start, stop))
                assert np.array_equal(
                    part, whole[min(start, stop) * itemsize : max(start, stop) * itemsize]
                )


@contextlib.contextmanager
def _no_name() -> Iterator[None]:
    yield


def _no_motifs() -> NoReturn:
    raise AssertionError("a grid has no motifs")


@pytest.mark.parametrize("transposed", [False, True])
def test_grids_of_several_chunks(transposed: bool) -> None:
    rng = np.random.default_rng(2)
    rows, columns = 1100, 4096
    values = (rng.integers(-3, 4, rows * columns) * 0.5).astype(np.float32)
    geometry = _core.GridGeometry(values.size, columns, transposed=transposed, lags=())
    grid = _core.quantise_to_grid(values.view(np.uint8), "F32", geometry, 0.5)
    stream = grid.encode()
    record = BaseRecord("F32", values.size)
    parts = open_parts("grid", record, lambda: stream, _no_name, _no_motifs, lambda: 2, 1)
    whole = grid.to_bytes("F32")
    for start, stop in ((0, values.size), (4_190_000, 4_200_000), (7, 7), (9, 10)):
        assert np.array_equal(parts.read(start, stop), whole[4 * start : 4 * stop])


def test_damage_is_seen_in_any_part(
    weights: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "model.momos"
    data = bytearray(momos_rs.pack({"w": weights["large"]}, motifs=40, iterations=0))
    data[-1] ^= 1
    path.write_bytes(data)
    with open_archive(path) as archive:
        base = archive.checkpoint().bases[0]
        with pytest.raises(CorruptionError, match="'w': its digest does not match"):
            base.part(0, 4)
