"""Packing models into archives, and back.

This is what ``momos pack``, ``momos unpack`` and ``momos plan`` are thin layers over.
"""

from .options import PackOptions
from .pack_model import pack, pack_file, save
from .report import PackReport, TensorReport
from .unpack_model import load, unpack, unpack_file

__all__ = [
    "PackOptions",
    "PackReport",
    "TensorReport",
    "load",
    "pack",
    "pack_file",
    "save",
    "unpack",
    "unpack_file",
]
