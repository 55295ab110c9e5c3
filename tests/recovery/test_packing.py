"""Packing and unpacking: what is exact stays exact, what is a mosaic is a mosaic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from momos_rs import defaults, errors, packing
from momos_rs.archive import open_archive
from momos_rs.checkpoint import Checkpoint
from momos_rs.mosaic.mosaic import mosaic_bound
from support.models import base_of, checkpoint_of, same_tensors, small_model


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
        stored = [archive.document.stored(base) for base in range(len(model.bases))]
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
        report.archive_bytes
        == (tmp_path / "m.momos").stat().st_size
        == sum(report.sections.values())
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
                if archive.document.stored(entry.base) == "mosaic"
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
        {"effort": "heroic"},
        {"motif_dtype": "float8"},
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
    array: np.ndarray, block_size: int, motifs: int, method: defaults.MethodName
) -> None:
    model = checkpoint_of({"w": array})
    data = packing.pack(model, block_size=block_size, motifs=motifs, method=method)
    with open_archive(data) as archive:
        mosaic = archive.mosaic()
        if mosaic is None:
            # Tensors of two values (masks) are kept exact.
            assert array.size < block_size or len(np.unique(array.view(np.uint32))) <= 2
            return
        m, s = len(mosaic.indices), mosaic.block_size
        k = min(motifs, m)
        if mosaic.exact and len(mosaic.motifs) > k:
            # Found though not asked for: it may take up to twice the bits.
            blocks = -(-array.size // block_size)
            asked = mosaic_bound(blocks, min(motifs, blocks), block_size, 32)
            k = len(mosaic.motifs)
            assert mosaic_bound(m, k, s, 32) <= min(2 * asked, array.size * 16)
        assert len(mosaic.motifs) <= k
        sections = archive.summary.section_bytes
        bound = mosaic_bound(m, k, s, 32) / 8
        # One byte names the codec of each of the two streams, one fills up the last byte.
        assert sections["motifs"] + sections["indices"] <= bound + 3


def test_half_precision_motifs_are_stored_in_half_precision() -> None:
    rng = np.random.default_rng(0)
    model = checkpoint_of({"w": rng.standard_normal((40, 30)).astype(np.float16)})
    with open_archive(packing.pack(model, capacity=0.1, motif_dtype="float16")) as archive:
        assert archive.document.mosaic is not None
        assert archive.document.mosaic.dtype == "F16"
        assert not archive.document.mosaic.exact


def test_one_tensor_is_read_alone() -> None:
    model = small_model()
    with open_archive(packing.pack(model, motifs=9)) as archive:
        reads: list[tuple[int, int]] = []
        check = archive._check_digest

        def spy(start: int, nbytes: int, digest: str) -> None:
            reads.append((start - archive._header.data_start, nbytes))
            check(start, nbytes, digest)

        archive._check_digest = spy  # type: ignore[method-assign]
        document = archive.document
        stream_of = document.stream_of

        def place(name: str) -> tuple[int, int]:
            base = next(entry.base for entry in document.entries if entry.name == name)
            at = stream_of[base]
            return archive._starts[at], document.streams[at].nbytes

        archive["hidden.bias"]
        archive["hidden.bias"]
        archive["hidden.weight"]
        archive["embed.weight"]
        motifs = archive._header.tensors["motifs"]
        assert reads == [
            place("hidden.bias"),
            (motifs.start, motifs.nbytes),
            place("hidden.weight"),
            place("embed.weight"),
        ]
        assert place("hidden.bias") == place("norm.running_mean")


EFFORTS: list[dict[str, Any]] = [{"effort": effort} for effort in ("fast", "default", "best")]


def test_every_effort_decodes_to_the_same_tensors() -> None:
    model = small_model(3)
    results = [unpacked(packing.pack(model, capacity=0.3, **effort)) for effort in EFFORTS]
    assert same_tensors(results[0], results[1])
    assert same_tensors(results[0], results[2])


def trained(motifs: int = 40, block_size: int = 6, seed: int = 0) -> Checkpoint:
    """A model that is a mosaic, as training leaves it."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((motifs, block_size)).astype(np.float32)
    picks = rng.integers(0, motifs, 3000)
    arrays = {f"layer{i}.weight": table[picks[1000 * i :][:1000]].reshape(60, -1) for i in range(3)}
    arrays["bias"] = rng.standard_normal(7).astype(np.float32)
    return checkpoint_of(arrays)


@pytest.mark.parametrize(
    "options",
    [*EFFORTS, {"block_size": 5}, {"capacity": 0.02}, {"block_size": 32}, {"method": "random"}],
)
def test_a_trained_mosaic_is_packed_exactly_whatever_is_asked(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = trained()
    packing.save(model, tmp_path / "m.safetensors")
    report = packing.pack_file(tmp_path / "m.safetensors", **options)
    assert report.lossless
    assert (report.motifs, report.block_size, report.method) == (40, 6, "exact")
    assert any("exact mosaic of 40 motifs of 6 values" in note for note in report.notes)
    assert same_tensors(model, unpacked((tmp_path / "m.momos").read_bytes()))
    # Packing what was unpacked finds the same mosaic.
    packing.unpack_file(tmp_path / "m.momos", tmp_path / "again.safetensors")
    again = packing.pack_file(tmp_path / "again.safetensors", block_size=3)
    assert (again.motifs, again.block_size, again.lossless) == (40, 6, True)


def test_a_large_mosaic_is_found_by_its_sample() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((20_000, 3)).astype(np.float32)
    model = checkpoint_of({"w": table[rng.integers(0, 20_000, 700_000)]})
    with open_archive(packing.pack(model)) as archive:
        assert archive.document.mosaic is not None
        assert archive.document.mosaic.exact
        assert archive.document.mosaic.block_size == 3
        assert same_tensors(model, archive.checkpoint())


def test_lossless_packing_keeps_every_bit() -> None:
    for model in (small_model(), trained()):
        data = packing.pack(model, lossless=True)
        assert same_tensors(model, unpacked(data))
        with open_archive(data) as archive:
            found = archive.document.mosaic
            assert (found is not None) == (len(model.bases) == 4)
    with pytest.raises(errors.InvalidArgumentError, match="keeps every bit"):
        packing.pack(trained(), lossless=True, motif_dtype="float16")


def gaussians() -> Checkpoint:
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.01, 0.2, (500, 1))
    weight = (rng.standard_normal((500, 64)) * scales).astype(np.float32)
    return checkpoint_of({"a.weight": weight, "b.weight": weight[::-1].copy()})


def error_of(model: Checkpoint, data: bytes) -> float:
    restored = unpacked(data)
    return sum(
        float(((a.read().view("<f4").astype(float) - b.read().view("<f4")) ** 2).sum())
        for a, b in zip(model.bases, restored.bases, strict=True)
    )


@pytest.mark.parametrize("method", ["kmeans", "random"])
def test_fixed_point_motifs_add_at_most_two_percent(method: defaults.MethodName) -> None:
    model = gaussians()
    plain = packing.pack(model, capacity=0.1, method=method, motif_dtype="float32")
    fixed = packing.pack(model, capacity=0.1, method=method, motif_dtype="fixed")
    assert len(packing.pack(model, capacity=0.1, method=method)) == len(fixed)
    assert error_of(model, fixed) <= 1.02 * error_of(model, plain)
    with open_archive(plain) as a, open_archive(fixed) as b:
        assert b.summary.section_bytes["motifs"] < 0.5 * a.summary.section_bytes["motifs"]


@pytest.mark.parametrize(("name", "dtype"), [("float16", "F16"), ("bfloat16", "BF16")])
def test_motifs_of_a_type(name: defaults.MotifDtype, dtype: str) -> None:
    model = gaussians()
    data = packing.pack(model, capacity=0.1, motif_dtype=name)
    with open_archive(data) as archive:
        mosaic = archive.mosaic()
        assert mosaic is not None
        assert mosaic.dtype == dtype
        # Blocks are assigned to the rounded motifs.
        blocks = np.concatenate([b.read().view("<f4") for b in model.bases]).reshape(-1, 4)
        distances = ((blocks[:400, None] - mosaic.motifs[None]) ** 2).sum(axis=2)
        assert np.array_equal(distances.argmin(axis=1), mosaic.indices[:400])


def test_motifs_too_large_for_their_type_are_refused() -> None:
    model = checkpoint_of({"w": np.linspace(-1e6, 1e6, 640, dtype=np.float32).reshape(10, 64)})
    with pytest.raises(errors.InvalidArgumentError, match="do not fit motifs of type float16"):
        packing.pack(model, capacity=0.1, motif_dtype="float16")


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
