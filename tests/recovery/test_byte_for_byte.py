"""Lossless archives of safetensors files give the same files back, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import momos_rs
from momos_rs.archive import open_archive
from momos_rs.errors import CorruptionError


def file_of(path: Path, header: Mapping[str, Any], data: bytes, *, padding: bytes = b"") -> Path:
    """A safetensors file with a header as some program may have written it."""
    text = json.dumps(header, ensure_ascii=True, indent=1).encode() + padding
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"data_offsets": [start, stop], "dtype": dtype, "shape": shape}


@pytest.fixture
def odd_file(tmp_path: Path) -> Path:
    """Order of the data unlike that of the keys, metadata last, odd spaces, unaligned tensors."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((40, 30)).astype("<f4").tobytes()
    header = {
        "z.weight": tensor("F32", [40, 30], 3, 4803),
        "a.ids": tensor("U8", [3], 0, 3),
        "\u00e9mpty": tensor("F16", [0, 4], 4803, 4803),
        "again": tensor("F32", [30, 40], 4803, 9603),
        "__metadata__": {"b": "1", "a": "\u2713"},
    }
    data = b"\x01\x02\x03" + weight + weight
    return file_of(tmp_path / "model.safetensors", header, data, padding=b" " * 13)


def go_round(path: Path, **options: Any) -> bytes:
    archive = path.with_suffix(".momos")
    momos_rs.pack_file(path, archive, overwrite=True, **options)
    target = path.with_name("restored.safetensors")
    momos_rs.unpack_file(archive, target, overwrite=True)
    return target.read_bytes()


def test_an_odd_file_comes_back(odd_file: Path) -> None:
    assert go_round(odd_file, lossless=True) == odd_file.read_bytes()


def test_a_file_of_the_reference_writer_comes_back(tmp_path: Path) -> None:
    numpy_files = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(1)
    path = tmp_path / "model.safetensors"
    tensors = {"b": rng.standard_normal((9, 5)).astype("f2"), "a": np.arange(7), "c": np.ones(2)}
    for metadata in (None, {"format": "pt"}, {"format": "np", "step": "3"}):
        numpy_files.save_file(tensors, str(path), metadata=metadata)
        assert go_round(path, lossless=True) == path.read_bytes(), metadata


def test_only_exact_tensors_keep_the_header(odd_file: Path) -> None:
    archive = odd_file.with_suffix(".momos")
    momos_rs.pack_file(odd_file, archive, capacity=0.05)
    with open_archive(archive) as opened:
        assert not opened.document.header


def test_the_header_of_other_tensors_is_refused(odd_file: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from momos_rs import checkpoint

    model = checkpoint.read(odd_file)
    target = tmp_path / "other.safetensors"
    for header in (
        b"{}",
        b"[]",
        model.header.replace(b"z.weight", b"z.height"),
        model.header.replace(b"9603", b"9604"),
        model.header.replace(b"U8", b"I8"),
        model.header.replace(b"40,", b"41,"),
    ):
        with pytest.raises(CorruptionError):
            checkpoint.write(target, replace(model, header=header))
        assert not target.exists()
