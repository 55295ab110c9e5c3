"""What moving the motifs adds to the search, in an iteration of Lloyd's algorithm.

A first iteration from motifs that are blocks, then a second one as ``momos pack`` runs it: each
block's last motif bounds its search. The update is what comes on top of a search: adding all blocks
to the sums of their motifs, telling their distortion, and moving them. Before anything is timed, a
sample of the answers is compared with float64 brute force, and all sums, counts and squares with
numpy's, which adds up in the same order, bit for bit.

    python benches/bench_lloyd.py [--quick] [--threads 1 2] [--sizes 2 4 8] [-o FILE.md]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_nearest import SIZES, Rows, Timing, blocks_of, motifs_of, wrong
from machine import processor
from momos_rs import _core

Indices = npt.NDArray[np.uint32]

RUNS = 5
DENSE = 1_600_000
"""Motifs of one more row at s=4: sums that are far larger than any cache."""


def check_sums(clusters: _core.Clusters, blocks: Rows, motifs: Rows, found: Indices) -> None:
    """Compares sums, numbers and squares with numpy's, which are taken in the same order, and the
    distortion with that of the blocks."""
    expected = np.zeros((len(motifs), blocks.shape[1] + 2))
    wide = blocks.astype(np.float64)
    squares = np.zeros(len(blocks))
    for column in wide.T:
        squares += np.square(column)
    np.add.at(expected, found, np.column_stack([wide, np.ones(len(wide)), squares]))
    assert np.array_equal(clusters.rows, expected), "sums are wrong"
    distortion = float(np.square(wide - motifs.astype(np.float64)[found]).sum())
    assert abs(clusters.distortion(motifs) / distortion - 1) < 1e-9, "the distortion is wrong"


def median_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def row(kind: str, size: int, count: int, k: int, threads: int) -> str:
    blocks = blocks_of(kind, count, size)
    motifs = motifs_of(blocks, k)
    largest = _core.largest_block(blocks, threads=threads)
    clusters = _core.Clusters(k, size, largest=largest)

    def prepare(table: Rows) -> _core.MotifSearch:
        return _core.MotifSearch(table, blocks=count, largest=largest, threads=threads)

    first = prepare(motifs).nearest(blocks, threads=threads)
    assert wrong(Timing(0, first, blocks), motifs) == 0, "answers are wrong"
    clusters.add(blocks, first, threads=threads)
    check_sums(clusters, blocks, motifs, first)
    expected = clusters.distortion(motifs, threads=threads)
    means, moved, distortion = clusters.move_motifs(motifs, threads=threads)
    assert distortion == expected, "moving tells another distortion"
    table: Rows = np.asarray(means, np.float32)
    second = prepare(table).nearest(blocks, previous=first, moved=moved, threads=threads)
    assert wrong(Timing(0, second, blocks), table) == 0, "answers are wrong"

    cold = median_seconds(lambda: prepare(table).nearest(blocks, threads=threads))
    warm = median_seconds(
        lambda: prepare(table).nearest(blocks, previous=first, moved=moved, threads=threads)
    )

    def update_motifs() -> None:
        clusters.add(blocks, second, threads=threads)
        clusters.move_motifs(table, threads=threads)

    update = median_seconds(update_motifs)
    nanoseconds = [1e9 * seconds / count for seconds in (cold, warm, update)]
    cells = [f"{size}", f"{count:,}", f"{k:,}", f"{threads}", {"g": "gaussian", "m": "mixed"}[kind]]
    cells += [f"{each:.0f}" if each >= 100 else f"{each:.3g}" for each in nanoseconds]
    return "| " + " | ".join([*cells, f"{100 * update / warm:.1f}%"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smallest of each size")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8], help="block sizes s")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    columns = ["s", "blocks", "motifs", "threads", "blocks are", "search", "search again"]
    columns += ["update", "update / search again"]
    lines = [
        f"{processor()}; nanoseconds per block, medians of {RUNS} runs; answers and sums verified",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    print("\n".join(lines), flush=True)
    for size in options.sizes:
        cases = SIZES.get(size, SIZES[4]) + ([(20 * DENSE, DENSE)] if size == 4 else [])
        for count, k in cases[: 1 if options.quick else None]:
            for threads in options.threads:
                for kind in "gm":
                    lines.append(row(kind, size, count, k, threads))
                    print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
