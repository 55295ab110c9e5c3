"""Fits the cost model of the nearest-motif search to measurements, and says what its choices cost.

Every kernel is timed on one thread for every instruction set of this processor, on gaussian blocks
and on layers of mixed scale (the geometric mean counts), its answers compared with another
kernel's. With ``--write`` the fitted constants replace
``crates/momos-core/src/nearest/cost_table.rs``; sets this processor lacks keep theirs.

    python benches/fit_search_costs.py [--quick] [--isa avx2 ...] [--write] [-o FILE.md]
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from bench_nearest import blocks_of, motifs_of
from momos_rs import _core
from momos_rs.errors import InvalidArgumentError

TABLE = Path(__file__).parents[1] / "crates/momos-core/src/nearest/cost_table.rs"
ISAS = ("avx512-vnni", "avx512", "avx2", "portable")
LINEAR = ("brute", "narrow")
TREES = ("group-tree", "block-tree")
TREE_SIZES = {"group-tree": range(1, 9), "block-tree": range(4, 9)}
LINEAR_SIZES = (1, 2, 4, 8, 16, 32, 64)
TREE_COUNTS = (128, 2048, 32768)
LINEAR_COUNTS = (64, 1024, 16384)
RUNS = 2


@dataclass(frozen=True)
class Cell:
    """What a search took.

    Attributes:
        prepare: Nanoseconds per motif.
        search: Nanoseconds per block.
    """

    kernel: str
    size: int
    motifs: int
    prepare: float
    search: float


def measure(isa: str, kernel: str, size: int, motifs: int) -> Cell:
    # Trees sort the blocks, so that it matters how many there are.
    most = 200_000 if kernel in TREES else min(max(20_000_000 // motifs, 1024), 20_000)
    prepares, searches = [], []
    for kind in "gm":
        blocks = blocks_of(kind, max(most, 2 * motifs), size)
        table = motifs_of(blocks, motifs)
        blocks = np.ascontiguousarray(blocks[:: len(blocks) // most])
        largest = float(max(np.abs(blocks).max(), np.abs(table).max()))
        prepare, search = [], []
        for run in range(RUNS + 1):
            start = time.process_time()
            prepared = _core.MotifSearch(
                table, blocks=len(blocks), largest=largest, kernel=kernel, isa=isa, threads=1
            )
            middle = time.process_time()
            found = prepared.nearest(blocks, threads=1)
            end = time.process_time()
            if run == 0:
                some = np.ascontiguousarray(blocks[::997])
                expected = _core.nearest_motifs(some, table, kernel="brute", isa="portable")
                assert np.array_equal(found[::997], expected), (isa, kernel, size, motifs)
                continue
            prepare.append((middle - start) / motifs)
            search.append((end - middle) / len(blocks))
        prepares.append(statistics.median(prepare) * 1e9)
        searches.append(statistics.median(search) * 1e9)
    return Cell(kernel, size, motifs, math.prod(prepares) ** 0.5, math.prod(searches) ** 0.5)


def relative_nnls(rows: list[list[float]], values: list[float]) -> list[float]:
    weights = 1 / np.array(values)
    return [
        float(each) for each in nnls(np.array(rows) * weights[:, None], np.ones(len(values)))[0]
    ]


def words(kernel: str, size: int) -> int:
    """Values of a block, whole words of four where integers are compared."""
    return -(-size // 4) * 4 if kernel == "narrow" else size


def fit_linear(cells: list[Cell]) -> list[float]:
    """``block + value s + k (pair + product s)`` a block and ``motif + coordinate s`` a motif."""
    sizes = [words(each.kernel, each.size) for each in cells]
    search = relative_nnls(
        [[1, s, each.motifs, each.motifs * s] for each, s in zip(cells, sizes, strict=True)],
        [each.search for each in cells],
    )
    prepare = relative_nnls([[1, s] for s in sizes], [each.prepare for each in cells])
    return search + prepare


SORTING = 20.0
"""Nanoseconds for sorting a block, whatever the motifs."""


def fit_walk(cells: list[Cell]) -> list[float]:
    """``block + factor k^power`` per block and ``motif log2 k`` per motif."""
    k = np.log([each.motifs for each in cells])
    walks = np.log([max(each.search - SORTING, 1) for each in cells])
    power, factor = np.polyfit(k, walks, 1)
    motif = statistics.median(each.prepare / math.log2(each.motifs) for each in cells)
    return [SORTING, math.exp(factor), float(power), motif]


def number(value: float) -> str:
    text = f"{value:.3g}"
    return text if "." in text or "e" in text else text + ".0"


def rust(isa: str, fitted: dict[str, list[list[float]]]) -> str:
    """The constants of an instruction set as Rust."""

    def linear(kernel: str) -> str:
        names = ("block", "value", "pair", "product", "motif", "coordinate")
        values = fitted[kernel][0]
        fields = ", ".join(f"{n}: {number(v)}" for n, v in zip(names, values, strict=True))
        return f"Linear {{ {fields} }}"

    def walks(kernel: str) -> str:
        names = ("block", "factor", "power", "motif")
        rows = []
        for values in fitted[kernel]:
            fields = ", ".join(f"{n}: {number(v)}" for n, v in zip(names, values, strict=True))
            rows.append(f"Walk {{ {fields} }},")
        return "[\n" + "\n".join(rows) + "\n]"

    name = isa.upper().replace("-", "_")
    return (
        f"pub const {name}: Costs = Costs {{ brute: {linear('brute')}, "
        f"narrow: {linear('narrow')}, group_tree: {walks('group-tree')}, "
        f"block_tree: {walks('block-tree')} }};\n"
    )


def write(tables: dict[str, str]) -> None:
    text = TABLE.read_text()
    for isa, table in tables.items():
        name = isa.upper().replace("-", "_")
        text = re.sub(rf"pub const {name}: Costs = .*?\n\}};\n", lambda _: table, text, flags=re.S)
    TABLE.write_text(text)
    subprocess.run(["rustfmt", "--edition", "2024", str(TABLE)], check=True)


def predicted(fitted: dict[str, list[list[float]]], kernel: str, size: int, k: int) -> float:
    if kernel in LINEAR:
        block, value, pair, product, _, _ = fitted[kernel][0]
        s = words(kernel, size)
        return block + value * s + k * (pair + product * s)
    block, factor, power, _ = fitted[kernel][size - TREE_SIZES[kernel][0]]
    return float(block + factor * k**power)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few sizes, to see that it works")
    parser.add_argument("--isa", nargs="+", choices=ISAS, default=list(ISAS))
    parser.add_argument("--write", action="store_true", help="replace the core's table")
    parser.add_argument("-o", "--output", type=Path, help="write the table to a file, too")
    options = parser.parse_args()
    global RUNS
    if options.quick:
        RUNS = 1
    tree_counts = TREE_COUNTS[:2] if options.quick else TREE_COUNTS
    linear_sizes = (1, 4, 16) if options.quick else LINEAR_SIZES
    tables = {}
    lines = []
    for isa in options.isa:
        try:
            _core.nearest_motifs(np.zeros((1, 1), "f4"), np.zeros((1, 1), "f4"), isa=isa)
        except InvalidArgumentError:
            print(f"this processor does not have {isa}: its constants stay")
            continue
        cells = [
            measure(isa, kernel, size, count)
            for kernel in LINEAR
            for size in linear_sizes
            for count in LINEAR_COUNTS
        ]
        cells += [
            measure(isa, kernel, size, count)
            for kernel in TREES
            for size in TREE_SIZES[kernel]
            for count in tree_counts
        ]
        fitted: dict[str, list[list[float]]] = {
            kernel: [fit_linear([each for each in cells if each.kernel == kernel])]
            for kernel in LINEAR
        }
        for kernel in TREES:
            fitted[kernel] = [
                fit_walk([each for each in cells if (each.kernel, each.size) == (kernel, size)])
                for size in TREE_SIZES[kernel]
            ]
        tables[isa] = rust(isa, fitted)
        lines += [
            f"\n## {isa}\n",
            "Nanoseconds per block, measured / fitted; bold is what the model chooses.\n",
            "| s | motifs | " + " | ".join((*LINEAR, *TREES)) + " | over the best |",
            "|---" * 7 + "|",
        ]
        measured = {(each.kernel, each.size, each.motifs): each.search for each in cells}
        losses = []
        for size, count in sorted({(each.size, each.motifs) for each in cells}):
            kernels = [k for k in (*LINEAR, *TREES) if (k, size, count) in measured]
            chosen = min(kernels, key=lambda k: predicted(fitted, k, size, count))
            best = min(measured[k, size, count] for k in kernels)
            loss = measured[chosen, size, count] / best - 1
            losses.append(loss)
            row = []
            for kernel in (*LINEAR, *TREES):
                if kernel not in kernels:
                    row.append("")
                    continue
                value = measured[kernel, size, count]
                text = f"{value:.0f} / {predicted(fitted, kernel, size, count):.0f}"
                row.append(f"**{text}**" if kernel == chosen else text)
            lines.append(f"| {size} | {count:,} | " + " | ".join(row) + f" | {loss:.0%} |")
        lines.append(
            f"\nThe choice costs {statistics.mean(losses):.1%} more than the best one on average, "
            f"{max(losses):.0%} at most."
        )
    report = "\n".join(lines)
    print(report)
    if options.output:
        head = "# What the kernels of the nearest-motif search cost\n\nOne thread; by "
        options.output.write_text(head + "`python benches/fit_search_costs.py`.\n" + report + "\n")
    if options.write:
        write(tables)


if __name__ == "__main__":
    main()
