"""Running a model on data: what its layers are fed with, and how much packing changes its outputs.

What is collected here, :class:`~momos_rs.mosaic.calibration.Calibration`, lets packing spend bits
where the outputs need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from momos_rs.mosaic.calibration import Calibration

if TYPE_CHECKING:
    from .collect import calibrate
    from .outputs import OutputComparison, compare_outputs

__all__ = ["Calibration", "OutputComparison", "calibrate", "compare_outputs"]

_HOMES = {
    "OutputComparison": "outputs",
    "calibrate": "collect",
    "compare_outputs": "outputs",
}


def __getattr__(name: str) -> Any:
    # What runs models needs torch, which takes its time to import.
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
