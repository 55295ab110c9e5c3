"""Mosaics of motifs: building one from tensors, and what it is made of."""

from .build import build_mosaic
from .mosaic import Mosaic, mosaic_bound, motif_count
from .nearest import nearest_motifs

__all__ = ["Mosaic", "build_mosaic", "mosaic_bound", "motif_count", "nearest_motifs"]
