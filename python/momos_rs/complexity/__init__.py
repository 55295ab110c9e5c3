"""How complex are a model's weights: measures, controls, reports.

The package itself can be called: ``momos_rs.complexity(model)`` is
``momos_rs.complexity.measure(model)``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .compression import COMPRESSORS, Compression
from .measuring import MEASURES, measure
from .report import (
    BlockComplexity,
    ComplexityReport,
    MosaicBound,
    QubdComplexity,
    TensorComplexity,
)
from .weights import LeftOut, Source, WeightSet, WeightTensor, collect_weights

__all__ = [
    "COMPRESSORS",
    "MEASURES",
    "BlockComplexity",
    "ComplexityReport",
    "Compression",
    "LeftOut",
    "MosaicBound",
    "QubdComplexity",
    "Source",
    "TensorComplexity",
    "WeightSet",
    "WeightTensor",
    "collect_weights",
    "measure",
]


class _CallableModule(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> ComplexityReport:
        """As :func:`measure`."""
        return measure(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
