"""The Block Decomposition Method: pybdm 0.1.0's ``BDM``, counted in Rust."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from math import log2
from typing import Any, TypeAlias

import numpy as np

from momos_rs import _core

from . import options
from .encoding import normalize_key, string_from_array
from .exceptions import BDMConfigurationError, BDMRuntimeWarning, CTMDatasetNotFoundError
from .partitions import Partition, PartitionCorrelated, PartitionIgnore, PartitionRecursive
from .tables import BY_DIMENSIONS, check_name, load_table

__all__ = ["BDM"]

Array: TypeAlias = "np.ndarray[Any, Any]"
Key: TypeAlias = "tuple[str, float | None]"

BUILT_IN = (PartitionIgnore, PartitionCorrelated, PartitionRecursive)


class BDM:
    """Block Decomposition Method (Zenil et al. 2018, arXiv 1609.00110).

    A drop-in for ``pybdm.BDM`` of version 0.1.0: same arguments, methods, results, errors and
    warnings. Arrays are counted in the core; only custom partition classes, and symbols outside
    of the alphabet let through by ``check_data=False``, are cut block by block in Python.

    Args:
        ndim: Number of dimensions of the data.
        nsymbols: Size of the alphabet: 2, and for one dimension 4, 5, 6 or 9.
        shape: Shape of a block, equal in every dimension; the largest of the table by default.
        partition: Class of the partition; see :mod:`momos_rs.bdm.partitions`.
        ctmname: Name of the table; chosen by ``ndim`` and ``nsymbols`` by default.
        warn_if_missing_ctm: Whether to warn of blocks that the table lacks. They are given one
            bit more than the most complex block of their shape.
        raise_if_zero: Whether a BDM of zero is an error.
        **kwds: Passed to the partition.

    Raises:
        CTMDatasetNotFoundError: If there is no table for ``ndim`` and ``nsymbols``.
        BDMConfigurationError: If ``ctmname`` is malformed or ``shape`` not equal in every
            dimension.
        ValueError: If there is no table ``ctmname``.

    >>> BDM(ndim=1).bdm(np.ones((12,), dtype=int))
    25.610413747641715
    """

    def __init__(
        self,
        ndim: int,
        nsymbols: int = 2,
        shape: tuple[int, ...] | None = None,
        partition: Callable[..., Partition] = PartitionIgnore,
        ctmname: str | None = None,
        warn_if_missing_ctm: bool = True,
        raise_if_zero: bool = True,
        **kwds: Any,
    ) -> None:
        self.ndim = ndim
        try:
            self.ctmname = ctmname or BY_DIMENSIONS[ndim, nsymbols]
        except KeyError:
            raise CTMDatasetNotFoundError(
                f"no CTM dataset for 'ndim={ndim}' and 'nsymbols={nsymbols}'"
            ) from None
        try:
            symbols_part, shape_part = self.ctmname.split("-")[-2:]
        except ValueError:
            raise BDMConfigurationError(
                "incorrect 'ctmname'; it should be in format 'name-b<nsymbols>-d<shape>'"
            ) from None
        check_name(self.ctmname)
        self.nsymbols = int(symbols_part[1:])
        if shape is None:
            shape = tuple(int(size) for size in shape_part[1:].split("x"))
        if any(size != shape[0] for size in shape):
            raise BDMConfigurationError("'shape' has to be equal in each dimension")
        self.warn_if_missing_ctm = warn_if_missing_ctm
        self.raise_if_zero = raise_if_zero
        self.partition = partition(shape=shape, **kwds)

    def __repr__(self) -> str:
        partition = str(self.partition)[1:-1]
        return (
            f"<{type(self).__name__}(ndim={self.ndim}, nsymbols={self.nsymbols}) with {partition}>"
        )

    @property
    def table(self) -> _core.CtmTable:
        """The CTM table, loaded when first needed and once for all objects."""
        return load_table(self.ctmname)

    def decompose(self, X: Any) -> Iterator[Array]:  # noqa: N803
        """The blocks of an array, as views.

        Raises:
            AttributeError: If blocks have not as many dimensions as the array.

        >>> bdm = BDM(ndim=2, shape=(2, 2))
        >>> len(list(bdm.decompose(np.ones((4, 3), dtype=int))))
        2
        """
        yield from self.partition.decompose(np.asarray(X))

    def lookup(self, blocks: Iterable[Array], lookup_ctm: bool = True) -> Iterator[Key]:
        """The digits of each block, and its complexity unless ``lookup_ctm`` is false.

        Raises:
            KeyError: If the table has no blocks of that shape.

        >>> bdm = BDM(ndim=1)
        >>> list(bdm.lookup(bdm.decompose(np.ones((12,), dtype=int))))
        [('111111111111', 25.610413747641715)]
        """
        for block in blocks:
            digits = string_from_array(block)
            if not lookup_ctm:
                yield digits, None
                continue
            complexity = self._complexity(block.shape, normalize_key(digits))
            if complexity is None:
                self._warn_of_missing(1, block.shape, digits)
                complexity = self.table.missing(block.shape[0])
            yield digits, complexity

    def count(self, ctms: Iterable[Key]) -> Counter[Key]:
        """How often each block occurs."""
        return Counter(ctms)

    def decompose_and_count(
        self,
        X: Any,  # noqa: N803
        lookup_ctm: bool = True,
    ) -> Counter[Key]:
        """As :meth:`decompose`, :meth:`lookup` and :meth:`count`, in one step.

        >>> BDM(ndim=1).decompose_and_count(np.ones((12,), dtype=int))
        Counter({('111111111111', 25.610413747641715): 1})
        """
        array = np.asarray(X)
        tally = self._tally(array)
        if tally is None:
            return self.count(self.lookup(self.partition.decompose(array), lookup_ctm))
        counter: Counter[Key] = Counter()
        missing = 0
        first: tuple[tuple[int, ...], str] = ((), "")
        for width, digits, count in tally.items():
            complexity = None
            if lookup_ctm:
                shape = (width,) * array.ndim
                complexity = self._complexity(shape, digits)
                if complexity is None:
                    first = (shape, digits) if missing == 0 else first
                    missing += 1
                    complexity = self.table.missing(width)
            counter[digits, complexity] = count
        self._warn_of_missing(missing, *first)
        return counter

    def compute_bdm(self, *counters: Counter[Any]) -> float:
        """BDM of the blocks in counters: those of parts of one object are joined first.

        >>> part = Counter([('111111111111', 1.95207842085224e-08)])
        >>> BDM(ndim=1).compute_bdm(part, part)
        1.000000019520784
        """
        joined = reduce(lambda left, right: left + right, counters)
        return sum((complexity + log2(n) for (_, complexity), n in joined.items()), 0.0)

    def bdm(
        self,
        X: Any,  # noqa: N803
        normalized: bool = False,
        check_data: bool = True,
    ) -> float:
        """Algorithmic complexity of an array in bits.

        Args:
            X: Array of integers from 0 to ``nsymbols - 1``.
            normalized: Scale to [0, 1] between the least and the greatest BDM of the shape.
            check_data: Whether to check the symbols.

        Raises:
            TypeError: If the array is not of integers.
            ValueError: If it has symbols outside of the alphabet, or if the BDM is zero and that
                is to be an error.
            NotImplementedError: For the normalized BDM of a correlated partition.
            KeyError: If the table has no blocks of the shape that the partition cuts.

        >>> BDM(ndim=2).bdm(np.ones((12, 12), dtype=int))
        25.176631293734488
        """
        array, tally = self._checked_tally(X, check_data)
        self._refuse_correlated(normalized, "BDM")
        if tally is None:
            value = self.compute_bdm(self.decompose_and_count(array))
        else:
            value = self._bdm_of(array, tally)
        if self.raise_if_zero and options.get("raise_if_zero") and value == 0:
            raise ValueError("Computed BDM is 0, dataset may have incorrect dimensions")
        if normalized:
            ranges = [
                self.table.bdm_range(width, blocks) for width, blocks in self._blocks(array, tally)
            ]
            least = sum(least for least, _ in ranges)
            greatest = sum(greatest for _, greatest in ranges)
            value = (value - least) / (greatest - least)
        return value

    def nbdm(self, X: Any, **kwds: Any) -> float:  # noqa: N803
        """Normalized BDM: :meth:`bdm` with ``normalized=True``."""
        return self.bdm(X, normalized=True, **kwds)

    def compute_ent(self, *counters: Counter[Any]) -> float:
        """Block entropy in bits of the blocks in counters, joined first.

        >>> one = Counter([('111111111111', 1.95207842085224e-08)])
        >>> other = Counter([('000000000000', 1.95207842085224e-08)])
        >>> BDM(ndim=1).compute_ent(one, other)
        1.0
        """
        joined = reduce(lambda left, right: left + right, counters)
        total = sum(joined.values())
        return sum((-count / total * log2(count / total) for count in joined.values()), 0.0)

    def ent(
        self,
        X: Any,  # noqa: N803
        normalized: bool = False,
        check_data: bool = True,
    ) -> float:
        """Block entropy of an array in bits.

        Args:
            X: Array of integers from 0 to ``nsymbols - 1``.
            normalized: Scale to [0, 1] between the least and the greatest entropy of the shape.
            check_data: Whether to check the symbols.

        Raises:
            TypeError: If the array is not of integers.
            ValueError: If it has symbols outside of the alphabet.
            NotImplementedError: For the normalized entropy of a correlated partition.

        >>> BDM(ndim=2).ent(np.ones((12, 12), dtype=int))
        0.0
        """
        array, tally = self._checked_tally(X, check_data)
        self._refuse_correlated(normalized, "entropy")
        if tally is None:
            value = self.compute_ent(self.decompose_and_count(array, lookup_ctm=False))
        else:
            value = tally.entropy()
        if normalized:
            value = self._normalized_entropy(value, self._blocks(array, tally))
        return value

    def nent(self, X: Any, **kwds: Any) -> float:  # noqa: N803
        """Normalized block entropy: :meth:`ent` with ``normalized=True``."""
        return self.ent(X, normalized=True, **kwds)

    def _checked_tally(self, data: Any, check: bool) -> tuple[Array, _core.BlockTally | None]:
        """The data as an array, checked, and its blocks counted in the core if that can."""
        array = np.asarray(data)
        if check and not np.issubdtype(array.dtype, np.integer):
            raise TypeError(
                "'X' has to be an integer array; the signs of weights are measured by "
                "momos_rs.bdm.sign_bdm"
            )
        tally = self._tally(array)
        if check and tally is None:
            self._check_symbols(array)
        return array, tally

    def _check_symbols(self, array: Array) -> None:
        symbols = np.unique(array)
        if symbols.size > self.nsymbols:
            raise ValueError(f"'X' has more than {self.nsymbols} unique symbols")
        bad = symbols[(symbols < 0) | (symbols >= self.nsymbols)]
        if bad.size:
            raise ValueError(
                f"'X' contains symbols outside of [0, {self.nsymbols - 1}]: "
                f"{', '.join(map(str, bad))}"
            )

    def _refuse_correlated(self, normalized: bool, what: str) -> None:
        if normalized and isinstance(self.partition, PartitionCorrelated):
            raise NotImplementedError(
                f"normalized {what} not implemented for '{PartitionCorrelated.name}' partition"
            )

    def _tally(self, array: Array) -> _core.BlockTally | None:
        """The blocks counted in the core, None if they must be cut in Python."""
        symbols = self._symbols(array)
        if symbols is None:
            return None
        return _core.count_blocks(
            symbols,
            array.shape,
            self.nsymbols,
            self.partition.shape[0],
            self.partition.name,  # type: ignore[arg-type]
            self.partition.parameter,
        )

    def _symbols(self, array: Array) -> Array | None:
        """The symbols in eight bits each, None if the core cannot take them or the partition."""
        shape = self.partition.shape
        if (
            type(self.partition) not in BUILT_IN
            or array.ndim != len(shape)
            or array.ndim not in (1, 2)
            or not (np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_)
        ):
            return None
        if array.dtype == np.uint8 and array.flags.c_contiguous and array.size:
            flat = array.reshape(-1)
            return flat if int(flat.max()) < self.nsymbols else None
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
        return _core.narrow_symbols(little.view(np.uint8), array.itemsize, self.nsymbols)

    def _complexity(self, shape: tuple[int, ...], digits: str) -> float | None:
        """Complexity of a block, None if the table lacks it."""
        if shape != (shape[0],) * self._table_dimensions or shape[0] not in self.table:
            raise KeyError(shape)
        return self.table.complexity(shape[0], digits)

    @property
    def _table_dimensions(self) -> int:
        return self.ctmname.rpartition("-")[2].count("x") + 1

    def _bdm_of(self, array: Array, tally: _core.BlockTally) -> float:
        if array.ndim != self._table_dimensions:
            raise KeyError(self.partition.shape)
        try:
            value, missing, first = tally.bdm(self.table)
        except KeyError as error:
            # The core knows of widths only.
            raise KeyError((error.args[0],) * array.ndim) from None
        if first is not None:
            width, digits = first
            self._warn_of_missing(missing, (width,) * array.ndim, digits)
        return value

    def _warn_of_missing(self, missing: int, shape: tuple[int, ...], digits: str) -> None:
        """Warns once, of the first block missing and the number of others."""
        if not (missing and self.warn_if_missing_ctm and options.get("warn_if_missing_ctm")):
            return
        others = f", nor {missing - 1} others" if missing > 1 else ""
        warnings.warn(
            f"CTM dataset does not contain object '{digits}' of shape {shape}{others}",
            BDMRuntimeWarning,
            stacklevel=3,
        )

    def _blocks(self, array: Array, tally: _core.BlockTally | None) -> list[tuple[int, int]]:
        """Number of blocks of each width that a normalised value is scaled by."""
        if isinstance(self.partition, PartitionRecursive) and array.ndim == 1:
            # As in pybdm, the rest counts as a block even where it is below the least width.
            width = self.partition.shape[0]
            whole, rest = divmod(array.size, width)
            return [(width, whole)] * bool(whole) + [(rest, 1)] * bool(rest)
        if tally is not None:
            return tally.blocks()
        widths = Counter(block.shape[0] for block in self.partition.decompose(array))
        return list(widths.items())

    def _normalized_entropy(self, value: float, blocks: list[tuple[int, int]]) -> float:
        distinct = [min(count, self.table.known(width)) for width, count in blocks]
        greatest = _core.greatest_entropy(distinct)
        least = log2(len(blocks)) if blocks else 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            # One block is neither simple nor complex: 0 / 0, NaN as in pybdm.
            return float(np.float64(value - least) / np.float64(greatest - least))
