"""Blocks as a stream: whatever the memory, the archive is the same."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import _core, defaults, errors, packing
from momos_rs.archive import writer
from momos_rs.checkpoint import Base, Checkpoint, Entry
from momos_rs.mosaic.block_stream import Blocks, Sample, batch_bounds
from momos_rs.mosaic.build import build_mosaic
from momos_rs.mosaic.mosaic import compare_with_mosaic
from momos_rs.runtime.resources import (
    BLOCKS_PER_BATCH,
    BlockPlan,
    Resources,
    memory_budget,
    new_indices,
    release,
)
from momos_rs.runtime.team import shares
from support.models import base_of, bfloat16_base, checkpoint_of, small_model

PLANS = {
    "nothing is kept": BlockPlan(BLOCKS_PER_BATCH, keep=False, indices_in_memory=False),
    "indices are kept": BlockPlan(2 * BLOCKS_PER_BATCH, keep=False, indices_in_memory=True),
    "blocks are kept": BlockPlan(BLOCKS_PER_BATCH, keep=True, indices_in_memory=True),
}


@pytest.fixture(params=list(PLANS))
def plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BlockPlan:
    """Forces a plan, and streams to be coded in pieces."""
    chosen = PLANS[request.param]
    monkeypatch.setattr(Resources, "plan", lambda *_args, **_options: chosen)
    monkeypatch.setattr(writer, "_BLOCKS_PER_PIECE", 1 << 14)
    monkeypatch.setattr(writer, "ELEMENTS_PER_PIECE", 1 << 20)
    return chosen


def heavy(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float, kind: Any = np.float32
) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = (rng.standard_t(4, size=shape) * scale).astype(kind)
    return values


def models() -> Iterator[tuple[str, Checkpoint, dict[str, Any]]]:
    """Models of more blocks than a chunk, with tensors much smaller and much larger than one."""
    rng = np.random.default_rng(3)
    yield (
        "float32",
        checkpoint_of(
            {
                "large.weight": heavy(rng, (500, 301), 0.02),
                "large.bias": heavy(rng, (500,), 0.1),
                **{f"small.{i}": heavy(rng, (7, 3 + i), 0.3) for i in range(30)},
                "other.weight": heavy(rng, (333, 77), 0.2),
            }
        ),
        {"block_size": 1, "motifs": 300, "iterations": 3},
    )
    yield (
        "float64",
        checkpoint_of({f"{i}.weight": heavy(rng, (400, 251), 0.1, np.float64) for i in range(3)}),
        {"block_size": 2, "capacity": 0.01, "iterations": 2, "effort": "best"},
    )
    brain = [bfloat16_base(heavy(rng, (300, 701), 0.05)) for _ in range(2)]
    yield (
        "bfloat16",
        Checkpoint(tuple(Entry(f"{i}", (300, 701), i) for i in range(2)), tuple(brain)),
        {"block_size": 3, "capacity": 0.01, "iterations": 1, "effort": "fast"},
    )
    tied = base_of(heavy(rng, (250, 301), 0.4), "F32")
    half = base_of(heavy(rng, (200, 257), 1.0, np.float16), "F16")
    yield (
        "mixed, tied and copied",
        Checkpoint(
            (
                Entry("brain", (300, 701), 0),
                Entry("half", (200, 257), 1),
                Entry("tied", (250, 301), 2),
                Entry("tie", (301, 250), 2, 0, (1, 301)),
                Entry("copy", (250, 301), 3),
            ),
            (brain[0], half, tied, base_of(tied.read(), "F32")),
        ),
        {"block_size": 2, "capacity": 0.005, "method": "random", "motif_dtype": "fixed"},
    )
    few = heavy(rng, (40, 2), 1.0)[rng.integers(0, 40, 150_000)]
    yield "exact", checkpoint_of({"few": few, "more": few[::-1].copy()}), {"block_size": 2}


CASES = {name: (model, options) for name, model, options in models()}


@pytest.fixture(scope="session")
def references() -> dict[str, bytes]:
    """What is packed with all blocks in memory at once."""
    return {
        name: packing.pack(model, memory="1G", **options)
        for name, (model, options) in CASES.items()
    }


@pytest.mark.parametrize("name", list(CASES))
def test_the_archive_does_not_depend_on_memory(
    name: str, references: dict[str, bytes], plan: BlockPlan
) -> None:
    model, options = CASES[name]
    assert packing.pack(model, **options) == references[name]


def test_a_model_of_one_chunk_is_the_same_too(
    plan: BlockPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = packing.pack(small_model(), capacity=0.2, iterations=2)
    monkeypatch.setattr(Resources, "plan", lambda *_a, **_o: BlockPlan(1 << 20, True, True))
    assert packing.pack(small_model(), capacity=0.2, iterations=2) == data


def test_exact_tensors_are_coded_in_pieces(
    plan: BlockPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    model = checkpoint_of(
        {
            "compressible": rng.integers(0, 9, 2_500_001).astype(np.int32),
            "noise": rng.integers(0, 256, 2_500_001).astype(np.uint8),
            "floats": heavy(rng, (2_200_000,), 1.0),
        }
    )
    data = packing.pack(model)
    monkeypatch.setattr(writer, "ELEMENTS_PER_PIECE", 1 << 30)
    assert packing.pack(model) == data


def test_indices_that_do_not_compress_have_a_fixed_width_in_pieces(
    plan: BlockPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).permutation(np.arange(1 << 17)).astype(np.float32)
    model = checkpoint_of({"noise": np.tile(noise.reshape(-1, 4), (3, 1))})
    options: dict[str, Any] = {"block_size": 4, "capacity": 0.5}
    efforts: tuple[defaults.Effort, ...] = ("fast", "best")
    pieces = {effort: packing.pack(model, effort=effort, **options) for effort in efforts}
    monkeypatch.setattr(writer, "_BLOCKS_PER_PIECE", 1 << 30)
    for effort, data in pieces.items():
        assert packing.pack(model, effort=effort, **options) == data


def test_the_mosaic_is_that_of_the_core_on_all_blocks(plan: BlockPlan) -> None:
    rng = np.random.default_rng(7)
    tensors = [heavy(rng, (90_001,), 0.1), heavy(rng, (70, 1000), 0.5), heavy(rng, (3,), 9.0)]
    blocks = _core.gather_blocks([(t.reshape(-1).view(np.uint8), "F32") for t in tensors], 1)
    chosen = _core.select_blocks(len(blocks), 200, 5, force_zero=True)
    drawn = np.concatenate([np.zeros((1, 1), np.float32), blocks[chosen]])
    motifs, indices, distortions = _core.lloyd(blocks, drawn, 4, fixed_zero=True)
    mosaic = build_mosaic(
        tensors,
        block_size=1,
        motifs=200,
        init="random",
        iterations=4,
        tolerance=0.0,
        seed=5,
        motif_dtype="float32",
    )
    assert np.array_equal(mosaic.motifs, motifs)
    assert np.array_equal(mosaic.indices, indices)
    assert mosaic.distortions == tuple(distortions)
    assert mosaic.counts().tolist() == np.bincount(indices, minlength=200).tolist()


def test_a_sensitivity_is_heeded_in_chunks(
    plan: BlockPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(11)
    model = checkpoint_of(
        {"a.weight": heavy(rng, (300, 501), 0.1), "b.weight": heavy(rng, (100, 99), 1.0)}
    )
    sensitivity = {"a.weight": rng.random((300, 501), np.float32), "b.weight": 2.0}
    options: dict[str, Any] = {"block_size": 2, "motifs": 50, "sensitivity": sensitivity}
    data = packing.pack(model, **options)
    monkeypatch.setattr(Resources, "plan", lambda *_a, **_o: BlockPlan(1 << 30, True, True))
    assert packing.pack(model, **options) == data


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    block_size=st.integers(1, 5),
    keep=st.booleans(),
    parts=st.booleans(),
    edges=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_range_of_blocks_is_a_part_of_all(
    sizes: list[int], block_size: int, keep: bool, parts: bool, edges: tuple[float, float]
) -> None:
    arrays = [np.arange(size, dtype=np.float32) + 100 * i for i, size in enumerate(sizes)]
    bases = [base_of(array, "F32") for array in arrays]
    if parts:
        bases = [
            Base(b.dtype, b.numel, b.read, read_part=lambda i, j, b=b: b.read()[4 * i : 4 * j])  # type: ignore[misc]
            for b in bases
        ]
    everything = _core.gather_blocks([(base.read(), "F32") for base in bases], block_size)
    low, high = sorted(round(edge * len(everything)) for edge in edges)
    plan = BlockPlan(BLOCKS_PER_BATCH, keep=keep, indices_in_memory=True)
    blocks = Blocks(bases, block_size, wide=False, plan=plan, first=low, stop=high)
    assert (blocks.total, len(blocks)) == (len(everything), high - low)
    middle = (low + high) // 2
    for start, stop in ((low, middle), (middle, high), (low, high)):
        if stop > start:
            assert np.array_equal(blocks.read(start, stop), everything[start:stop])
    chosen = np.arange(0, len(everything), 2, dtype=np.uint64)
    own = chosen[(chosen >= low) & (chosen < high)]
    assert np.array_equal(blocks.take(chosen), everything[own])
    assert blocks.largest() == np.abs(everything[low:high]).max(initial=0.0)


def test_a_sample_has_one_block_of_every_window_whoever_has_it() -> None:
    values = np.arange(3 * BLOCKS_PER_BATCH + 1001, dtype=np.float32)
    base = base_of(values, "F32")
    plan = PLANS["nothing is kept"]
    width, seed = 7, 2**64 - 2

    def sampled(first: int, stop: int, keep: bool) -> npt.NDArray[np.float32]:
        some = Blocks([base], 1, wide=False, plan=plan, first=first, own=stop - first)
        sample = Sample(some, width, seed, keep=keep)
        found = [rows[:, 0] for _, rows in sample.chunks()]
        together = np.concatenate([np.zeros(0, np.float32), *found])
        starts = [start for start, _ in sample.chunks()]
        assert starts == np.cumsum([0, *map(len, found)])[: len(found)].tolist()
        assert len(sample) == len(together)
        return together

    everything = sampled(0, len(values), keep=False)
    assert np.array_equal(everything // width, np.arange(-(-len(values) // width)))
    # As the core's generator draws, and evenly.
    assert np.bincount((everything[:-1] % width).astype(int), minlength=width).min() > 3700
    for keep in (False, True):
        cuts = [0, 5, 70_000, 70_001, len(values)]
        parts = [sampled(*pair, keep=keep) for pair in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(parts), everything)
    other = Blocks([base], 1, wide=False, plan=plan)
    assert not np.array_equal(
        np.concatenate([rows[:, 0] for _, rows in Sample(other, width, 1).chunks()]), everything
    )


def test_chunks_end_at_batches_and_a_range_may_begin_anywhere() -> None:
    base = base_of(np.arange(5 * BLOCKS_PER_BATCH + 3, dtype=np.float32), "F32")
    plan = BlockPlan(2 * BLOCKS_PER_BATCH, keep=False, indices_in_memory=True)
    blocks = Blocks([base], 1, wide=False, plan=plan, first=10, own=7, stop=5 * BLOCKS_PER_BATCH)
    starts = [start + blocks.first for start, _ in blocks.chunks()]
    assert starts == [10, 2 * BLOCKS_PER_BATCH, 4 * BLOCKS_PER_BATCH]
    assert [len(rows) for _, rows in blocks.chunks(7)] == [7]
    assert list(batch_bounds(10, 2 * BLOCKS_PER_BATCH + 1)) == [
        (BLOCKS_PER_BATCH, 2 * BLOCKS_PER_BATCH),
        (2 * BLOCKS_PER_BATCH, 2 * BLOCKS_PER_BATCH + 1),
    ]


@given(sizes=st.lists(st.integers(0, 1000), max_size=30), parts=st.integers(1, 9))
def test_shares_are_contiguous_and_balanced(sizes: list[int], parts: int) -> None:
    ranges = shares(sizes, parts)
    assert [ranges[0][0], *(stop for _, stop in ranges)] == [
        *(start for start, _ in ranges),
        len(sizes),
    ]
    largest = max(sizes, default=0)
    for start, stop in ranges:
        assert start <= stop
        assert sum(sizes[start:stop]) <= sum(sizes) / parts + largest


@settings(deadline=None)
@given(cut=st.integers(1, 200_000), block_size=st.integers(1, 7))
def test_a_tensor_is_compared_in_pieces_as_at_once(cut: int, block_size: int) -> None:
    rng = np.random.default_rng(cut)
    values = rng.standard_normal(300_000, dtype=np.float32)[: 100_000 + cut]
    base = base_of(values, "F32")
    mosaic = build_mosaic([values], block_size=block_size, motifs=3, method="random")
    decoded = _core.scatter_blocks(mosaic.motifs, mosaic.indices, base.numel, "F32")
    assert compare_with_mosaic(base, mosaic, 0) == _core.compare_tensors(
        base.read(), decoded, "F32"
    )


def test_plans_fit_the_memory() -> None:
    million = 1_000_000
    resources = Resources(memory=8000 * million)
    assert resources.plan(100 * million, million, 4, wide=False) == BlockPlan(
        100 * million, keep=True, indices_in_memory=True
    )
    middling = Resources(memory=2800 * million).plan(100 * million, million, 4, wide=False)
    assert middling.keep
    assert 8 * million <= middling.chunk < 100 * million
    assert middling.chunk % BLOCKS_PER_BATCH == 0
    # Chunks of fewer than eight blocks per motif are not worth keeping all blocks.
    less = Resources(memory=2500 * million).plan(100 * million, million, 4, wide=False)
    assert not less.keep
    assert less.chunk > middling.chunk
    little = Resources(memory=500 * million).plan(100 * million, million, 4, wide=False)
    assert (little.keep, little.indices_in_memory) == (False, False)


def test_too_little_memory_is_refused_in_one_line_that_says_how_much_would_do() -> None:
    rng = np.random.default_rng(0)
    model = checkpoint_of({"weight": rng.standard_normal((1000, 400), dtype=np.float32)})
    with pytest.raises(errors.InvalidArgumentError) as caught:
        packing.pack(model, memory="10M")
    text = str(caught.value)
    assert "\n" not in text
    assert "5,000 motifs of 4 values" in text
    enough = text.split("memory='")[1].split("'")[0]
    assert packing.pack(model, memory=enough) == packing.pack(model)
    with pytest.raises(errors.InvalidArgumentError, match="not a size"):
        packing.pack(model, memory="much")
    with pytest.raises(errors.InvalidArgumentError, match="grid keeps all tensors in memory"):
        packing.pack(model, memory="1M", method="grid")
    assert memory_budget("1G", 4) == 250_000_000


def test_indices_in_a_file_are_as_in_memory(tmp_path: Path) -> None:
    plan = PLANS["nothing is kept"]
    indices = new_indices(100_000, plan, tmp_path)
    assert not list(tmp_path.iterdir())
    values = np.arange(100_000, dtype=np.uint32)
    indices[:] = values
    release(indices)
    assert np.array_equal(indices, values)
    release(values)
    assert len(new_indices(0, plan, tmp_path)) == 0


PACK_IN_CHILD = """
import sys
from momos_rs import packing
def peak():
    # What getrusage counts includes the process that has started this one.
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
packing.pack_file(sys.argv[1], sys.argv[2], memory=sys.argv[3], motifs=500, iterations=1, threads=2)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted as on Linux")
def test_the_peak_of_memory_is_within_the_budget(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    rows, tensors = 8000, 3
    header: dict[str, Any] = {}
    for index in range(tensors):
        start = index * rows * 2048
        header[f"layer.{index}"] = {
            "dtype": "BF16", "shape": [rows, 1024], "data_offsets": [start, start + rows * 2048],
        }  # fmt: skip
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(tensors):
            values = rng.standard_normal((rows, 1024), dtype=np.float32)
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    # In float32 they are 98 MB, and the motif of each block takes 24 MB more.
    budget = 60_000_000
    target = tmp_path / "packed" / "model.momos"
    target.parent.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", PACK_IN_CHILD, str(path), str(target), str(budget)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(packing.__file__).parents[2])},
    )  # fmt: skip
    assert budget / 4 < int(run.stdout) < budget, run.stdout
    assert list(target.parent.iterdir()) == [target]
    packing.pack_file(path, tmp_path / "all.momos", memory="4G", motifs=500, iterations=1)
    assert target.read_bytes() == (tmp_path / "all.momos").read_bytes()
