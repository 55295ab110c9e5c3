"""The exact search against float64 brute force, and what surrounds it in Python."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from momos_rs import _core
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.nearest import nearest_motifs

Array = npt.NDArray[Any]


def brute_force(blocks: Array, motifs: Array) -> npt.NDArray[np.int64]:
    """Smallest float64 distance, summed from the first value on; argmin takes the lowest index."""
    x, z = blocks.astype(np.float64), motifs.astype(np.float64)
    distances = np.zeros((len(x), len(z)))
    for d in range(x.shape[1]):
        difference = x[:, d, None] - z[None, :, d]
        distances += difference * difference
    nearest: npt.NDArray[np.int64] = distances.argmin(axis=1)
    return nearest


def gaussian(rows: int, size: int, seed: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, size)).astype(dtype)


values = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, -0.0, 1e-30, 1e30, 0.1, 0.2, 0.3]),
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array]:
    size = draw(st.integers(1, 10))
    dtype = draw(st.sampled_from([np.float32, np.float64]))

    def rows(fewest: int) -> Array:
        shape = st.tuples(st.integers(fewest, 60), st.just(size))
        return draw(hnp.arrays(dtype, shape, elements=values.map(dtype)))

    return rows(0), rows(1)


@given(problems())
@settings(max_examples=200, deadline=None)
def test_answers_are_those_of_float64_brute_force(problem: tuple[Array, Array]) -> None:
    blocks, motifs = problem
    found = nearest_motifs(blocks, motifs)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, brute_force(blocks, motifs))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 8, 16, 33])
@pytest.mark.parametrize("kernel", ["brute", "narrow", "group-tree", "block-tree"])
@pytest.mark.parametrize("isa", ["avx512-vnni", "avx512", "avx2", "neon-dot", "neon", "portable"])
def test_kernels_agree(size: int, kernel: str, isa: str) -> None:
    blocks, motifs = gaussian(700, size, 1), gaussian(300, size, 2)
    blocks[100:300] = np.round(blocks[100:300])
    motifs[50:150] = np.round(motifs[50:150])
    sizes = {"group-tree": range(1, 9), "block-tree": range(4, 9)}.get(kernel, range(1, 1025))
    if size not in sizes:
        with pytest.raises(InvalidArgumentError, match="not made for blocks of"):
            _core.nearest_motifs(blocks, motifs, kernel=kernel)
        return
    try:
        found = _core.nearest_motifs(blocks, motifs, kernel=kernel, isa=isa)
    except InvalidArgumentError as error:
        if "does not have" in str(error):
            pytest.skip(str(error))
        raise
    np.testing.assert_array_equal(found, brute_force(blocks, motifs))


def test_duplicates_go_to_the_lowest_index() -> None:
    motifs = np.tile(gaussian(50, 4, 3), (40, 1))
    blocks = gaussian(3000, 4, 4)
    assert nearest_motifs(blocks, motifs).max() < 50
    np.testing.assert_array_equal(nearest_motifs(blocks, motifs), brute_force(blocks, motifs))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_of_every_floating_type(dtype: str) -> None:
    blocks = torch.from_numpy(gaussian(200, 4, 5)).to(getattr(torch, dtype))
    motifs = torch.from_numpy(gaussian(30, 4, 6)).to(getattr(torch, dtype)).requires_grad_(True)
    found = nearest_motifs(blocks, motifs)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int64
    assert found.device == blocks.device
    expected = brute_force(blocks.double().numpy(), motifs.detach().double().numpy())
    np.testing.assert_array_equal(found.numpy(), expected)


def test_arrays_of_mixed_kinds_types_and_strides() -> None:
    blocks, motifs = gaussian(100, 6, 7), gaussian(40, 3, 8, np.float64)
    expected = brute_force(blocks[:, ::2], motifs)
    np.testing.assert_array_equal(nearest_motifs(blocks[:, ::2], motifs), expected)
    fortran = np.asfortranarray(blocks[:, ::2])
    np.testing.assert_array_equal(nearest_motifs(fortran, motifs), expected)
    half = motifs.astype(np.float16)
    np.testing.assert_array_equal(
        nearest_motifs(blocks[::2, :3], half), brute_force(blocks[::2, :3], half)
    )
    tensor = torch.from_numpy(blocks)[:, ::2]
    mixed: Any = nearest_motifs(tensor, motifs)
    assert isinstance(mixed, torch.Tensor)
    np.testing.assert_array_equal(mixed.numpy(), expected)
    assert isinstance(nearest_motifs(blocks[:, ::2], torch.from_numpy(motifs)), np.ndarray)
    assert nearest_motifs(blocks[:0, :3], motifs).shape == (0,)


def test_threads_do_not_matter() -> None:
    blocks, motifs = gaussian(30_000, 4, 9), gaussian(500, 4, 10)
    one = nearest_motifs(blocks, motifs, threads=1)
    for threads in (2, 3, None):
        np.testing.assert_array_equal(nearest_motifs(blocks, motifs, threads=threads), one)


def not_finite(rows: int, row: int, value: float) -> Array:
    array = np.ones((rows, 2), np.float32)
    array[row, 1] = value
    return array


@pytest.mark.parametrize(
    ("blocks", "motifs", "message"),
    [
        (np.ones(4, np.float32), np.ones((1, 4), np.float32), "blocks must have two dimensions"),
        (np.ones((1, 4), np.float32), np.ones((1, 1, 4)), "motifs must have two dimensions"),
        (np.ones((1, 4)), np.ones((1, 3)), "same number of columns, not 4 and 3"),
        (np.ones((1, 4)), np.ones((0, 4)), "at least one motif"),
        (np.ones((1, 4), int), np.ones((1, 4)), "blocks must be of a floating type, not int64"),
        (np.ones((1, 4)), torch.ones((1, 4), dtype=torch.int32), "motifs must be of a floating"),
        (np.ones((1, 4), complex), np.ones((1, 4)), "floating type, not complex128"),
        (np.ones((1, 0)), np.ones((1, 0)), "block size must be from 1 to 4096, not 0"),
        (np.ones((1, 4097)), np.ones((1, 4097)), "block size must be from 1 to 4096, not 4097"),
        (not_finite(9, 7, np.nan), np.ones((1, 2), np.float32), "blocks .* row 7"),
        (not_finite(9, 7, -np.inf), np.ones((1, 2), np.float32), "blocks .* row 7"),
        (np.ones((1, 2), np.float32), not_finite(9, 3, np.inf), "motifs .* row 3"),
    ],
)
def test_what_makes_no_sense_is_refused(blocks: Any, motifs: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        nearest_motifs(blocks, motifs)


def test_the_binding_checks_its_arrays() -> None:
    narrow, wide = np.ones((3, 4), np.float32), np.ones((3, 4), np.float64)
    with pytest.raises(InvalidArgumentError, match="both"):
        _core.nearest_motifs(narrow, wide)
    with pytest.raises(InvalidArgumentError, match="contiguous"):
        _core.nearest_motifs(narrow[:, ::2], np.ones((3, 2), np.float32))
    with pytest.raises(InvalidArgumentError, match="4 values each, motifs 2"):
        _core.nearest_motifs(narrow, np.ones((3, 2), np.float32))
    with pytest.raises(InvalidArgumentError, match="float32 or float64"):
        _core.nearest_motifs(np.ones((3, 4), int), narrow)
    with pytest.raises(InvalidArgumentError, match="kernel must be one of"):
        _core.nearest_motifs(narrow, narrow, kernel="magic")
    with pytest.raises(InvalidArgumentError, match="threads"):
        _core.nearest_motifs(narrow, narrow, threads=0)


def test_plans_name_kernel_and_instruction_set() -> None:
    assert _core.search_plan(1_000_000, 50_000, 4)[0] == "group-tree"
    kernel, isa = _core.search_plan(1_000_000, 50_000, 4096)
    assert kernel == "brute"
    assert isa in ("avx512-vnni", "avx512", "avx2", "neon-dot", "neon", "portable")


def long_search(progress: Any = None) -> Any:
    """A search of many seconds."""
    blocks, motifs = gaussian(100_000, 64, 11), gaussian(60_000, 64, 12)
    return _core.nearest_motifs(blocks, motifs, progress=progress)


def test_other_threads_run_during_a_search() -> None:
    blocks, motifs = gaussian(100_000, 32, 13), gaussian(20_000, 32, 14)
    ticks, searching = [0], threading.Event()

    def count() -> None:
        searching.wait()
        while searching.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    start = time.perf_counter()
    searching.set()
    _core.nearest_motifs(blocks, motifs)
    searching.clear()
    elapsed = time.perf_counter() - start
    counter.join()
    # Were the lock held, the counter could not tick before the search is over.
    assert elapsed > 0.02
    assert ticks[0] >= 5


def test_progress_is_reported_and_an_exception_in_it_stops_the_search() -> None:
    seen: list[int] = []

    def stop(done: int) -> None:
        seen.append(done)
        if done > 0:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        long_search(stop)
    assert seen == sorted(seen)
    assert seen[-1] < 100_000


def test_ctrl_c_stops_a_search() -> None:
    blocks, motifs = gaussian(100_000, 64, 11), gaussian(60_000, 64, 12)
    interrupted = [0.0]

    def interrupt() -> None:
        interrupted[0] = time.perf_counter()
        _thread.interrupt_main()

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        _core.nearest_motifs(blocks, motifs)
    assert time.perf_counter() - interrupted[0] < 1


FORK = """
import os, sys
import numpy as np
from momos_rs import _core

blocks = np.random.default_rng(0).standard_normal((50_000, 4), dtype=np.float32)
answers = {each: _core.nearest_motifs(blocks, blocks[:500], threads=each) for each in (None, 2)}
child = os.fork()
if child == 0:
    same = [
        np.array_equal(_core.nearest_motifs(blocks, blocks[:500], threads=each), answer)
        for each, answer in answers.items()
    ]
    os._exit(0 if all(same) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_searches_too() -> None:
    # In a process group of its own: a child that hangs is killed with its parent.
    process = subprocess.Popen([sys.executable, "-c", FORK], start_new_session=True)
    try:
        assert process.wait(timeout=30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_motifs_are_drawn_without_repetition_and_the_same_everywhere() -> None:
    assert _core.select_blocks(1000, 5, 0).tolist() == [26, 106, 431, 883, 970]
    assert _core.select_blocks(1000, 6, 0, force_zero=True).tolist() == [26, 106, 431, 883, 970]
    chosen = _core.select_blocks(10**12, 1000, 2**64 - 1)
    assert chosen.dtype == np.uint64
    assert len(set(chosen.tolist())) == 1000
    assert chosen.max() < 10**12
    with pytest.raises(InvalidArgumentError, match="cannot draw 6"):
        _core.select_blocks(5, 6, 0)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 50), st.just(2)), elements=values),
    st.integers(0, 60),
)
@settings(max_examples=100, deadline=None)
def test_distinct_blocks_are_those_of_their_bytes(blocks: Array, limit: int) -> None:
    rows = [row.tobytes() for row in blocks]
    order = list(dict.fromkeys(rows))
    found = _core.distinct_blocks(blocks, limit)
    if len(order) > limit:
        assert found is None
    else:
        assert found is not None
        assert found[0].tolist() == [rows.index(row) for row in order]
        assert found[1].tolist() == [order.index(row) for row in rows]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lloyd_moves_motifs_to_means(dtype: Any) -> None:
    blocks = gaussian(2000, 3, 15, dtype)
    start = blocks[_core.select_blocks(2000, 40, 1)]
    motifs, indices, distortions = _core.lloyd(blocks, start, 1)
    first = brute_force(blocks, start)
    means = [blocks[first == k].astype(np.float64).mean(axis=0) for k in range(40)]
    np.testing.assert_allclose(motifs, means, rtol=1e-6, atol=1e-12)
    assert motifs.dtype == dtype
    np.testing.assert_array_equal(indices, brute_force(blocks, motifs))
    for table, nearest, distortion in (
        (start, first, distortions[0]),
        (motifs, indices, distortions[1]),
    ):
        expected = ((blocks.astype(np.float64) - table[nearest]) ** 2).sum()
        assert distortion == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lloyd_in_pieces_equals_lloyd_in_memory(dtype: Any) -> None:
    blocks = np.round(gaussian(3000, 4, 1, dtype) * 64) / 64
    table = blocks[:100]
    expected = _core.lloyd(blocks, table, 5)
    pieces = np.split(blocks, [700, 701, 2500])
    largest = _core.largest_block(blocks)
    assert largest == np.abs(blocks).max()

    clusters = _core.Clusters(len(table), 4, largest=largest)
    distortions = []
    indices: list[npt.NDArray[np.uint32]] = []
    moved = None
    for _ in range(6):
        search = _core.MotifSearch(table, blocks=len(blocks), largest=largest)
        indices = [
            search.nearest(piece)
            if moved is None
            else search.nearest(piece, previous=indices[number], moved=moved)
            for number, piece in enumerate(pieces)
        ]
        for piece, found in zip(pieces, indices, strict=True):
            # What another process would do with the rows it is given.
            rows = clusters.rows
            clusters = _core.Clusters(len(table), 4, largest=largest)
            clusters.rows = rows
            clusters.add(piece, found)
        distortions.append(clusters.distortion(table))
        if len(distortions) < 6:
            means, moved, distortion = clusters.move_motifs(table)
            table = np.asarray(means, table.dtype)
            assert distortion == distortions[-1]
    assert np.array_equal(table, expected[0])
    assert np.array_equal(np.concatenate(indices), expected[1])
    assert distortions == expected[2]
    assert (search.kernel, search.isa) == _core.search_plan(3000, 100, 4)


def test_searches_and_clusters_refuse_what_does_not_fit() -> None:
    search = _core.MotifSearch(gaussian(5, 4, 0), blocks=10, largest=9.0)
    clusters = _core.Clusters(5, 4, largest=9.0)
    table, indices = gaussian(5, 4, 0), np.zeros(3, np.uint32)
    moved = np.zeros(5, bool)
    wrong: list[tuple[Any, str]] = [
        (lambda: search.nearest(gaussian(3, 5, 1)), "blocks have 5 values each"),
        (lambda: search.nearest(gaussian(3, 4, 1, np.float64)), "must both be"),
        (lambda: search.nearest(gaussian(3, 4, 1), moved=moved), "belong together"),
        (lambda: search.nearest(np.full((1, 4), 10, np.float32)), "was announced"),
        (lambda: clusters.add(gaussian(2, 4, 1), indices), "cannot take"),
        (lambda: clusters.add(gaussian(3, 4, 1), indices + 5), "none of 5 motifs"),
        (lambda: clusters.add(gaussian(3, 5, 1), indices), "blocks have 5 values each"),
        (lambda: clusters.distortion(gaussian(4, 4, 1)), "clusters of 5 motifs, not 4"),
        (lambda: clusters.move_motifs(gaussian(4, 4, 1)), "clusters of 5 motifs, not 4"),
        (lambda: setattr(clusters, "rows", np.zeros((5, 5))), "must be of shape"),
        (lambda: _core.Clusters(0, 4, largest=1.0), "no clusters of 0 motifs"),
        (lambda: _core.MotifSearch(table, blocks=1, largest=1.0, kernel="x"), "kernel must be"),
    ]
    for call, message in wrong:
        with pytest.raises(InvalidArgumentError, match=message):
            call()


def test_lloyd_can_be_interrupted_from_its_progress() -> None:
    blocks = gaussian(100_000, 16, 16)
    seen: list[int] = []

    def stop(done: int) -> None:
        seen.append(done)
        if done > 100_000:
            raise RuntimeError("second search")

    with pytest.raises(RuntimeError, match="second search"):
        _core.lloyd(blocks, blocks[:3000], 1000, progress=stop)
    assert 100_000 < seen[-1] < 10_000_000


def test_numpy_users_do_not_wait_for_torch() -> None:
    program = (
        "import sys, numpy as np; from momos_rs.mosaic.nearest import nearest_motifs;"
        "nearest_motifs(np.ones((2, 2)), np.ones((1, 2))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
