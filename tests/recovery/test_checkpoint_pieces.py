"""Bases that are read piece by piece: the same bytes, and no page kept longer than it is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from momos_rs import checkpoint
from momos_rs.checkpoint.mapped_file import MappedFile, MappedPart
from momos_rs.checkpoint.model import PIECE_ELEMENTS, Base, cuts

PIECE = 1 << 20


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    wide = torch.randn(1000, 1500)
    return {
        "large": torch.randn(700, 1031),
        "tied": wide,
        "row": wide[3:5],
        "transposed": torch.randn(30, 40).t(),
        "half": torch.randn(300_001).bfloat16(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }


@pytest.mark.parametrize("kind", ["safetensors", "torch", "memory"])
def test_pieces_join_to_the_whole(kind: str, tmp_path: Path) -> None:
    model = checkpoint.from_state_dict(_state())
    if kind != "memory":
        path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
        checkpoint.write(path, model)
        model = checkpoint.read(path)
    for base in model.bases:
        pieces = list(base.pieces(PIECE))
        joined = np.concatenate([np.empty(0, np.uint8), *pieces])
        assert np.array_equal(joined, base.read())
        assert all(piece.nbytes <= PIECE for piece in pieces)
        middle = base.numel // 3
        itemsize = base.nbytes // max(base.numel, 1)
        assert np.array_equal(base.part(middle, base.numel), base.read()[middle * itemsize :])


def test_a_base_without_parts_is_cut_anyway() -> None:
    data = np.arange(3 * PIECE_ELEMENTS + 5, dtype=np.uint8)
    base = Base("U8", data.size, lambda: data)
    pieces = list(base.pieces(1))
    assert [piece.size for piece in pieces] == [*[PIECE_ELEMENTS] * 3, 5]
    assert np.array_equal(np.concatenate(pieces), data)


def test_cuts_keep_what_is_decoded_together() -> None:
    chunk = 3 * PIECE_ELEMENTS // 2
    whole = list(cuts(10**7, 1, 4 * PIECE_ELEMENTS, chunk=chunk))
    assert {(stop - start) % chunk for start, stop in whole[:-1]} == {0}
    small = list(cuts(10**7, 1, PIECE_ELEMENTS, chunk=chunk))
    assert small[0] == (0, PIECE_ELEMENTS)
    assert small[-1][1] == whole[-1][1] == 10**7


def test_tensors_of_torch_files_are_read_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a model.pt"
    torch.save({"weights": _state()}, path)
    kinds = {
        entry.name: type(model.bases[entry.base].read).__name__
        for model in [checkpoint.read(path)]
        for entry in model.entries
    }
    assert kinds["large"] == kinds["tied"] == kinds["row"] == kinds["half"] == "MappedPart"
    assert kinds["transposed"] == "_StridedPart"


def test_parts_of_a_file_outlive_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 64)
    file = MappedFile(path)
    part = MappedPart(file, 5000, 100, 2)
    data = part.part(10, 20)
    file.close()
    file.close()
    assert data.tobytes() == path.read_bytes()[5020:5040]
    with pytest.raises(ValueError, match="closed"):
        part()
