"""Models whose weights are made of trainable motifs."""

from .archive import archive_mosaic, load_parametrized
from .find import find_mosaic
from .fisher import fisher_diagonal
from .parametrize import MosaicWeight, MotifTable, materialize, mosaic_parametrize

__all__ = [
    "MosaicWeight",
    "MotifTable",
    "archive_mosaic",
    "find_mosaic",
    "fisher_diagonal",
    "load_parametrized",
    "materialize",
    "mosaic_parametrize",
]
