"""How complex are a model's weights: measures, controls, reports."""

from __future__ import annotations

from .bit_planes import Qubd, qubd
from .compression import COMPRESSORS, Compression
from .controls import RANDOM_BASELINES, figures_of, random_baseline
from .measurement import MEASURES, NON_FINITE, measure
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
from .weights import LeftOut, Source, WeightSet, WeightTensor, collect_weights

__all__ = [
    "COMPRESSORS",
    "MEASURES",
    "NON_FINITE",
    "RANDOM_BASELINES",
    "BaselineComparison",
    "BlockComplexity",
    "ComplexityReport",
    "Compression",
    "LeftOut",
    "MosaicBound",
    "Qubd",
    "QubdComplexity",
    "Ratio",
    "Source",
    "TensorComplexity",
    "TensorRatios",
    "WeightSet",
    "WeightTensor",
    "collect_weights",
    "figures_of",
    "measure",
    "qubd",
    "random_baseline",
]
