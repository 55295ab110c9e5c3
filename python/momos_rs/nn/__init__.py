"""Models that are trained as mosaics: through the mosaic, or motif by motif."""

from .archive import archive_mosaic, load_parametrized
from .find import find_mosaic
from .fisher import fisher_diagonal
from .mosaic_aware import MosaicAware, mosaic_aware
from .parametrize import MosaicWeight, MotifTable, materialize, mosaic_parametrize

__all__ = [
    "MosaicAware",
    "MosaicWeight",
    "MotifTable",
    "archive_mosaic",
    "find_mosaic",
    "fisher_diagonal",
    "load_parametrized",
    "materialize",
    "mosaic_aware",
    "mosaic_parametrize",
]
