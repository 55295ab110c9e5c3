"""Writes the binary CTM tables that are compiled into momos-core.

The Coding Theorem Method's values are published data, shipped by pybdm 0.1.0 as pickles. This
script reads the two binary ones (strings of 1 to 12 symbols, squares of width 1 to 4) and writes
them in the compact form that ``crates/momos-core/src/complexity/ctm.rs`` decodes:

- the number ``d`` of distinct values, uint32;
- the distinct values in ascending order, ``d`` float64;
- for every shape, strings first, by size: for every block whose first element is 0, in ascending
  order of its key, the position of its value among the distinct ones, uint16.

All little-endian. The key of a block has its element ``i`` (in C order) at bit ``i``. A block
and its complement have the same value, so blocks that begin with 1 are left out.

Usage: python scripts/generate_ctm_tables.py   (pybdm 0.1.0 must be installed)
"""

from __future__ import annotations

import gzip
import pickle
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

OUTPUT = Path("crates/momos-core/src/complexity/ctm_binary.bin")
SHAPES: tuple[tuple[int, ...], ...] = (
    *((length,) for length in range(1, 13)),
    *((width, width) for width in range(1, 5)),
)


def load(name: str) -> dict[tuple[int, ...], dict[str, float]]:
    """The CTM table ``name`` of the installed pybdm, by shape and string key."""
    path = distribution("pybdm").locate_file(f"pybdm/ctmdata/{name}.pkl.gz")
    table: Any = pickle.loads(gzip.decompress(Path(str(path)).read_bytes()))
    return {tuple(shape): dict(values) for shape, values in table.items()}


def values_of(table: dict[str, float], elements: int) -> list[float]:
    """The values of all blocks that begin with 0, in ascending order of their keys."""
    values = []
    for key in range(0, 1 << elements, 2):
        string = "".join(str(key >> i & 1) for i in range(elements))
        values.append(table[string])
    if len(values) != len(table):
        raise SystemExit(f"{len(table)} entries where {len(values)} blocks exist")
    return values


def main() -> None:
    """Writes the tables."""
    tables = load("ctm-b2-d12") | load("ctm-b2-d4x4")
    values = np.concatenate([values_of(tables[shape], int(np.prod(shape))) for shape in SHAPES])
    distinct, positions = np.unique(values, return_inverse=True)
    OUTPUT.write_bytes(
        np.uint32(len(distinct)).astype("<u4").tobytes()
        + distinct.astype("<f8").tobytes()
        + positions.astype("<u2").tobytes()
    )
    print(f"{OUTPUT}: {len(values)} entries, {len(distinct)} distinct values")


if __name__ == "__main__":
    main()
