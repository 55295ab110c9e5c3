"""Packing what a run trained, without loss."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from torch import nn

from momos_rs.packing.pack_model import pack, pack_file
from momos_rs.packing.report import PackReport
from momos_rs.projection import ModelMosaic

__all__ = ["pack_checkpoint", "pack_model"]


def pack_model(model: nn.Module, mosaic: ModelMosaic) -> bytes:
    """The archive of a model that is a mosaic, bit for bit.

    Args:
        model: The model, without parametrizations.
        mosaic: The mosaic it is.
    """
    return pack(model, **_options(mosaic))


def pack_checkpoint(source: Path, target: Path, mosaic: ModelMosaic) -> PackReport:
    """The same from a checkpoint file to an archive file, which is replaced if it is there."""
    return pack_file(source, target, overwrite=True, **_options(mosaic))


def _options(mosaic: ModelMosaic) -> dict[str, Any]:
    """Options under which a packed mosaic is exact: its own parameters, and motifs enough.

    The last block of a parameter is padded with zeros, its motif is not: cut off and padded again
    it may be a block of its own, at most one per parameter.
    """
    return {
        "block_size": mosaic.s,
        "motifs": mosaic.k + len(mosaic.spans),
        "include": [glob.escape(span.name) for span in mosaic.spans],
    }
