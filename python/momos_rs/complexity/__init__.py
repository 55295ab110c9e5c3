"""How complex are a model's weights: measures, controls, reports.

The package itself can be called: ``momos_rs.complexity(model)`` is
``momos_rs.complexity.measure(model)``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .compression import COMPRESSORS, Compression
from .controls import RANDOM_BASELINES, figures_of, random_baseline
from .measuring import MEASURES, NON_FINITE, measure
from .report import (
    BaselineComparison,
    BlockComplexity,
    ComplexityReport,
    MosaicBound,
    QubdComplexity,
    Ratio,
    TensorComplexity,
    TensorRatios,
)
from .tracker import ComplexityTracker, TrackedComplexity
from .weights import LeftOut, Source, WeightSet, WeightTensor, collect_weights

__all__ = [
    "COMPRESSORS",
    "MEASURES",
    "NON_FINITE",
    "RANDOM_BASELINES",
    "BaselineComparison",
    "BlockComplexity",
    "ComplexityReport",
    "ComplexityTracker",
    "Compression",
    "LeftOut",
    "MosaicBound",
    "QubdComplexity",
    "Ratio",
    "Source",
    "TensorComplexity",
    "TensorRatios",
    "TrackedComplexity",
    "WeightSet",
    "WeightTensor",
    "collect_weights",
    "figures_of",
    "measure",
    "random_baseline",
]


class _CallableModule(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> ComplexityReport:
        """As :func:`measure`."""
        return measure(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
