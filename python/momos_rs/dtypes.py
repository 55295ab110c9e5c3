"""The element types of tensors, by one name each, without importing torch.

Names are safetensors' where it has one (``F32``, ``BF16``, ...) and in the same spirit where it
has none (``C128``).
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidArgumentError

__all__ = ["DTYPES", "MOSAIC_DTYPES", "DType", "dtype"]


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes:
        name: Its name in archives and reports.
        itemsize: Bytes per element.
        torch: Its attribute name in torch; older versions may lack it.
        numpy: Its numpy name, or None where numpy has no such type.
        floating: Whether it is a real floating type.
        safetensors: Whether a safetensors file may hold it under this name.
    """

    name: str
    itemsize: int
    torch: str
    numpy: str | None
    floating: bool = False
    safetensors: bool = True


DTYPES: dict[str, DType] = {
    each.name: each
    for each in (
        DType("F64", 8, "float64", "<f8", floating=True),
        DType("F32", 4, "float32", "<f4", floating=True),
        DType("F16", 2, "float16", "<f2", floating=True),
        DType("BF16", 2, "bfloat16", None, floating=True),
        DType("F8_E4M3", 1, "float8_e4m3fn", None, floating=True),
        DType("F8_E5M2", 1, "float8_e5m2", None, floating=True),
        DType("F8_E8M0", 1, "float8_e8m0fnu", None, floating=True),
        DType("F8_E4M3FNUZ", 1, "float8_e4m3fnuz", None, floating=True),
        DType("F8_E5M2FNUZ", 1, "float8_e5m2fnuz", None, floating=True),
        DType("I64", 8, "int64", "<i8"),
        DType("I32", 4, "int32", "<i4"),
        DType("I16", 2, "int16", "<i2"),
        DType("I8", 1, "int8", "i1"),
        DType("U64", 8, "uint64", "<u8"),
        DType("U32", 4, "uint32", "<u4"),
        DType("U16", 2, "uint16", "<u2"),
        DType("U8", 1, "uint8", "u1"),
        DType("BOOL", 1, "bool", "?"),
        DType("C128", 16, "complex128", "<c16", safetensors=False),
        DType("C64", 8, "complex64", "<c8"),
        DType("C32", 4, "complex32", None, safetensors=False),
        DType("BC32", 4, "bcomplex32", None, safetensors=False),
        # Two four-bit floats to the byte; safetensors counts them singly, as "F4".
        DType("F4_X2", 1, "float4_e2m1fn_x2", None, safetensors=False),
        DType("BITS16", 2, "bits16", None, safetensors=False),
        DType("BITS8", 1, "bits8", None, safetensors=False),
        DType("BITS1X8", 1, "bits1x8", None, safetensors=False),
        DType("BITS2X4", 1, "bits2x4", None, safetensors=False),
        DType("BITS4X2", 1, "bits4x2", None, safetensors=False),
    )
}

MOSAIC_DTYPES: tuple[str, ...] = ("BF16", "F16", "F32", "F64")
"""The types whose tensors can become part of a mosaic; all others are carried exactly."""


def dtype(name: str) -> DType:
    """The element type of that name.

    Raises:
        InvalidArgumentError: If there is none.
    """
    try:
        return DTYPES[name]
    except KeyError:
        raise InvalidArgumentError(f"unknown element type {name!r}") from None
