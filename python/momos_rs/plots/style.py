"""One look for all pictures: legible at the width of a column, told apart without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from momos_rs.errors import InvalidArgumentError, MomosError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

__all__ = [
    "COLOURS",
    "FONT_SIZE",
    "FORMATS",
    "MARKERS",
    "MOST_STYLES",
    "NEUTRAL",
    "WIDTH",
    "Sheet",
    "add_colours",
    "add_scale",
    "check_format",
    "finish",
    "integer_ticks",
    "label",
    "new_row",
    "new_sheet",
    "plain_log_ticks",
    "save",
    "shade_of",
    "style_of",
]

FORMATS = (".pdf", ".png", ".svg")
WIDTH = 3.5
"""Inches: a column of a two-column paper."""

FONT_SIZE = 8.0
SMALL = 7.0
DPI = 200

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, without its yellow, which is too light for lines."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One for each colour, for readers who cannot tell colours."""

NEUTRAL = "#555555"
"""Of what lines are compared with."""

MOST_STYLES = 2 * len(COLOURS)
"""More lines than this cannot be told apart."""

_LEGEND_LINE = 0.165  # inches
_LEGEND_HANDLE = 0.42
_LEGEND_CHARACTER = 0.052


def style_of(position: int) -> dict[str, Any]:
    """Colour, marker and dashes of a line: solid and filled, then dashed and hollow."""
    again, index = divmod(position % MOST_STYLES, len(COLOURS))
    style: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index]}
    if again:
        style |= {"linestyle": (0, (3, 1.5)), "markerfacecolor": "white"}
    return style


def check_format(path: Path) -> None:
    """Fails before any work if pictures cannot be written into a file of that name.

    Raises:
        InvalidArgumentError: If its suffix is none of :data:`FORMATS`.
        MomosError: If matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InvalidArgumentError(
            f"pictures end in {', '.join(FORMATS)}, which {path.name!r} does not"
        )
    _figure_class()


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MomosError("pictures need matplotlib; run pip install 'momos_rs[plot]'") from None
    return Figure


@dataclass(frozen=True)
class Sheet:
    """A figure of panels, one below the other, each laid out by itself.

    Attributes:
        figure: The figure.
        panels: Its panels.
        heights: Their heights in inches, without their keys.
        grid: What places them.
    """

    figure: Figure
    panels: tuple[Axes, ...]
    heights: tuple[float, ...]
    grid: GridSpec

    def fit(self) -> Figure:
        """The figure, made taller by what the keys of its finished panels need."""
        needed = []
        for axes, height in zip(self.panels, self.heights, strict=True):
            _, labels = axes.get_legend_handles_labels()
            columns = _legend_columns(labels, self.figure.get_figwidth())
            needed.append(height + _LEGEND_LINE * math.ceil(len(labels) / columns))
        self.grid.set_height_ratios(needed)
        self.figure.set_size_inches(self.figure.get_figwidth(), sum(needed))
        return self.figure


def new_sheet(heights: Sequence[float], width: float = WIDTH) -> Sheet:
    """An empty figure of panels of these heights (inches).

    Raises:
        MomosError: If matplotlib is not installed.
    """
    figure = _figure_class()(figsize=(width, sum(heights)), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=list(heights))
    panels = [figure.add_subfigure(grid[row]).subplots() for row in range(len(heights))]
    return Sheet(figure, tuple(panels), tuple(heights), grid)


def new_row(columns: int, height: float, width: float = 2 * WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of panels of equal size side by side, as wide as a page.

    Raises:
        MomosError: If matplotlib is not installed.
    """
    figure = _figure_class()(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def label(axes: Axes, *, xlabel: str, ylabel: str, title: str = "") -> None:
    """Labels a panel and takes away what is not data."""
    axes.set_title(title, fontsize=FONT_SIZE, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=FONT_SIZE)
    axes.set_ylabel(ylabel, fontsize=FONT_SIZE)
    axes.tick_params(labelsize=SMALL)
    axes.tick_params(which="minor", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    for offset in (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()):
        offset.set_fontsize(SMALL)


def finish(axes: Axes, *, title: str, xlabel: str, ylabel: str) -> None:
    """Labels the panel of a sheet, and puts its title and its key above, clear of the data."""
    label(axes, xlabel=xlabel, ylabel=ylabel)
    handles, labels = axes.get_legend_handles_labels()
    part = axes.get_figure(root=False)
    assert part is not None
    columns = _legend_columns(labels, part.bbox.width / part.dpi)
    key = part.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        title=title,
        alignment="left",
        fontsize=SMALL,
        frameon=False,
        borderpad=0.1,
        labelspacing=0.3,
        columnspacing=1.2,
        handlelength=2.2,
    )
    key.get_title().set_fontsize(FONT_SIZE)
    key.get_title().set_fontweight("bold")


def _legend_columns(labels: Sequence[str], width: float) -> int:
    longest = max(map(len, labels), default=0)
    fitting = int(width / (_LEGEND_HANDLE + _LEGEND_CHARACTER * longest + 0.1))
    columns = max(1, min(len(labels), fitting))
    # As even as the number of rows allows.
    return max(1, math.ceil(len(labels) / math.ceil(len(labels) / columns))) if labels else 1


def integer_ticks(axes: Axes) -> None:
    """Whole numbers only on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def plain_log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """A horizontal logarithmic axis with ticks at the values themselves, as plain numbers.

    Of values too close for their labels the later ones have none.
    """
    from matplotlib.ticker import NullLocator

    ordered = sorted(set(values))
    span = math.log(ordered[-1] / ordered[0]) or 1.0
    labels: list[str] = []
    last = -math.inf
    for value in ordered:
        place = math.log(value / ordered[0]) / span
        labels.append(f"{value:g}" if place - last > 0.12 else "")
        last = place if labels[-1] else last
    axes.set_xscale("log")
    axes.set_xticks(ordered, labels)
    axes.xaxis.set_minor_locator(NullLocator())
    if len(ordered) == 1:
        axes.set_xlim(ordered[0] / 2, ordered[0] * 2)


def shade_of(share: float) -> tuple[float, float, float, float]:
    """The colour at a share, 0 to 1, of a sequence: dark to light, safe for the colour-blind."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["cividis"](0.9 * share)
    return red, green, blue, alpha


def add_colours(axes: Axes, shown: ScalarMappable, what: str, **options: Any) -> None:
    """A key to the colours of a panel."""
    part = axes.get_figure(root=False)
    assert part is not None
    bar = part.colorbar(shown, ax=axes, pad=0.02, **options)
    bar.set_label(what, fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=SMALL)


def add_scale(axes: Axes, low: float, high: float, what: str) -> None:
    """A key to the colours of :func:`shade_of`, from share 0 to 1."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    used = LinearSegmentedColormap.from_list("used", [shade_of(each / 100) for each in range(101)])
    shown = ScalarMappable(Normalize(low, high), used)
    add_colours(axes, shown, what, ticks=MaxNLocator(integer=True, nbins=6))


def save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Writes a figure as ``pdf``, ``png`` or ``svg``; equal figures give equal bytes."""
    from matplotlib import rc_context

    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    # Text stays text in documents: it can be searched, and edited when the paper is typeset.
    with rc_context({"svg.hashsalt": "momos", "pdf.fonttype": 42}):
        figure.savefig(file, format=kind, dpi=DPI, metadata=dates.get(kind))
