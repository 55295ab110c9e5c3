"""Measure, simplify and pack neural networks as mosaics of motifs.

The reference tool for the algorithmic simplicity of neural networks (Mosaic-of-Motifs,
arXiv 2602.14896). Names and subpackages below are imported when they are first used, so that
importing the package is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from ._core import __version__
from .errors import (
    CorruptionError,
    InsufficientDataError,
    InvalidArgumentError,
    MomosError,
    UnsafeFileError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from . import (
        archive,
        bdm,
        calibration,
        checkpoint,
        complexity,
        experiments,
        integrations,
        mosaic,
        nn,
        ops,
        packing,
        plots,
        projection,
        quantize,
        theory,
    )
    from .archive import Archive, verify_file
    from .archive import open_archive as open  # noqa: A004
    from .bdm import BDM, PerturbationExperiment
    from .calibration import Calibration, OutputComparison, calibrate, compare_outputs
    from .complexity import measure as measure_complexity
    from .complexity import qubd
    from .integrations import ComplexityTracker
    from .mosaic import Mosaic, build_mosaic, mosaic_bound, motif_count, nearest_motifs
    from .nn import fisher_diagonal
    from .packing import PackReport, load, pack, pack_file, save, unpack, unpack_file
    from .projection import MoMos, ProjectionStats

__all__ = [
    "BDM",
    "Archive",
    "Calibration",
    "ComplexityTracker",
    "CorruptionError",
    "InsufficientDataError",
    "InvalidArgumentError",
    "MoMos",
    "MomosError",
    "Mosaic",
    "OutputComparison",
    "PackReport",
    "PerturbationExperiment",
    "ProjectionStats",
    "UnsafeFileError",
    "UnsupportedVersionError",
    "__version__",
    "archive",
    "bdm",
    "build_mosaic",
    "calibrate",
    "calibration",
    "checkpoint",
    "compare_outputs",
    "complexity",
    "errors",
    "experiments",
    "fisher_diagonal",
    "integrations",
    "load",
    "measure_complexity",
    "mosaic",
    "mosaic_bound",
    "motif_count",
    "nearest_motifs",
    "nn",
    "open",
    "ops",
    "pack",
    "pack_file",
    "packing",
    "plots",
    "projection",
    "quantize",
    "qubd",
    "save",
    "theory",
    "unpack",
    "unpack_file",
    "verify_file",
]

_HOMES = {
    "Archive": ("archive", "Archive"),
    "BDM": ("bdm", "BDM"),
    "Calibration": ("calibration", "Calibration"),
    "ComplexityTracker": ("integrations", "ComplexityTracker"),
    "MoMos": ("projection", "MoMos"),
    "Mosaic": ("mosaic", "Mosaic"),
    "OutputComparison": ("calibration", "OutputComparison"),
    "PackReport": ("packing", "PackReport"),
    "PerturbationExperiment": ("bdm", "PerturbationExperiment"),
    "ProjectionStats": ("projection", "ProjectionStats"),
    "build_mosaic": ("mosaic", "build_mosaic"),
    "calibrate": ("calibration", "calibrate"),
    "compare_outputs": ("calibration", "compare_outputs"),
    "fisher_diagonal": ("nn", "fisher_diagonal"),
    "load": ("packing", "load"),
    "measure_complexity": ("complexity", "measure"),
    "mosaic_bound": ("mosaic", "mosaic_bound"),
    "motif_count": ("mosaic", "motif_count"),
    "nearest_motifs": ("mosaic", "nearest_motifs"),
    "open": ("archive", "open_archive"),
    "pack": ("packing", "pack"),
    "pack_file": ("packing", "pack_file"),
    "qubd": ("complexity", "qubd"),
    "save": ("packing", "save"),
    "unpack": ("packing", "unpack"),
    "unpack_file": ("packing", "unpack_file"),
    "verify_file": ("archive", "verify_file"),
}
"""Module and name of what is imported lazily."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        value = getattr(importlib.import_module(f".{module}", __name__), attribute)
        globals()[name] = value
        return value
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
