"""Projection in training loops: a plain helper, and callbacks for the common trainers.

The callbacks are in :mod:`momos_rs.integrations.lightning` and
:mod:`momos_rs.integrations.transformers`; each imports its framework.
"""

from .loop import Projector
from .schedule import Schedule, geometric_capacity, linear_capacity
from .tracker import ComplexityTracker, TrackedComplexity

__all__ = [
    "ComplexityTracker",
    "Projector",
    "Schedule",
    "TrackedComplexity",
    "geometric_capacity",
    "linear_capacity",
]
