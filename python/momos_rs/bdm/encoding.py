"""Arrays as strings and integers, as pybdm's ``encoding``; works with current numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "array_from_string",
    "decode_array",
    "decode_sequence",
    "encode_array",
    "encode_sequence",
    "normalize_array",
    "normalize_key",
    "string_from_array",
]

Array = np.ndarray[Any, Any]


def array_from_string(x: str, shape: Sequence[int], cast_to: Any = int) -> Array:
    """The array that a string of digits stands for.

    >>> array_from_string('1000', shape=(2, 2))
    array([[1, 0],
           [0, 0]])
    """
    array = np.array(list(x))
    if cast_to:
        array = array.astype(cast_to)
    return array.reshape(shape)


def string_from_array(arr: Array) -> str:
    """The elements of an array in C order as digits.

    >>> string_from_array(np.array([[1, 0], [3, 4]]))
    '1034'
    """
    return "".join(map(str, arr.flat))


def encode_sequence(seq: Array, base: int = 2) -> int:
    """The number whose digits are the symbols of a sequence.

    Raises:
        AttributeError: If it is not one-dimensional.
        TypeError: If it is not of integers.
        ValueError: If a symbol is negative or not below the base.

    >>> encode_sequence(np.array([1, 0, 0]))
    4
    """
    if seq.size == 0:
        return 0
    if seq.ndim != 1:
        raise AttributeError("'seq' has to be a 1D array")
    if not np.issubdtype(seq.dtype, np.integer):
        raise TypeError("'seq' has to be of integer dtype")
    if (seq < 0).any():
        raise ValueError("'seq' has to conisist of non-negative integers")
    if (seq >= base).any():
        raise ValueError(f"There are symbol codes greater than {base - 1}")
    code = 0
    for symbol in seq.tolist():
        code = code * base + symbol
    return code


def decode_sequence(code: int, base: int = 2, min_length: int | None = None) -> Array:
    """The sequence whose symbols are the digits of a number, at least ``min_length`` of them.

    >>> decode_sequence(4)
    array([1, 0, 0])
    """
    symbols = []
    while code > 0:
        code, symbol = divmod(code, base)
        symbols.append(symbol)
    symbols.extend([0] * ((min_length or 0) - len(symbols)))
    return np.array(symbols[::-1])


def encode_array(x: Array, base: int = 2, **kwds: Any) -> int:
    """As :func:`encode_sequence`, of the raveled array; keywords go to :func:`numpy.ravel`."""
    return encode_sequence(np.ravel(x, **kwds), base=base)


def decode_array(code: int, shape: Sequence[int], base: int = 2, **kwds: Any) -> Array:
    """The array of that shape with that code; keywords go to :meth:`numpy.ndarray.reshape`.

    Raises:
        ValueError: If the number has more digits than the array elements.
    """
    length = int(np.prod(shape))
    sequence = decode_sequence(code, base=base, min_length=length)
    if sequence.size > length:
        raise ValueError(f"{code} does not encode array of shape {shape}")
    return sequence.reshape(shape, **kwds)


def normalize_array(X: Array) -> Array:  # noqa: N803
    """The array with its symbols renamed 0, 1, 2, ... in the order of their first appearance.

    >>> normalize_array(np.array([[1, 2], [2, 1]]))
    array([[0, 1],
           [1, 0]])
    """
    names: dict[Any, int] = {}
    renamed = [names.setdefault(symbol, len(names)) for symbol in X.ravel().tolist()]
    return np.array(renamed, X.dtype).reshape(X.shape)


def normalize_key(key: str) -> str:
    """The string with its symbols renamed 0, 1, 2, ... in the order of their first appearance.

    >>> normalize_key('40524')
    '01230'
    """
    names: dict[str, str] = {}
    return "".join(names.setdefault(symbol, str(len(names))) for symbol in key)
