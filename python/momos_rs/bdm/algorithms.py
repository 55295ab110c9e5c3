"""Perturbation experiments, as pybdm's ``algorithms``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import choice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from momos_rs import _core

from .bdm import BDM

__all__ = ["PerturbationExperiment"]

Array = np.ndarray[Any, Any]


class PerturbationExperiment:
    """How the complexity of an array changes when its elements do.

    A drop-in for ``pybdm.PerturbationExperiment``. Changes are the exact differences of the
    metric; pybdm's are not where one element is in several equal blocks (overlapping or constant
    ones), or for a shift above 1.

    Attributes:
        bdm: The method, configured for the data.
        X: The array; it is changed in place by changes that are kept.
        metric: ``"bdm"`` or ``"ent"``.

    >>> X = np.ones((30,), dtype=int)
    >>> round(PerturbationExperiment(BDM(ndim=1), X).perturb((10,), -1), 8)
    26.91763013
    """

    def __init__(
        self,
        bdm: BDM,
        X: Array | None = None,  # noqa: N803
        metric: Literal["bdm", "ent"] = "bdm",
    ) -> None:
        if metric not in ("bdm", "ent"):
            raise AttributeError("Incorrect metric, not one of: 'bdm', 'ent'")
        self.bdm = bdm
        self.metric = metric
        self.X = X
        self._core: _core.Perturbation | None = None
        if X is not None:
            self.set_data(X)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(metric={self.metric}) with {str(self.bdm)[1:-1]}>"

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._data.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        shape: tuple[int, ...] = self._data.shape
        return shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._data.ndim

    @property
    def _data(self) -> Array:
        if self.X is None:
            raise AttributeError("there is no data yet; call set_data first")
        return self.X

    def set_data(self, X: Array) -> None:  # noqa: N803
        """Sets the array.

        Raises:
            ValueError: If it has symbols outside of the alphabet.
        """
        if X.size and (X.min() < 0 or X.max() >= self.bdm.nsymbols):
            raise ValueError("'X' is malformed (too many or ill-mapped symbols)")
        self.X = X
        self._core = None
        symbols = self.bdm._symbols(X)
        if symbols is not None:
            self._core = _core.Perturbation(
                symbols,
                X.shape,
                self.bdm.nsymbols,
                self.bdm.partition.shape[0],
                self.bdm.partition.name,  # type: ignore[arg-type]
                self.bdm.partition.parameter,
                self.bdm.table if self.metric == "bdm" else None,
            )

    def perturb(self, idx: tuple[int, ...], value: int = -1, keep_changes: bool = False) -> float:
        """The change of the metric if one element is set.

        Args:
            idx: Index of the element.
            value: Its new value; negative for another one at random (binary: the other one).
            keep_changes: Whether the element stays changed.

        Raises:
            IndexError: If there is no such element.
        """
        data = self._data
        index = tuple(
            int(place) + size if place < 0 else int(place)
            for place, size in zip(idx, data.shape, strict=True)
        )
        old = data[index]
        if value < 0:
            others = [symbol for symbol in range(self.bdm.nsymbols) if symbol != old]
            value = others[0] if self.bdm.nsymbols <= 2 else choice(others)  # noqa: S311
        if old == value:
            return 0.0
        change = self._change(index, value, keep_changes)
        if keep_changes:
            data[index] = value
        return change

    def run(
        self,
        idx: npt.ArrayLike | None = None,
        values: npt.ArrayLike | None = None,
        keep_changes: bool = False,
    ) -> npt.NDArray[np.float64]:
        """The changes of the metric for many elements, one after another.

        Args:
            idx: Indices in rows, (n, ndim), or (n,) for one dimension; all elements by default.
            values: New values, (n,); negative ones as in :meth:`perturb`, which is the default.
            keep_changes: Whether elements stay changed, so that later changes see them.

        Returns:
            (n,) float64.
        """
        data = self._data
        if idx is None:
            places = list(product(*(range(size) for size in data.shape)))
            indices = np.array(places, np.int64).reshape(-1, data.ndim)
        else:
            indices = np.asarray(idx, np.int64)
            indices = indices.reshape(-1, 1) if indices.ndim < 2 else indices
        new = np.full(len(indices), -1) if values is None else np.asarray(values, np.int64)
        random = self.bdm.nsymbols > 2 and bool((new < 0).any())
        if self._core is None or keep_changes or random or bool((indices < 0).any()):
            pairs = zip(indices.tolist(), new.tolist(), strict=True)
            return np.array(
                [self.perturb(tuple(place), value, keep_changes) for place, value in pairs],
                np.float64,
            )
        return self._core.run(np.ascontiguousarray(indices), np.ascontiguousarray(new), False)

    def _change(self, index: tuple[int, ...], value: int, keep: bool) -> float:
        if self._core is not None:
            row = np.array([index], np.int64)
            return float(self._core.run(row, np.array([value], np.int64), keep)[0])
        changed = self._data.copy()
        changed[index] = value
        return self._measure(changed) - self._measure(self._data)

    def _measure(self, array: Array) -> float:
        counter = self.bdm.decompose_and_count(array, lookup_ctm=self.metric == "bdm")
        if self.metric == "bdm":
            return self.bdm.compute_bdm(counter)
        return self.bdm.compute_ent(counter)

    def _idx_to_parts(self, idx: tuple[int, ...]) -> Iterator[Array]:
        """The blocks that contain an element."""
        marked = np.zeros(self._data.shape, bool)
        marked[idx] = True
        partition = self.bdm.partition
        blocks = zip(partition.decompose(self._data), partition.decompose(marked), strict=True)
        yield from (block for block, marks in blocks if marks.any())
