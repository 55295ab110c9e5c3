"""Packing and unpacking: what is exact stays exact, what is a mosaic is a mosaic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models import base_of, checkpoint_of, same_tensors, small_model
from momos_rs import errors, packing
from momos_rs.archive import open_archive
from momos_rs.checkpoint import Checkpoint
from momos_rs.mosaic import mosaic_bound


def unpacked(data: bytes) -> Checkpoint:
    """The archive's checkpoint, read while it is open."""
    return open_archive(data).checkpoint()


def test_every_block_a_motif_is_lossless() -> None:
    model = small_model()
    data = packing.pack(model, capacity=1.0)
    assert same_tensors(model, unpacked(data))
    with open_archive(data) as archive:
        assert archive.document.mosaic is not None
        assert archive.document.mosaic.exact


def test_the_rest_is_exact_and_the_mosaic_is_one() -> None:
    model = small_model()
    data = packing.pack(model, block_size=4, motifs=9)
    with open_archive(data) as archive:
        stored = [base.stored for base in archive.document.bases]
        assert stored == [
            *("mosaic", "mosaic", "exact", "exact", "exact", "exact", "copy", "mosaic", "mosaic")
        ]
        mosaic = archive.mosaic()
        assert mosaic is not None
        assert len(mosaic.motifs) <= 9
        restored = archive.checkpoint()
    for index, (base, kind) in enumerate(zip(model.bases, stored, strict=True)):
        if kind == "exact":
            assert np.array_equal(base.read(), restored.bases[index].read())
    blocks = restored.bases[0].read().view("<f4").reshape(-1, 4)
    assert all((mosaic.motifs == block).all(axis=1).any() for block in blocks)
    assert np.array_equal(restored.bases[0].read(), restored.bases[6].read())
    assert restored.entries == model.entries


def test_equal_arguments_give_equal_bytes_at_any_thread_count() -> None:
    model = small_model()
    options: dict[str, Any] = {"capacity": 0.2, "seed": 3, "iterations": 3}
    reference = packing.pack(model, threads=1, **options)
    assert packing.pack(model, threads=2, **options) == reference
    assert packing.pack(model, threads=5, **options) == reference
    assert packing.pack(model, threads=1, **{**options, "seed": 4}) != reference


def test_the_file_is_the_same_as_the_bytes(tmp_path: Path) -> None:
    model = small_model()
    packing.save(model, tmp_path / "m.momos", capacity=0.2)
    assert (tmp_path / "m.momos").read_bytes() == packing.pack(model, capacity=0.2)


def test_tensors_that_cannot_be_a_mosaic_are_exact_and_noted(tmp_path: Path) -> None:
    weight = np.ones((4, 4), np.float32)
    weight[1, 2] = np.nan
    model = checkpoint_of(
        {
            "nan.weight": weight,
            "tiny.weight": np.ones((1, 3), np.float32),
            "good.weight": np.arange(64, dtype=np.float32).reshape(8, 8),
        }
    )
    packing.save(model, tmp_path / "m.safetensors")
    report = packing.pack_file(tmp_path / "m.safetensors", capacity=0.5)
    notes = {each.names[0]: each.note for each in report.tensors}
    assert notes["nan.weight"] == "NaN or Inf at element 6"
    assert notes["tiny.weight"] == "3 elements do not fill a block"
    assert notes["good.weight"] == ""
    assert same_tensors(
        Checkpoint(model.entries[:2], model.bases[:2]),
        Checkpoint(model.entries[:2], unpacked(Path(report.archive or "").read_bytes()).bases[:2]),
    )


def test_the_report_adds_up(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"l{i}.weight": rng.standard_normal((50, 41)).astype(np.float32) for i in range(3)}
    arrays["bias"] = rng.standard_normal(50).astype(np.float32)
    model = checkpoint_of(arrays)
    packing.save(model, tmp_path / "m.safetensors")
    report = packing.pack_file(tmp_path / "m.safetensors", block_size=4, capacity=0.1)
    assert report.blocks == 3 * -(-2050 // 4)
    assert report.motifs == report.blocks // 10
    assert (
        report.bytes_out == (tmp_path / "m.momos").stat().st_size == sum(report.sections.values())
    )
    assert report.bound_bits == mosaic_bound(report.blocks, report.motifs, 4, 32)
    restored = unpacked((tmp_path / "m.momos").read_bytes())
    squares = [
        ((a.read().view("<f4").astype(float) - b.read().view("<f4")) ** 2).sum()
        for a, b in zip(model.bases, restored.bases, strict=True)
    ]
    assert report.distortion == pytest.approx(sum(squares), rel=1e-12)
    energy = sum((array.astype(float) ** 2).sum() for array in list(arrays.values())[:3])
    assert report.relative_error == pytest.approx(sum(squares) / energy, rel=1e-12)
    assert report.distortions == tuple(sorted(report.distortions, reverse=True))
    assert not report.lossless


def test_a_distortion_counts_no_padding(tmp_path: Path) -> None:
    model = checkpoint_of({"w": np.arange(1, 11, dtype=np.float32).reshape(2, 5)})
    packing.save(model, tmp_path / "m.safetensors")
    report = packing.pack_file(tmp_path / "m.safetensors", motifs=1, iterations=0, force_zero=True)
    assert report.distortion == sum(i * i for i in range(1, 11))


def test_patterns_choose_tensors() -> None:
    model = small_model()

    def members(**options: Any) -> list[str]:
        with open_archive(packing.pack(model, motifs=5, **options)) as archive:
            return [
                entry.name
                for entry in archive.document.entries
                if archive.document.bases[entry.base].stored == "mosaic"
            ]

    assert "hidden.bias" not in members()
    assert members(include=["hidden.*"]) == ["hidden.weight", "hidden.bias"]
    assert members(include=["hidden.*"], exclude=["*.bias"]) == ["hidden.weight"]
    everything = members(all_parameters=True)
    assert "hidden.bias" in everything
    assert "norm.running_mean" not in everything
    with pytest.raises(errors.InvalidArgumentError, match="'nothing'"):
        members(include=["nothing"])


def test_options_out_of_range_are_refused() -> None:
    model = small_model()
    refused: tuple[dict[str, Any], ...] = (
        {"block_size": 0},
        {"block_size": 5000, "include": ["embed*"]},
        {"capacity": 0.0},
        {"capacity": 1.5},
        {"capacity": float("nan")},
        {"motifs": 0},
        {"iterations": -1},
        {"method": "magic"},
        {"threads": 0},
        {"seed": -1},
        {"colour": "blue"},
    )
    for options in refused:
        with pytest.raises(errors.InvalidArgumentError):
            packing.pack(model, **options)


def test_a_model_without_matrices_is_exact() -> None:
    model = checkpoint_of({"b": np.arange(5, dtype=np.float32), "n": np.array(3)})
    data = packing.pack(model)
    assert same_tensors(model, unpacked(data))
    assert same_tensors(checkpoint_of({}), unpacked(packing.pack(checkpoint_of({}))))


FLOATS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=7),
    elements={"allow_nan": True, "allow_infinity": True},
)
INTEGERS = hnp.arrays(st.sampled_from([np.int64, np.uint8, np.bool_]), hnp.array_shapes(max_side=6))


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.text(max_size=6), st.one_of(FLOATS, INTEGERS), max_size=5),
    st.integers(1, 9),
)
def test_any_model_is_lossless_when_every_block_is_a_motif(
    arrays: dict[str, np.ndarray], block_size: int
) -> None:
    model = checkpoint_of(arrays)
    data = packing.pack(model, block_size=block_size, capacity=1.0, all_parameters=True)
    assert same_tensors(model, unpacked(data))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(4, 20)),
        elements=st.floats(-4, 4, width=32),
    ),
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from(["kmeans", "random"]),
)
def test_a_mosaic_has_few_motifs_and_stays_under_the_bound(
    array: np.ndarray, block_size: int, motifs: int, method: str
) -> None:
    model = checkpoint_of({"w": array})
    data = packing.pack(model, block_size=block_size, motifs=motifs, method=method)
    with open_archive(data) as archive:
        if array.size < block_size:
            return
        mosaic = archive.mosaic()
        assert mosaic is not None
        m = len(mosaic.indices)
        assert len(mosaic.motifs) <= min(motifs, m)
        sections = archive.summary.section_bytes
        bound = mosaic_bound(m, min(motifs, m), block_size, 32) / 8
        # One byte names the codec of each of the two streams, one fills up the last byte.
        assert sections["motifs"] + sections["indices"] <= bound + 3


def test_half_precision_motifs_are_stored_in_half_precision() -> None:
    rng = np.random.default_rng(0)
    model = checkpoint_of({"w": rng.standard_normal((40, 30)).astype(np.float16)})
    with open_archive(packing.pack(model, capacity=0.1)) as archive:
        assert archive.document.mosaic is not None
        assert archive.document.mosaic.dtype == "F16"
        assert not archive.document.mosaic.exact


def test_one_tensor_is_read_alone() -> None:
    model = small_model()
    with open_archive(packing.pack(model, motifs=9)) as archive:
        reads: list[str] = []
        section = archive._section
        archive._section = lambda name, digest: reads.append(name) or section(name, digest)  # type: ignore[method-assign, func-returns-value]
        archive["hidden.bias"]
        archive["hidden.weight"]
        archive["embed.weight"]
        assert reads == ["exact/2", "indices/1", "motifs", "indices/0"]


def test_scalars_of_every_type_are_carried() -> None:
    from momos_rs.dtypes import DTYPES

    rng = np.random.default_rng(0)
    bases = []
    for kind in DTYPES.values():
        bases.append(base_of(rng.integers(0, 256, 24 * kind.itemsize, dtype=np.uint8), kind.name))
    from momos_rs.checkpoint import Entry

    model = Checkpoint(
        entries=tuple(Entry(f"t{i}", (24,), i) for i in range(len(bases))), bases=tuple(bases)
    )
    assert same_tensors(model, unpacked(packing.pack(model)))
