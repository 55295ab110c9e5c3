"""Complexity against pybdm and the QuBD recipe run with pybdm, and against memory itself.

All in one process. Results are compared before anything is timed: BDM and entropy of the same
bits, the bit-planes of the same weights. pybdm is timed on what it finishes in seconds; ours on the
same input and, for throughput, on 100 million weights. Times are medians of several runs; the
share of read bandwidth is that of a plain pass over the same array, taken in turn.

    python benches/bench_complexity.py [--quick] [-o FILE.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import momos_rs.bdm as ours
from machine import processor
from momos_rs import _core
from momos_rs.complexity.bit_planes import qubd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pybdm

Floats = npt.NDArray[np.float32]

ROWS, COLUMNS = 10_000, 9_984
MANY = ROWS * COLUMNS
FEW_BITS = 1_200_000
SIDE = 2_000
SYMBOLS = 6_000_000


def median(work: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_turn(works: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    """Medians of works that take turns, so that all of them see the same machine."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for each, work in zip(times, works, strict=True):
            start = time.perf_counter()
            work()
            each.append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def agree(found: float, expected: float, what: str) -> None:
    if abs(found - expected) > 1e-9 * abs(expected):
        sys.exit(f"{what}: {found!r} is not {expected!r}")


def noise(count: int) -> Floats:
    return np.random.default_rng(0).standard_normal(count, dtype=np.float32)


def as_bytes(weights: Floats) -> npt.NDArray[np.uint8]:
    return weights.reshape(-1).view(np.uint8)


class Table:
    """Rows of a Markdown table, printed as they come."""

    def __init__(self, *columns: str) -> None:
        self.lines: list[str] = []
        self._add(columns)
        self._add(["---"] * len(columns))

    def add(self, *cells: str) -> None:
        self._add(cells)

    def _add(self, cells: Sequence[str]) -> None:
        self.lines.append(f"| {' | '.join(cells)} |")
        print(self.lines[-1], flush=True)


def against_pybdm(quick: bool) -> list[str]:
    runs = 5 if quick else 31
    table = Table("what", "pybdm", "momos", "ratio")

    def row(what: str, reference: Callable[[], Any], work: Callable[[], Any]) -> None:
        theirs = median(reference, 1 if quick or "QuBD" in what else 3)
        mine = median(work, runs)
        table.add(what, f"{theirs:.3f} s", f"{1e3 * mine:.3f} ms", f"{theirs / mine:,.0f}x")

    weights = noise(FEW_BITS)
    bits = (weights > 0).astype(int)
    one = pybdm.BDM(ndim=1)
    agree(ours.sign_bdm(weights, threads=1), one.bdm(bits), "1-D BDM")
    row(
        f"1-D BDM of the signs of {FEW_BITS:,} float32, one thread",
        lambda: one.bdm(bits),
        lambda: ours.sign_bdm(weights, threads=1),
    )
    mine = ours.BDM(ndim=1)
    agree(mine.bdm(bits), one.bdm(bits), "1-D BDM of an array")
    agree(mine.ent(bits), one.ent(bits), "1-D entropy")
    small = bits.astype(np.uint8)
    row(f"BDM(1).bdm of {FEW_BITS:,} int64", lambda: one.bdm(bits), lambda: mine.bdm(bits))
    row(f"BDM(1).bdm of {FEW_BITS:,} uint8", lambda: one.bdm(small), lambda: mine.bdm(small))

    matrix = noise(SIDE * SIDE).reshape(SIDE, SIDE)
    plane = (matrix > 0).astype(int)
    two, mine_2d = pybdm.BDM(ndim=2), ours.BDM(ndim=2)
    agree(mine_2d.bdm(plane), two.bdm(plane), "2-D BDM")
    agree(ours.sign_bdm(matrix, ndim=2, threads=1), two.bdm(plane), "2-D BDM of signs")
    row(
        f"2-D BDM of the signs of {SIDE:,}x{SIDE:,} float32, one thread",
        lambda: two.bdm(plane),
        lambda: ours.sign_bdm(matrix, ndim=2, threads=1),
    )
    row(
        f"BDM(2).bdm of {SIDE:,}x{SIDE:,} int64", lambda: two.bdm(plane), lambda: mine_2d.bdm(plane)
    )

    tensor = torch.from_numpy(matrix)
    for found, expected in zip(qubd(tensor, threads=1), recipe(tensor), strict=True):
        agree(found, expected, "QuBD")
    row(
        f"QuBD, 8 planes of {SIDE:,}x{SIDE:,} float32, one thread",
        lambda: recipe(tensor),
        lambda: qubd(tensor, threads=1),
    )
    for symbols in (4, 5, 6, 9):
        row(*many_symbols(symbols))
    return table.lines


def recipe(tensor: torch.Tensor, bits: int = 8) -> list[float]:
    """The published definition of QuBD: planes by torch, measured by pybdm."""
    low, high = tensor.min(), tensor.max()
    levels = torch.round((tensor - low) / ((high - low) / (2**bits - 1)))
    levels = torch.clamp(levels, 0, 2**bits - 1)
    two = pybdm.BDM(ndim=2)
    planes = (torch.div(levels, 2**p, rounding_mode="floor") % 2 for p in range(bits))
    return [two.bdm(plane.numpy().astype(np.int8)) for plane in planes]


def many_symbols(symbols: int) -> tuple[str, Callable[[], Any], Callable[[], Any]]:
    array = np.random.default_rng(symbols).integers(0, symbols, SYMBOLS)
    theirs = pybdm.BDM(1, symbols, warn_if_missing_ctm=False)
    mine = ours.BDM(1, symbols, warn_if_missing_ctm=False)
    agree(mine.bdm(array), theirs.bdm(array), f"BDM of {symbols} symbols")
    what = f"BDM(1, {symbols}).bdm of {SYMBOLS:,} int64"
    return what, lambda: theirs.bdm(array), lambda: mine.bdm(array)


def against_memory(quick: bool) -> list[str]:
    runs = 5 if quick else 15
    weights = noise(MANY)
    data = as_bytes(weights)
    words = data.view(np.uint64)
    gigabytes = data.nbytes / 1e9
    cores = os.cpu_count() or 1

    def signs(threads: int) -> None:
        _core.SignCounter().update(data, "F32", threads=threads)

    xor, plain_sum, one, two = in_turn(
        [
            lambda: np.bitwise_xor.reduce(words),
            lambda: weights.sum(),
            lambda: signs(1),
            lambda: signs(min(2, cores)),
        ],
        runs,
    )
    table = Table("100 million float32", "GB/s", "share of the plain sum", "share of xor")
    for what, seconds in (
        ("plain sum (numpy, one thread)", plain_sum),
        ("xor of all words (numpy, one thread)", xor),
        ("1-D counting, one thread", one),
        ("1-D counting, two threads", two),
    ):
        table.add(
            what,
            f"{gigabytes / seconds:.2f}",
            f"{plain_sum / seconds:.0%}",
            f"{xor / seconds:.0%}",
        )

    def planes(threads: int) -> None:
        low, high = _core.finite_range(data, "F32", threads=threads) or (0.0, 0.0)
        _core.level_plane_complexities(data, "F32", COLUMNS, 8, low, high, threads=threads)

    def plane(threads: int) -> None:
        _core.sign_plane_counts(data, "F32", COLUMNS, threads=threads)

    few = max(3, runs // 3)
    eight, eight_two, single = in_turn(
        [lambda: planes(1), lambda: planes(min(2, cores)), lambda: plane(1)], few
    )
    second = Table(f"{ROWS:,}x{COLUMNS:,} float32, 4x4 blocks", "Gbit/s", "speed-up")
    bits = 8 * MANY / 1e9
    second.add("8 planes, range included, one thread", f"{bits / eight:.2f}", "")
    second.add(
        "8 planes, range included, two threads",
        f"{bits / eight_two:.2f}",
        f"{eight / eight_two:.2f}x",
    )
    second.add("signs, one thread", f"{MANY / 1e9 / single:.2f}", "")
    return [*table.lines, "", *second.lines, "", f"1-D on two threads: {one / two:.2f}x of one."]


def command(quick: bool) -> list[str]:
    """The command on a checkpoint of 25 million parameters, all measures but bz2 and lzma."""
    random = torch.Generator().manual_seed(0)
    shapes = [(1000, 2048), (2048, 2000), (3000, 3000), (2000, 500, 3, 3), (925, 1000)]
    state = {
        f"layer{index}.weight": torch.randn(shape, generator=random) * 0.02
        for index, shape in enumerate(shapes)
    }
    count = sum(tensor.numel() for tensor in state.values())
    table = Table("momos complexity", "wall time", "of that measuring")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.save(state, path)
        run = [sys.executable, "-m", "momos_rs", "complexity", str(path), "--json"]
        for what, skipped in (
            ("all measures but bz2 and lzma", ("bz2", "lzma")),
            ("all but compressors", ("bz2", "lzma", "gzip", "zstd")),
        ):
            arguments = [*run, *(each for name in skipped for each in ("--skip", name))]
            walls, own = [], []
            for _ in range(1 if quick else 3):
                start = time.perf_counter()
                output = subprocess.run(arguments, check=True, capture_output=True).stdout
                walls.append(time.perf_counter() - start)
                own.append(float(output.rpartition(b'"seconds": ')[2].split(b"\n")[0]))
            table.add(
                f"{what}, {count:,} float32",
                f"{statistics.median(walls):.2f} s",
                f"{statistics.median(own):.2f} s",
            )
    return table.lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("-o", "--output", type=Path, help="write the tables to a file")
    arguments = parser.parse_args()
    title = f"{processor()}, {os.cpu_count()} cores"
    lines = [
        "# Complexity",
        "",
        f"{title}; Python {platform.python_version()}, numpy {np.__version__}.",
        "",
    ]
    if hasattr(os, "getloadavg"):
        lines[2] += f" Load at the start: {os.getloadavg()[0]:.1f}."
    for part in (against_pybdm, against_memory, command):
        lines += [*part(arguments.quick), ""]
        print()
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
