"""Exact nearest-motif search against faiss ``IndexFlatL2`` and scipy ``cKDTree``.

All in one process, on the same data and number of threads. Before anything is printed, momos's
and cKDTree's answers are compared with float64 brute force on a sample of the blocks; faiss
computes distances in float32 by expansion and is wrong now and then, which is reported.

faiss is timed both ways, through BLAS and without, and its faster one counts. The peers are timed
on evenly spaced blocks where all would take too long, and scaled up. Building an index counts for
all. Every figure is the median of several runs.

    python benches/bench_nearest.py [--quick] [--threads 1 2] [--isa avx2] [--torch] [-o FILE.md]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import scipy
from scipy.spatial import cKDTree

from machine import processor
from momos_rs import _core

Rows = npt.NDArray[np.float32]

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make OpenBLAS, and with it the peers, slower than they are."""

SIZES = {
    2: [(250_000, 12_500), (1_350_000, 67_500), (6_250_000, 312_500)],
    4: [(250_000, 12_500), (1_350_000, 67_500), (6_250_000, 312_500)],
    8: [(250_000, 12_500), (1_350_000, 67_500), (6_250_000, 312_500)],
    16: [(62_000, 3_100), (400_000, 20_000)],
    32: [(62_000, 3_100), (400_000, 20_000)],
}
RUNS, MOST_RUNS = 3, 15
RUN_SECONDS = 1.0
"""What takes less than this in all is run again."""

SAMPLE = 200
"""Blocks whose answers are compared with float64 brute force."""


def blocks_of(kind: str, count: int, size: int) -> Rows:
    """Gaussian blocks ("g"), or 50 layers whose deviations span 0.005 to 0.3 ("m")."""
    random = np.random.default_rng(size * 1000 + count % 997 + (kind == "m"))
    if kind == "g":
        return random.standard_normal((count, size), dtype=np.float32) * np.float32(0.02)
    deviations = np.exp(random.uniform(np.log(0.005), np.log(0.3), 50)).astype(np.float32)
    rows = [count // 50] * 49
    rows.append(count - sum(rows))
    layers = [
        random.standard_normal((each, size), dtype=np.float32) * deviation
        for each, deviation in zip(rows, deviations, strict=True)
    ]
    return np.concatenate(layers)


def motifs_of(blocks: Rows, count: int) -> Rows:
    chosen = np.random.default_rng(1).choice(len(blocks), count, replace=False)
    return blocks[np.sort(chosen)]


def spaced(blocks: Rows, count: int) -> Rows:
    """About ``count`` blocks, evenly spaced."""
    return np.ascontiguousarray(blocks[:: max(1, len(blocks) // count)])


class _Clock:
    now = time.perf_counter


@dataclass(frozen=True)
class Timing:
    """Nanoseconds per block, building included, and the answers for the blocks timed."""

    nanoseconds: float
    answers: npt.NDArray[Any]
    queries: Rows


def timed(
    blocks: Rows,
    queries: Rows,
    threads: int,
    build: Callable[[], Callable[[Rows], npt.NDArray[Any]]],
) -> Timing:
    builds: list[float] = []
    searches: list[float] = []
    # Processor time adds up over threads.
    share = threads if _Clock.now is time.process_time else 1
    answers: npt.NDArray[Any] = np.empty(0)
    while len(searches) < RUNS or (sum(searches) < RUN_SECONDS and len(searches) < MOST_RUNS):
        start = _Clock.now()
        search = build()
        built = _Clock.now()
        answers = search(queries)
        searches.append((_Clock.now() - built) / share)
        builds.append(built - start)
    seconds = statistics.median(builds) / len(blocks) + statistics.median(searches) / len(queries)
    return Timing(seconds * 1e9, answers, queries)


def prepare(blocks: Rows, motifs: Rows, threads: int, isa: str | None) -> _core.MotifSearch:
    largest = _core.largest_block(blocks, threads=threads)
    return _core.MotifSearch(motifs, blocks=len(blocks), largest=largest, isa=isa, threads=threads)


def momos(blocks: Rows, motifs: Rows, threads: int, isa: str | None) -> tuple[Timing, str]:
    """Timing, and the kernel it ran."""
    prepared = prepare(blocks, motifs, threads, isa)
    prepared.nearest(blocks[:1000], threads=threads)

    def build() -> Callable[[Rows], npt.NDArray[Any]]:
        nonlocal prepared
        prepared = prepare(blocks, motifs, threads, isa)
        return lambda rows: prepared.nearest(rows, threads=threads)

    timing = timed(blocks, blocks, threads, build)
    return timing, prepared.kernel


def gain(blocks: Rows, motifs: Rows, threads: int, isa: str | None) -> float:
    """How much faster several threads are than one: the fastest of several runs each, in turn.

    What disturbs a run only makes it slower, and two threads are disturbed more often than one:
    the first runs may all be on one core, until threads are moved to where there is time for them.
    """
    if threads == 1:
        return 1.0
    seconds: dict[int, list[float]] = {1: [], threads: []}
    while len(seconds[1]) < RUNS or sum(map(sum, seconds.values())) < 2 * RUN_SECONDS:
        for count, runs in seconds.items():
            start = time.perf_counter()
            prepare(blocks, motifs, count, isa).nearest(blocks, threads=count)
            runs.append(time.perf_counter() - start)
    return min(seconds[1]) / min(seconds[threads])


def faiss_flat(blocks: Rows, motifs: Rows, threads: int, budget: float) -> Timing:
    faiss.omp_set_num_threads(threads)

    def build() -> Callable[[Rows], npt.NDArray[Any]]:
        index = faiss.IndexFlatL2(motifs.shape[1])
        index.add(motifs)
        return lambda rows: np.asarray(index.search(rows, 1)[1][:, 0])

    # (pairs per second of either path, about)
    paths = []
    for threshold, speed in ((20, 5e9), (1 << 30, 3e8)):
        faiss.cvar.distance_compute_blas_threshold = threshold
        count = int(budget * speed * threads / len(motifs))
        paths.append(
            timed(blocks, spaced(blocks, min(max(count, 500), len(blocks))), threads, build)
        )
    return min(paths, key=lambda timing: timing.nanoseconds)


def ckdtree(blocks: Rows, motifs: Rows, threads: int, budget: float) -> Timing:
    trial = spaced(blocks, 1000)
    tree = cKDTree(motifs)
    start = time.perf_counter()
    tree.query(trial, workers=threads)
    each = (time.perf_counter() - start) / len(trial)
    count = min(max(int(budget / each), 500), len(blocks))

    def build() -> Callable[[Rows], npt.NDArray[Any]]:
        tree = cKDTree(motifs)
        return lambda rows: np.asarray(tree.query(rows, workers=threads)[1])

    return timed(blocks, spaced(blocks, count), threads, build)


def torch_matmul(blocks: Rows, motifs: Rows, threads: int, budget: float) -> Timing:
    """Chunks of the distance matrix by matrix product, then argmin."""
    import torch

    torch.set_num_threads(threads)
    table = torch.from_numpy(motifs)
    half_norms = 0.5 * (table * table).sum(1)
    rows_per_chunk = max(1, 2**24 // len(motifs))

    def search(rows: Rows) -> npt.NDArray[Any]:
        chunks = torch.split(torch.from_numpy(rows), rows_per_chunk)
        found = [torch.addmm(half_norms, chunk, table.T, alpha=-1).argmin(1) for chunk in chunks]
        return torch.cat(found).numpy()

    count = min(max(int(budget * 5e8 * threads / len(motifs)), 500), len(blocks))
    return timed(blocks, spaced(blocks, count), threads, lambda: search)


def wrong(timing: Timing, motifs: Rows) -> float:
    """Share of wrong answers among a sample, by float64 brute force."""
    places = np.arange(0, len(timing.queries), max(1, len(timing.queries) // SAMPLE))
    table = motifs.astype(np.float64)
    count = 0
    for place in places:
        differences = timing.queries[place].astype(np.float64) - table
        # Column by column: the order of summation is part of the definition.
        distances = np.zeros(len(table))
        for column in differences.T:
            distances += column * column
        count += int(distances.argmin()) != int(timing.answers[place])
    return count / len(places)


def row(size: int, count: int, k: int, threads: int, options: argparse.Namespace) -> list[str]:
    names = [
        "kernel",
        "ns",
        "gain",
        "faiss",
        "tree",
        *(["torch"] if options.torch else []),
        "wrong",
    ]
    cells: dict[str, list[str]] = {name: [] for name in names}
    for kind in "gm":
        blocks = blocks_of(kind, count, size)
        motifs = motifs_of(blocks, k)
        ours, kernel = momos(blocks, motifs, threads, options.isa)
        peers = {
            "faiss": faiss_flat(blocks, motifs, threads, options.budget),
            "tree": ckdtree(blocks, motifs, threads, options.budget),
        }
        if options.torch:
            peers["torch"] = torch_matmul(blocks, motifs, threads, options.budget)
        if wrong(ours, motifs) or wrong(peers["tree"], motifs):
            raise SystemExit(f"wrong answers at s={size}, m={count}, k={k}, {kind}")
        cells["kernel"].append(kernel)
        cells["ns"].append(f"{ours.nanoseconds:.0f}")
        cells["gain"].append(f"{gain(blocks, motifs, threads, options.isa):.2f}")
        cells["wrong"].append(f"{100 * wrong(peers['faiss'], motifs):.2g}%")
        for name, peer in peers.items():
            cells[name].append(f"{peer.nanoseconds / ours.nanoseconds:.3g}")
    if len(set(cells["kernel"])) == 1:
        del cells["kernel"][1]
    fields = [str(size), f"{count:,}", f"{k:,}", str(threads)]
    return fields + [" / ".join(cells[name]) for name in names]


def main() -> None:
    """Prints one table, and writes it to a file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smallest of each size")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="block sizes s")
    parser.add_argument(
        "--isa", choices=["avx512-vnni", "avx512", "avx2", "neon-dot", "neon", "portable"]
    )
    parser.add_argument("--torch", action="store_true", help="also matmul and argmin in torch")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds per run of a peer")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor time over threads, for a machine that is busy with other things",
    )
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if any(variable in os.environ for variable in SLOWING):
        clean = {name: value for name, value in os.environ.items() if name not in SLOWING}
        os.execve(sys.executable, [sys.executable, *sys.argv], clean)
    if options.clock == "cpu":
        _Clock.now = time.process_time

    header = ["s", "blocks", "motifs", "threads", "kernel", "ns per block", "x one thread"]
    header += ["x faiss", "x cKDTree", *(["x torch"] if options.torch else []), "faiss wrong"]
    lines = [
        f"{processor()}, {options.isa or _core.search_plan(1, 1, 1)[1]}; {options.clock} clock; "
        f"gaussian / mixed layers; faiss {faiss.__version__}, scipy {scipy.__version__}",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    print("\n".join(lines), flush=True)
    for size in options.sizes:
        for count, k in SIZES[size][: 1 if options.quick else None]:
            for threads in options.threads:
                fields = row(size, count, k, threads, options)
                lines.append("| " + " | ".join(fields) + " |")
                print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
