"""The picture of a plan: ratio against error of every way to pack a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from momos_rs.errors import InvalidArgumentError
from momos_rs.packing.plan import Plan, PlanPoint

from .labels import model_labels
from .style import COLOURS, MOST_STYLES, NEUTRAL, finish, new_sheet, style_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_plan"]


def plot_plan(result: Plan) -> Figure:
    """Ratio against relative error: one line per method and block size, the paper's bound beside
    the lines of free motifs, and what takes the model without error.

    Args:
        result: The plan.

    Raises:
        InvalidArgumentError: If no way to pack the model has an error.
        MomosError: If matplotlib is not installed.
    """
    lines: dict[tuple[str, int | None], list[PlanPoint]] = {}
    for point in result.points:
        if point.relative_error > 0:
            lines.setdefault((point.method, point.block_size), []).append(point)
    if not lines:
        raise InvalidArgumentError(
            "every way takes the model without error: there is nothing to draw against error"
        )
    sheet = new_sheet([3.0])
    (axes,) = sheet.panels
    for position, ((method, block_size), points) in enumerate(lines.items()):
        points.sort(key=lambda each: each.relative_error)
        errors = [each.relative_error for each in points]
        style = style_of(position % MOST_STYLES)
        name = method if block_size is None else f"{method}, s = {block_size}"
        axes.plot(
            errors,
            [each.ratio for each in points],
            label=name,
            linewidth=1,
            markersize=3.5,
            **style,
        )
        if block_size is not None:
            bounds = [each.bound_ratio or math.nan for each in points]
            axes.plot(
                errors, bounds, linestyle=":", linewidth=0.9, color=style["color"],
                marker=style["marker"], markersize=2,
            )  # fmt: skip
    if any(block_size is not None for _, block_size in lines):
        axes.plot([], [], linestyle=":", color=COLOURS[-1], linewidth=0.9, label=AT_THE_BOUND)
    for reference, dashes in zip(result.references, ("-.", "--", "-"), strict=False):
        sampled = ", sampled" if reference.sampled else ""
        axes.axhline(
            reference.ratio,
            linestyle=dashes,
            color=NEUTRAL,
            linewidth=0.8,
            label=f"{reference.name} ({reference.ratio:.2f}{sampled})",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(_minor_tick)
    (model,) = model_labels([result.source])
    finish(
        axes,
        title=f"Ways to pack {model}",
        xlabel="relative error  $\\|w - w'\\|^2 / \\|w\\|^2$",
        ylabel="bytes of the model / bytes packed",
    )
    return sheet.fit()


AT_THE_BOUND = "at the paper's bound"


def _minor_tick(value: float, _position: object) -> str:
    """2, 3 and 5 of every decade, which do not crowd a logarithmic axis."""
    digit = value / 10 ** math.floor(math.log10(value))
    return f"{value:g}" if round(digit) in (2, 3, 5) else ""
