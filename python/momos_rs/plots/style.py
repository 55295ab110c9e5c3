"""One look for all pictures: legible at the width of a column, told apart without colour."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from momos_rs.errors import MomosError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "WIDTH", "add_scale", "finish", "new_figure", "save", "shade_of"]

WIDTH = 3.5
"""Inches: a column of a two-column paper."""

FONT_SIZE = 8.0
DPI = 200

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, without its yellow, which is too light for lines."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One for each colour, for readers who cannot tell colours."""


def new_figure(heights: list[float]) -> tuple[Figure, list[Axes]]:
    """A figure of panels of these heights (inches), one below the other.

    Raises:
        MomosError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MomosError("pictures need matplotlib; run pip install 'momos_rs[plot]'") from None
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    return figure, list(axes[:, 0])


def finish(axes: Axes, *, title: str, xlabel: str, ylabel: str) -> None:
    """Labels a panel and takes away what is not data."""
    axes.set_title(title, fontsize=FONT_SIZE, loc="left", fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=FONT_SIZE)
    axes.set_ylabel(ylabel, fontsize=FONT_SIZE)
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    legend = axes.get_legend()
    if legend is not None:
        for text in legend.get_texts():
            text.set_fontsize(FONT_SIZE - 1)


def shade_of(index: int, count: int) -> tuple[float, float, float, float]:
    """The colour of one of a sequence, dark to light, in a scale safe for the colour-blind."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["cividis"](0.9 * index / max(count - 1, 1))
    return red, green, blue, alpha


def add_scale(axes: Axes, count: int, label: str) -> None:
    """A key to the colours of :func:`shade_of`."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    figure = axes.get_figure()
    assert figure is not None
    used = colormaps["cividis"]([0.009 * step for step in range(101)])
    scale = ScalarMappable(
        Normalize(0, max(count - 1, 1)), LinearSegmentedColormap.from_list("used", used)
    )
    bar = figure.colorbar(scale, ax=axes, pad=0.02)
    bar.set_label(label, fontsize=FONT_SIZE - 1)
    bar.ax.tick_params(labelsize=FONT_SIZE - 2)


def save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Writes a figure as ``pdf``, ``png`` or ``svg``; equal figures give equal bytes."""
    from matplotlib import rc_context

    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "momos"}):
        figure.savefig(file, format=kind, dpi=DPI, metadata=dates.get(kind))
