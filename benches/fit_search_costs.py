"""Measures the constants of the cost model of the nearest-motif search, and what its choices cost.

Every kernel is timed on one thread for every instruction set of this processor, at a grid of block
sizes and numbers of motifs, on gaussian blocks and on layers of mixed scale (the geometric mean
counts), its answers compared with another kernel's. The core interpolates between the places of
the grid. With ``--write`` the constants replace ``crates/momos-core/src/nearest/cost_table.rs``;
sets this processor lacks keep theirs. With ``--check`` kernels are timed between those places,
to see what is lost by the choice of the core that is installed.

    python benches/fit_search_costs.py [--isa avx2 ...] [--write | --check] [-o FILE.md]
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from bench_nearest import blocks_of, motifs_of, spaced
from momos_rs import _core
from momos_rs.errors import InvalidArgumentError

TABLE = Path(__file__).parents[1] / "crates/momos-core/src/nearest/cost_table.rs"
ISAS = ("avx512-vnni", "avx512", "avx2", "portable")
KERNELS = ("brute", "narrow", "group-tree", "block-tree")
SIZES = {
    "brute": (1, 2, 4, 8, 16, 32, 64),
    "narrow": (2, 4, 6, 8, 16, 32, 64),
    "group-tree": (1, 2, 3, 4, 5, 6, 7, 8),
    "block-tree": (4, 5, 6, 7, 8),
}
"""Block sizes that are measured, as in the core's table."""
TREES = ("group-tree", "block-tree")

COUNTS = (32, 512, 8192, 131_072)
"""Numbers of motifs that are measured, as in the core's table."""

DENSITY = 4
"""Blocks for each motif in a tree, if they take no longer than they may: near ones share work."""

FEWEST = {"brute": 1 << 10, "narrow": 1 << 10, "group-tree": 1 << 15, "block-tree": 1 << 15}
MOST = 1 << 18
"""Blocks that are searched; trees take more if there are many motifs."""

SECONDS = {"brute": 0.2, "narrow": 0.2, "group-tree": 1.0, "block-tree": 1.0}
"""What a search may take, if there are more than the fewest blocks."""

CHECKED = 64
"""Blocks whose answers are compared."""

RUNS = 2

Rows = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]


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
    prepares, searches = [], []
    fewest = FEWEST[kernel]
    density = DENSITY if kernel in TREES else 1
    for kind in "gm":
        blocks = blocks_of(kind, max(MOST, density * motifs), size)
        table = motifs_of(blocks, motifs)
        largest = float(np.abs(blocks).max())
        few = spaced(blocks, fewest)
        seconds = timed(isa, kernel, few, table, largest)[1] / len(few)
        blocks = spaced(blocks, max(int(SECONDS[kernel] / seconds), fewest))
        found, _, _ = timed(isa, kernel, blocks, table, largest)
        some = slice(None, None, max(1, len(blocks) // CHECKED))
        expected = _core.nearest_motifs(
            np.ascontiguousarray(blocks[some]), table, kernel="brute", isa="portable"
        )
        assert np.array_equal(found[some], expected), (isa, kernel, size, motifs)
        runs = [timed(isa, kernel, blocks, table, largest)[1:] for _ in range(RUNS)]
        search, prepare = np.median(runs, axis=0)
        searches.append(1e9 * search / len(blocks))
        prepares.append(1e9 * prepare / motifs)
    return Cell(kernel, size, motifs, math.prod(prepares) ** 0.5, math.prod(searches) ** 0.5)


def timed(
    isa: str, kernel: str, blocks: Rows, motifs: Rows, largest: float
) -> tuple[Indices, float, float]:
    """What is found, the seconds of the search, and those of laying out the motifs."""
    start = time.process_time()
    prepared = _core.MotifSearch(
        motifs, blocks=len(blocks), largest=largest, kernel=kernel, isa=isa, threads=1
    )
    middle = time.process_time()
    found = prepared.nearest(blocks, threads=1)
    return found, time.process_time() - middle, middle - start


def relative_nnls(rows: list[list[float]], values: list[float]) -> list[float]:
    weights = 1 / np.array(values)
    return [
        float(each) for each in nnls(np.array(rows) * weights[:, None], np.ones(len(values)))[0]
    ]


def fit_linear(cells: list[Cell]) -> dict[str, float]:
    """``block + value s + k (pair + product s)`` a block and ``motif + coordinate s`` a motif."""
    search = relative_nnls(
        [[1, each.size, each.motifs, each.motifs * each.size] for each in cells],
        [each.search for each in cells],
    )
    prepare = relative_nnls([[1, each.size] for each in cells], [each.prepare for each in cells])
    names = ("block", "value", "pair", "product", "motif", "coordinate")
    return dict(zip(names, search + prepare, strict=True))


def number(value: float) -> str:
    digits = float(f"{value:.3g}")
    return f"{digits:_}" if digits >= 1 else repr(digits)


def rust(isa: str, cells: list[Cell]) -> str:
    """The constants of an instruction set as Rust."""
    linear = fit_linear([each for each in cells if each.kernel == "brute"])
    fields = ", ".join(f"{name}: {number(value)}" for name, value in linear.items())
    text = f"pub const {isa.upper().replace('-', '_')}: Costs = Costs {{"
    text += f" brute: Linear {{ {fields} }},"
    for kernel in KERNELS[1:]:
        rows = []
        motif = []
        for size in SIZES[kernel]:
            here = [each for each in cells if (each.kernel, each.size) == (kernel, size)]
            rows.append(f"[{', '.join(number(each.search) for each in here)}]")
            most = here[-1]
            motif.append(number(most.prepare / math.log2(most.motifs)))
        text += (
            f" {kernel.replace('-', '_')}: Grid {{ sizes: {list(SIZES[kernel])}, "
            f"block: [{', '.join(rows)}], motif: [{', '.join(motif)}] }},"
        )
    return text + " };\n"


def write(tables: dict[str, str]) -> None:
    text = TABLE.read_text()
    for isa, table in tables.items():
        name = isa.upper().replace("-", "_")
        text = re.sub(rf"pub const {name}: Costs = .*?\n\}};\n", lambda _: table, text, flags=re.S)
    TABLE.write_text(text)
    subprocess.run(["rustfmt", "--edition", "2024", str(TABLE)], check=True)


CHECKS = ((3, 2000), (4, 1000), (4, 60_000), (6, 3000), (8, 1000), (8, 60_000), (20, 2000))
"""Block sizes and numbers of motifs between those measured, to see what the model chooses."""


def measured_table(cells: list[Cell]) -> list[str]:
    lines = [
        "Nanoseconds per block; bold is the best.",
        "",
        "| s | motifs | " + " | ".join(KERNELS) + " |",
        "|---" * 6 + "|",
    ]
    for size, count in sorted({(each.size, each.motifs) for each in cells}):
        here = {each.kernel: each for each in cells if (each.size, each.motifs) == (size, count)}
        best = min(here, key=lambda kernel: here[kernel].search)
        lines.append(row(size, count, here, best))
    return lines


def check_choices(isa: str) -> list[str]:
    """What the model that is compiled in chooses between the places that it knows."""
    lines = [
        "Between the measured places, nanoseconds per block; bold is what the core chooses.",
        "",
        "| s | motifs | " + " | ".join(KERNELS) + " | over the best |",
        "|---" * 7 + "|",
    ]
    for size, count in CHECKS:
        cells = {}
        for kernel in KERNELS:
            if kernel not in TREES or size in SIZES[kernel]:
                cells[kernel] = measure(isa, kernel, size, count)
        table = blocks_of("g", count, size)
        chosen = _core.MotifSearch(table, blocks=MOST, largest=1.0, isa=isa).kernel
        loss = cells[chosen].search / min(each.search for each in cells.values()) - 1
        lines.append(f"{row(size, count, cells, chosen)} {loss:.0%} |")
    return lines


def row(size: int, count: int, cells: dict[str, Cell], chosen: str) -> str:
    values = []
    for kernel in KERNELS:
        text = f"{cells[kernel].search:.0f}" if kernel in cells else ""
        values.append(f"**{text}**" if kernel == chosen else text)
    return f"| {size} | {count:,} | " + " | ".join(values) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", nargs="+", choices=ISAS, default=list(ISAS))
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--write", action="store_true", help="replace the core's table")
    task.add_argument("--check", action="store_true", help="what the core chooses, and its cost")
    parser.add_argument("-o", "--output", type=Path, help="write the table to a file, too")
    options = parser.parse_args()
    tables = {}
    lines = []
    for isa in options.isa:
        try:
            _core.nearest_motifs(np.zeros((1, 1), "f4"), np.zeros((1, 1), "f4"), isa=isa)
        except InvalidArgumentError:
            print(f"this processor does not have {isa}: its constants stay")
            continue
        lines += [f"\n## {isa}\n"]
        if not options.check:
            cells = [
                measure(isa, kernel, size, count)
                for kernel in KERNELS
                for size in SIZES[kernel]
                for count in COUNTS
            ]
            tables[isa] = rust(isa, cells)
            lines += measured_table(cells)
        else:
            lines += check_choices(isa)
    report = "\n".join(lines)
    print(report)
    if options.output:
        head = "# What the kernels of the nearest-motif search cost\n\nOne thread; by "
        options.output.write_text(head + "`python benches/fit_search_costs.py`.\n" + report + "\n")
    if options.write:
        write(tables)


if __name__ == "__main__":
    main()
