"""Complexity measures in the log of a run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

__all__ = ["measure"]


def measure(model: nn.Module, measures: Sequence[str]) -> dict[str, float]:
    """Chosen complexity measures of a model as plain numbers.

    Args:
        model: A model without parametrizations.
        measures: Names of :data:`momos_rs.complexity.MEASURES`.

    Returns:
        By name: ``bdm`` (bits of the sign stream, the paper's measure) with its ``entropy`` and
        ``saturation``, ``bdm_2d``, ``qubd`` (sum over bit-planes), ``sparsity``, ``l2``, and the
        compressors' ratios.

    Raises:
        InvalidArgumentError: If there is no such measure.
    """
    from momos_rs.complexity.measurement import measure as measure_complexity

    report = measure_complexity(model, measures=list(measures))
    found: dict[str, float | None] = {"sparsity": report.sparsity, "l2": report.l2}
    if report.signs is not None:
        found["bdm"] = report.signs.bdm
        found["entropy"] = report.signs.entropy
        found["saturation"] = report.signs.saturation
    if report.bdm_2d is not None:
        found["bdm_2d"] = report.bdm_2d.bdm
    if report.qubd is not None:
        found["qubd"] = report.qubd.total
    for compression in report.compression:
        if compression.of == "weights":
            found[compression.name] = compression.ratio
    return {name: float(value) for name, value in found.items() if value is not None}
