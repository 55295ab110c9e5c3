"""CTM tables by name: the binary ones compiled in, the others from pybdm's installed files.

pybdm itself is not imported: its data files are found by the package metadata and read by the core,
which cannot run what a pickle asks for.
"""

from __future__ import annotations

import gzip
import io
import pickle
import re
from collections import OrderedDict, defaultdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from momos_rs import _core

from .exceptions import CTMDatasetNotFoundError

__all__ = ["get_ctm_dataset", "list_ctm_datasets", "load_table"]

FILES = {
    "CTM-B2-D12": "ctm-b2-d12.pkl.gz",
    "CTM-B2-D4x4": "ctm-b2-d4x4.pkl.gz",
    "CTM-B4-D12": "ctm-b4-d12.pkl.gz",
    "CTM-B5-D12": "ctm-b5-d12.pkl.gz",
    "CTM-B6-D12": "ctm-b6-d12.pkl.gz",
    "CTM-B9-D12": "ctm-b9-d12.pkl.gz",
}

BY_DIMENSIONS = {
    (1, 2): "CTM-B2-D12",
    (1, 4): "CTM-B4-D12",
    (1, 5): "CTM-B5-D12",
    (1, 6): "CTM-B6-D12",
    (1, 9): "CTM-B9-D12",
    (2, 2): "CTM-B2-D4x4",
}
"""The table for a number of dimensions and of symbols."""

_VERSION = "0.1.0"
_DICTIONARIES = {
    ("builtins", "dict"): dict,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
}


def list_ctm_datasets() -> list[str]:
    """Names of all tables.

    >>> list_ctm_datasets()[:2]
    ['CTM-B2-D12', 'CTM-B2-D4x4']
    """
    return sorted(FILES)


@cache
def load_table(name: str) -> _core.CtmTable:
    """The table of that name; the first call for a large alphabet takes up to a second.

    Raises:
        ValueError: If there is no table of that name.
        CTMDatasetNotFoundError: If its data is not installed.
        CorruptionError: If its data is damaged.
    """
    check_name(name)
    if name == "CTM-B2-D12":
        return _core.CtmTable.strings()
    if name == "CTM-B2-D4x4":
        return _core.CtmTable.squares()
    found = re.fullmatch(r"CTM-B(\d+)-D12", name)
    assert found is not None
    return _core.CtmTable.from_pickle(_unpacked(name), int(found[1]))


def check_name(name: str) -> None:
    """Raises ValueError unless there is a table of that name."""
    if name not in FILES:
        raise ValueError(f"There is no {name} CTM dataset")


def _unpacked(name: str) -> bytes:
    try:
        distribution = metadata.distribution("pybdm")
    except metadata.PackageNotFoundError:
        distribution = None
    path = None
    if distribution is not None:
        path = Path(str(distribution.locate_file(f"pybdm/ctmdata/{FILES[name]}")))
    if path is None or not path.is_file():
        raise CTMDatasetNotFoundError(
            f"{name} is read from the files of pybdm {_VERSION}, which is not installed; "
            f"run pip install --no-deps pybdm=={_VERSION}"
        )
    return gzip.decompress(path.read_bytes())


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """One of the three dictionary classes.

        Raises:
            UnpicklingError: If it is another class.
        """
        try:
            return _DICTIONARIES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"a table needs no {module}.{name}") from None


@cache
def get_ctm_dataset(
    name: str,
) -> tuple[dict[tuple[int, ...], OrderedDict[str, float]], dict[tuple[int, ...], float]]:
    """A table as dictionaries, as pybdm returns it; :class:`momos_rs.BDM` does not need it.

    Returns:
        Complexity by shape and digits of the normal block, the most complex first; and the
        complexity of missing blocks by shape.

    Raises:
        ValueError: If there is no table of that name.
        CTMDatasetNotFoundError: If its data is not installed.
    """
    check_name(name)
    raw = _Unpickler(io.BytesIO(_unpacked(name))).load()
    tables = {
        shape: OrderedDict(sorted(values.items(), key=lambda item: item[1], reverse=True))
        for shape, values in raw.items()
    }
    return tables, {shape: max(values.values()) + 1 for shape, values in tables.items()}
