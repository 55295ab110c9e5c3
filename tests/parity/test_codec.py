"""The codec: equal bytes everywhere, few of them, and nothing lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import _core, defaults, packing
from momos_rs.archive import open_archive
from momos_rs.archive.motifs import decode_motifs, encode_motifs
from momos_rs.archive.streams import decode_stream, encode_stream
from momos_rs.limits import ELEMENTS_PER_CHUNK
from support.models import checkpoint_of, same_tensors, small_model


def noise(count: int, seed: int = 1) -> np.ndarray:
    """Integers below 2^32 by a linear congruential generator, the same everywhere."""
    state = np.uint64(seed)
    out = np.empty(count, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(count):
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            out[i] = state >> np.uint64(32)
    return out


def example() -> tuple[np.ndarray, np.ndarray]:
    """A sorted table of 500 motifs of 2 values, and the places of 3,000 blocks."""
    values = noise(1000).astype(np.float64) / 2.0**32
    table = ((values**3 - 0.25) * 8).reshape(500, 2).astype(np.float32)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    scales = np.repeat(noise(100, 2) % 400 + 100, 30)
    return table, (noise(3000, 3) % scales).astype(np.uint32)


def as_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


GOLDEN = {
    "contexts": "aeff2113222019a4",
    "contexts in lanes": "bf4b8aa9cc2b5922",
    "mixing": "90662faae7e2500f",
    "motif floats": "a0a19be2f0d38f88",
    "motif grid": "67339f21942670a8",
    "floats": "e0b5944f709b3c84",
}


def in_lanes(places: np.ndarray) -> np.ndarray:
    """Enough blocks for a chunk of several lanes, the last of which is longer."""
    return np.tile(places, 7)[:20_003]


def golden_streams() -> dict[str, np.ndarray]:
    table, places = example()
    tree = _core.MotifTree(as_bytes(table), 2, "F32")
    grid = (np.rint(table * 64) / 64).astype(np.float32)
    modelled, planes = _core.encode_floats(as_bytes(table), 4)
    return {
        "contexts": tree.encode(places),
        "contexts in lanes": tree.encode(in_lanes(places)),
        "mixing": tree.encode(places, row_blocks=30, effort="best"),
        "motif floats": _core.encode_motifs(as_bytes(table), 2, "F32", 500),
        "motif grid": _core.encode_motifs(as_bytes(grid), 2, "F32", 500, step=1 / 64),
        "floats": np.concatenate([modelled, planes]),
    }


def test_streams_are_the_same_bytes_on_every_machine() -> None:
    digests = {name: _core.digest(stream)[:16] for name, stream in golden_streams().items()}
    assert digests == GOLDEN


def test_golden_streams_decode() -> None:
    table, places = example()
    streams = golden_streams()
    tree = _core.MotifTree(as_bytes(table), 2, "F32")
    assert sorted(tree.rows.tolist()) == list(range(500))
    for name in ("contexts", "mixing"):
        assert np.array_equal(tree.decode(streams[name], 3000), places)
    lanes = in_lanes(places)
    assert np.array_equal(tree.decode(streams["contexts in lanes"], lanes.size), lanes)
    decoded = _core.decode_motifs(streams["motif floats"], 2, "F32", 500)
    assert np.array_equal(decoded, as_bytes(table))
    grid = _core.decode_motifs(streams["motif grid"], 2, "F32", 500).view("<f4")
    assert np.array_equal(grid, (np.rint(table * 64) / 64).reshape(-1))


@pytest.mark.parametrize("effort", defaults.EFFORTS)
def test_equal_bytes_at_any_thread_count(effort: str) -> None:
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((700, 900)) * rng.uniform(0.1, 1, (700, 1))).astype(np.float32)
    model = checkpoint_of({"w": weights, "b": weights[0]})
    options: dict[str, Any] = {"capacity": 0.02, "iterations": 1, "effort": effort}
    reference = packing.pack(model, threads=1, **options)
    assert packing.pack(model, threads=2, **options) == reference
    assert packing.pack(model, threads=5, **options) == reference


def test_better_efforts_take_fewer_bytes() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((48, 480)) / 7
    weights = rng.standard_normal((800, 48)) @ mixing * rng.uniform(0.02, 1, (800, 1))
    model = checkpoint_of({"w": weights.astype(np.float32)})
    sizes = []
    for effort in defaults.EFFORTS:
        data = packing.pack(model, capacity=0.02, motif_dtype="float32", effort=effort)
        with open_archive(data) as archive:
            sizes.append(archive.summary.section_bytes["indices"])
            expected = {"fast": "prefix code", "default": "contexts", "best": "mixing"}
            assert archive.codec(0) == expected[effort]
    assert sizes[1] < 0.98 * sizes[0]
    assert sizes[2] < 0.95 * sizes[1]


def test_the_zero_block_of_a_pruned_model_is_cheap() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2000, 64)).astype(np.float32)
    weights.reshape(-1, 4)[rng.random(32_000) < 0.9] = 0
    model = checkpoint_of({"w": weights})
    data = packing.pack(model, capacity=0.05)
    with open_archive(data) as archive:
        mosaic = archive.mosaic()
        assert mosaic is not None
        counts = mosaic.counts()
        shares = counts[counts > 0] / counts.sum()
        entropy = -(shares * np.log2(shares)).sum() * len(mosaic.indices) / 8
        assert archive.summary.section_bytes["indices"] < 1.15 * entropy


def test_many_small_tensors_take_few_bytes_each() -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for layer in range(200):
        arrays[f"layers.{layer}.weight"] = rng.standard_normal((8, 8)).astype(np.float32)
        arrays[f"layers.{layer}.bias"] = rng.standard_normal(8).astype(np.float32)
    model = checkpoint_of(arrays)
    data = packing.pack(model, capacity=0.1)
    with open_archive(data) as archive:
        sizes = archive.summary.section_bytes
        overhead = sizes["header"] + sizes["document"]
        assert overhead < 30 * len(arrays)
        assert sizes["exact"] < 200 * 8 * 4
        # A base alone, or among its neighbours, is the same.
        for base in (1, 399, 3, 1):
            assert np.array_equal(archive.read_base(base), model.bases[base].read())
    with open_archive(packing.pack(model, lossless=True)) as archive:
        assert same_tensors(model, archive.checkpoint())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_elements_survive_a_stream(data: st.DataObject) -> None:
    itemsize = data.draw(st.sampled_from([1, 2, 4, 8, 16]))
    raw = data.draw(st.binary(max_size=400))
    elements = np.frombuffer(raw[: len(raw) // itemsize * itemsize] * 3, np.uint8)
    effort = data.draw(st.sampled_from(defaults.EFFORTS))
    floating = data.draw(st.booleans()) and itemsize < 16
    stream = encode_stream(elements, itemsize, floating=floating, effort=effort)
    assert len(stream) <= elements.size + 1
    decoded = decode_stream(np.frombuffer(stream, np.uint8), elements.size, itemsize)
    assert np.array_equal(decoded, elements)


def test_floats_of_several_chunks_survive_and_shrink() -> None:
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal(ELEMENTS_PER_CHUNK + 1000) * 0.02).astype(np.float32)
    for array, share in ((weights, 0.87), (weights.astype(np.float16), 0.93)):
        data = as_bytes(array)
        stream = encode_stream(data, array.itemsize, floating=True)
        assert stream[0] == 5
        assert len(stream) < share * data.size
        decoded = decode_stream(np.frombuffer(stream, np.uint8), data.size, array.itemsize)
        assert np.array_equal(decoded, data)


def test_motifs_survive_in_any_order_and_type() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((300, 3))
    for name, kind in (("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2")):
        data = as_bytes(table.astype(kind))
        for effort in defaults.EFFORTS:
            stream = np.frombuffer(encode_motifs(data, 3, name, effort=effort), np.uint8)
            assert stream.size <= data.size + 1
            assert np.array_equal(decode_motifs(stream, 3, name, 300), data)


def test_the_codec_is_told() -> None:
    from momos_rs.archive.description import describe

    with open_archive(packing.pack(small_model(), motifs=9)) as archive:
        codecs = {each.name: each.codec for each in describe(archive).tensors}
    assert codecs["embed.weight"] in ("contexts", "fixed width")
    assert codecs["copy.weight"] == codecs["embed.weight"]
    assert codecs["hidden.bias"] in ("stored", "floats", "fields")
