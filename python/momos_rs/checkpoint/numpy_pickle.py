"""Arrays in pickles, rebuilt by their parts as numpy would, which unpickles nothing itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .pickle_tree import Global, PickledArray, PickledObject

__all__ = ["array_of", "is_reconstruction", "rebuild"]

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_RECONSTRUCT = frozenset(f"{module}._reconstruct" for module in _MODULES)
_FROM_BUFFER = frozenset(f"{module}._frombuffer" for module in _NUMERIC)
_NUMBER_KINDS = "biufc"
_MAX_RANK = 32


def is_reconstruction(name: str) -> bool:
    """Whether a call of that name makes an array."""
    return name in _RECONSTRUCT or name in _FROM_BUFFER


def rebuild(name: str, arguments: tuple[Any, ...]) -> Any:
    """The array that a call makes; its data may come later.

    Raises:
        TypeError: If the arguments are of no array.
    """
    if name in _RECONSTRUCT:
        return PickledArray()
    data, kind, shape, order = arguments
    return PickledArray((1, shape, kind, order == "F", data))


def array_of(pickled: PickledArray) -> np.ndarray[Any, Any] | None:
    """The array itself; None if its elements are no numbers (text, objects, records).

    Raises:
        ValueError: If its parts contradict each other.
    """
    state = pickled.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array has no data")
    _version, shape, kind, fortran, data = state
    if isinstance(shape, int):
        shape = (shape,)
    element = _element(kind)
    if element is None:
        return None
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple):
        raise ValueError("an array has no data")
    if len(shape) > _MAX_RANK or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("an array has an impossible shape")
    if math.prod(shape) * element.itemsize != len(data):
        raise ValueError("an array has not as many bytes as its shape needs")
    flat = np.frombuffer(data, element)
    return flat.reshape(shape, order="F" if fortran is True else "C")


def _element(kind: Any) -> np.dtype[Any] | None:
    """A type of numbers by what a pickle says of it."""
    if not isinstance(kind, PickledObject) or kind.kind != Global("numpy", "dtype"):
        return None
    code = kind.arguments[0] if kind.arguments else None
    if type(code) is not str or not code[:1].isalpha() or not code[1:].isdigit() or len(code) > 3:
        return None
    if code[0] not in _NUMBER_KINDS:
        return None
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "="
    try:
        element = np.dtype(code)
    except TypeError:
        return None
    return element.newbyteorder(">") if order == ">" else element
