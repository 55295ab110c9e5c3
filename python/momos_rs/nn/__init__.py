"""Models whose weights are made of trainable motifs."""

from .find import find_mosaic
from .parametrize import MosaicWeight, MotifTable, materialize, mosaic_parametrize

__all__ = ["MosaicWeight", "MotifTable", "find_mosaic", "materialize", "mosaic_parametrize"]
