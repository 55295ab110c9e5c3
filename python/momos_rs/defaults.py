"""Every default of the package, stated once.

``momos pack`` and the functions of the same name share them, as do documentation and tests.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BLOCK_SIZE",
    "CAPACITY",
    "EFFORT",
    "EFFORTS",
    "FIXED_POINT_LOSS",
    "FORCE_ZERO",
    "FREE_METHODS",
    "INIT",
    "INITS",
    "ITERATIONS",
    "METHOD",
    "MOTIF_DTYPE",
    "MOTIF_DTYPES",
    "SEED",
    "STEP",
    "STEP_EXPONENT",
    "STRUCTURED_METHODS",
    "TOLERANCE",
    "TRAINING_BLOCKS",
    "Effort",
    "Init",
    "MethodName",
    "MotifDtype",
]

MethodName = Literal["kmeans", "random", "grid", "trellis", "exact"]
"""How motifs are chosen: see :mod:`momos_rs.mosaic.methods`."""

FREE_METHODS: tuple[MethodName, ...] = ("kmeans", "random")
STRUCTURED_METHODS: tuple[MethodName, ...] = ("grid", "trellis")

Effort = Literal["fast", "default", "best"]
"""How much time coding may take; every effort decodes to the same tensors."""

EFFORTS: tuple[Effort, ...] = ("fast", "default", "best")

MotifDtype = Literal["auto", "float32", "float16", "bfloat16", "fixed"]
"""The precision of motifs: see :func:`momos_rs.build_mosaic`."""

MOTIF_DTYPES: tuple[MotifDtype, ...] = ("auto", "float32", "float16", "bfloat16", "fixed")

Init = Literal["spread", "random"]
"""Where k-means begins: see :mod:`momos_rs.mosaic.spread`."""

INITS: tuple[Init, ...] = ("spread", "random")

BLOCK_SIZE = 4
CAPACITY = 0.05
METHOD: MethodName = "kmeans"
INIT: Init = "spread"
# Eight iterations end 3 to 5% above the least error that fifty of them reach, on three models.
ITERATIONS = 8
TOLERANCE = 2e-3
"""K-means ends after an iteration that lowers the distortion by a smaller share."""

TRAINING_BLOCKS = 256
"""Motifs are refined on at most this many blocks each, as faiss does; a capacity of 1/256 or more
is not affected."""

SEED = 0
FORCE_ZERO = True
EFFORT: Effort = "default"
MOTIF_DTYPE: MotifDtype = "auto"
FIXED_POINT_LOSS = 0.02
"""Share of the distortion that fixed-point motifs may add."""

STEP = 0.25
"""Spacing of the grid of structured motifs, as a multiple of the root mean square of all weights:
about 3 bits per weight."""

STEP_EXPONENT = 0.5
"""The step of a tensor is proportional to its root mean square to this power."""
