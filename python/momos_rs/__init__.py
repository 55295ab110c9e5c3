"""Measure, simplify and pack neural networks as mosaics of motifs.

The reference tool for the algorithmic simplicity of neural networks (Mosaic-of-Motifs,
arXiv 2602.14896). Names below are imported from their modules when they are first used, so that
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
    from . import theory
    from .archive import Archive
    from .archive import open_archive as open  # noqa: A004
    from .bdm import BDM, PerturbationExperiment
    from .bitplanes import qubd
    from .complexity import ComplexityTracker
    from .complexity.measuring import measure as complexity
    from .fisher import fisher_diagonal
    from .mosaic import Mosaic, build_mosaic, mosaic_bound, motif_count
    from .nearest import nearest_motifs
    from .packing import (
        load,
        pack,
        pack_file,
        save,
        unpack,
        unpack_file,
    )
    from .projection import MoMos, ProjectionStats
    from .report import PackReport
    from .verifying import verify_file

__all__ = [
    "BDM",
    "Archive",
    "ComplexityTracker",
    "CorruptionError",
    "InsufficientDataError",
    "InvalidArgumentError",
    "MoMos",
    "MomosError",
    "Mosaic",
    "PackReport",
    "PerturbationExperiment",
    "ProjectionStats",
    "UnsafeFileError",
    "UnsupportedVersionError",
    "__version__",
    "build_mosaic",
    "complexity",
    "errors",
    "fisher_diagonal",
    "load",
    "mosaic_bound",
    "motif_count",
    "nearest_motifs",
    "open",
    "pack",
    "pack_file",
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
    "MoMos": ("projection", "MoMos"),
    "Mosaic": ("mosaic", "Mosaic"),
    "PackReport": ("report", "PackReport"),
    "ComplexityTracker": ("complexity", "ComplexityTracker"),
    "PerturbationExperiment": ("bdm", "PerturbationExperiment"),
    "ProjectionStats": ("projection", "ProjectionStats"),
    "build_mosaic": ("mosaic", "build_mosaic"),
    "fisher_diagonal": ("fisher", "fisher_diagonal"),
    "load": ("packing", "load"),
    "mosaic_bound": ("mosaic", "mosaic_bound"),
    "motif_count": ("mosaic", "motif_count"),
    "nearest_motifs": ("nearest", "nearest_motifs"),
    "open": ("archive", "open_archive"),
    "pack": ("packing", "pack"),
    "pack_file": ("packing", "pack_file"),
    "qubd": ("bitplanes", "qubd"),
    "save": ("packing", "save"),
    "unpack": ("packing", "unpack"),
    "unpack_file": ("packing", "unpack_file"),
    "verify_file": ("verifying", "verify_file"),
}
"""Module and name of what is imported lazily."""

_MODULES = ("complexity", "theory")
"""Modules that are public names; ``complexity`` can be called as well."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
