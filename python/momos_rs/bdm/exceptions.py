"""Warnings and errors of :class:`momos_rs.BDM`, named as pybdm's."""

from __future__ import annotations

from momos_rs.errors import MomosError

__all__ = ["BDMConfigurationError", "BDMRuntimeWarning", "CTMDatasetNotFoundError"]


class BDMRuntimeWarning(RuntimeWarning):
    """Something about a computation that should be known, such as a missing CTM value."""


class BDMConfigurationError(MomosError, AttributeError):
    """The options of a BDM do not fit together."""


class CTMDatasetNotFoundError(MomosError, LookupError):
    """There is no CTM table for these options, or its data is not installed."""
