"""Archives are what docs/format.md says: a reader written from it alone reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from momos_rs import packing
from momos_rs.archive import open_archive, streams
from momos_rs.checkpoint import Checkpoint
from support.models import checkpoint_of, fields_model, small_model
from support.reference_reader import read_archive


def laplacian(shape: tuple[int, ...], dtype: str, zeros: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(7)
    values = rng.laplace(0, 0.1, shape) * rng.choice([0.3, 1, 3], (shape[0], 1))
    values[rng.random(shape) < zeros] = 0
    return np.asarray(values.astype(dtype))


def check(model: Checkpoint, **options: Any) -> set[str]:
    """Packs, reads with both readers; the codecs that were used."""
    archive = packing.pack(model, **options)
    found = read_archive(archive)
    with open_archive(archive) as opened:
        assert list(found) == list(opened)
        for entry in opened.document.entries:
            assert found[entry.name] == opened.read_base(entry.base).tobytes(), entry.name
        return {opened.codec(index) for index in range(len(opened.document.bases))}


@pytest.mark.parametrize("effort", ["fast", "default"])
@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0.2},
        {"capacity": 0.2, "motif_dtype": "float16"},
        {"capacity": 0.2, "motif_dtype": "bfloat16"},
        {"capacity": 0.2, "motif_dtype": "float32", "method": "random"},
        {"motifs": 9, "all_parameters": True, "block_size": 3},
        {"capacity": 1.0},
        {"lossless": True},
    ],
    ids=str,
)
def test_small_archives(effort: str, options: dict[str, Any]) -> None:
    check(small_model(), effort=effort, **options)


@pytest.mark.parametrize("zeros", [0.0, 0.95])
def test_chunks_of_several_lanes(zeros: float) -> None:
    model = checkpoint_of({"weight": laplacian((331, 101), "f4", zeros)})
    used = check(model, block_size=2, capacity=0.03, iterations=1)
    assert used == {"contexts"}


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_modelled_floats(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "choose_codec", lambda *_, **__: 4)
    model = checkpoint_of({"weight": laplacian((90, 70), dtype)})
    assert check(model, lossless=True) == {"floats"}


def test_fields() -> None:
    used = check(fields_model(), lossless=True)
    assert "fields" in used
    assert used <= {"fields", "floats", "planes", "zstd"}


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i4", "i1", "u2"])
@pytest.mark.parametrize("elements", [1, 70, 4095, 4096, 9001])
def test_fields_of_any_length(dtype: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "choose_codec", lambda *_, **__: 5)
    values = laplacian((elements, 1), "f8").reshape(-1)
    if dtype[0] != "f":
        values = np.abs(values * 100) if dtype == "u2" else values * 100
    check(checkpoint_of({"weight": values.astype(dtype)}), lossless=True)
