"""Pictures of complexity reports: by layer, by bit-plane, ranked, over training time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from momos_rs.complexity.report import BlockComplexity, ComplexityReport, Ratio
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.atomic_file import replacing

from .labels import model_labels, shortened, tensor_labels
from .style import (
    COLOURS,
    MARKERS,
    MOST_STYLES,
    NEUTRAL,
    add_scale,
    check_format,
    finish,
    integer_ticks,
    new_sheet,
    save,
    shade_of,
    style_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "Picture", "draw_pictures", "pictures_for", "save_pictures"]

Picture: TypeAlias = Literal["layers", "planes", "ranking", "time"]
PICTURES: tuple[Picture, ...] = get_args(Picture)

MAX_LABELS = 40
"""Of more layers or models than this not every one is named."""

ROW = 0.14
"""Inches that the name of a layer or model takes."""

NAMED_EXTREMES = 3
"""The least and the most complex models that are told apart where there are too many for that."""

MEASURES = {"qubd": "QuBD", "bdm_2d": "BDM of signs (4x4)", "bdm": "BDM of signs (1-D)"}
"""Names of figures, the one that tells most of a layer first."""

REFERENCES = {"gaussian": "normal weights", "shuffled": "shuffled weights"}


def pictures_for(reports: Sequence[ComplexityReport], *, over_time: bool = False) -> list[Picture]:
    """The pictures that there are data for."""
    pictures: list[Picture] = []
    if len(reports) > 1 and _series(reports)[1]:
        pictures.append("time" if over_time else "ranking")
    if len(reports) == 1 and _layers(reports[0])[1]:
        pictures.append("layers")
    if any(report.qubd is not None and report.qubd.measured for report in reports):
        pictures.append("planes")
    return pictures


def save_pictures(
    reports: Sequence[ComplexityReport],
    path: Path,
    *,
    over_time: bool = False,
    steps: Sequence[float] | None = None,
    unit: str = "step",
    overwrite: bool = False,
) -> None:
    """Draws all pictures there are data for into one file, one below the other.

    Args:
        reports: The models, in order.
        path: A ``.pdf``, ``.png`` or ``.svg`` file.
        over_time: Whether the reports are of one model in the course of its training.
        steps: When each was, such as the epoch; 0, 1, 2, ... by default.
        unit: What the steps count.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InvalidArgumentError: If the suffix is none of these, or nothing measured can be drawn.
        MomosError: If matplotlib is not installed.
        OSError: If the file cannot be written.
    """
    check_format(path)
    figure = draw_pictures(reports, over_time=over_time, steps=steps, unit=unit)
    with replacing(path, overwrite=overwrite) as file:
        save(figure, file, path.suffix[1:].lower())


def draw_pictures(
    reports: Sequence[ComplexityReport],
    *,
    pictures: Sequence[Picture] | None = None,
    over_time: bool = False,
    steps: Sequence[float] | None = None,
    unit: str = "step",
) -> Figure:
    """The pictures as panels of one figure of the width of a column.

    Args:
        reports: The models, in order.
        pictures: Which; all there are data for by default.
        over_time: Whether the reports are of one model in the course of its training.
        steps: When each was; 0, 1, 2, ... by default.
        unit: What the steps count.

    Raises:
        InvalidArgumentError: If nothing measured can be drawn.
        MomosError: If matplotlib is not installed.
    """
    chosen = pictures_for(reports, over_time=over_time) if pictures is None else list(pictures)
    if not chosen:
        raise InvalidArgumentError(
            "nothing that was measured can be drawn; measure bdm, bdm_2d or qubd of a model that "
            "has matrices"
        )
    times = _Times.of(reports, steps, unit) if over_time else None
    sheet = new_sheet([_height(picture, reports) for picture in chosen])
    for picture, axes in zip(chosen, sheet.panels, strict=True):
        if picture == "layers":
            _draw_layers(axes, reports[0])
        elif picture == "planes":
            _draw_planes(axes, reports, times)
        elif picture == "ranking":
            _draw_ranking(axes, reports)
        else:
            _draw_time(axes, reports, times or _Times.of(reports, steps, unit))
    return sheet.fit()


def _height(picture: Picture, reports: Sequence[ComplexityReport]) -> float:
    """Inches: room for a label on every line of those that list layers or models."""
    if picture == "layers":
        return 1.0 + ROW * min(max(len(_layers(reports[0])[1]), 3), MAX_LABELS)
    if picture == "ranking":
        return 0.85 + ROW * min(max(len(reports), 3), MAX_LABELS)
    return 2.3


@dataclass(frozen=True)
class _Times:
    """When reports were made, on an axis of that name."""

    values: tuple[float, ...]
    label: str

    @classmethod
    def of(
        cls, reports: Sequence[ComplexityReport], steps: Sequence[float] | None, unit: str
    ) -> _Times:
        if steps is None:
            return cls(tuple(range(len(reports))), "checkpoint, in order")
        return cls(tuple(steps), unit)

    def share(self, index: int) -> float:
        low, high = min(self.values), max(self.values)
        return (self.values[index] - low) / (high - low) if high > low else 0.0


@dataclass(frozen=True)
class _Value:
    """A ratio, and its standard deviation over random baselines."""

    ratio: float
    spread: float = 0.0

    @classmethod
    def of(cls, found: Ratio) -> _Value:
        return cls(found.ratio, found.ratio * found.spread / found.baseline)


@dataclass(frozen=True)
class _Series:
    name: str
    values: list[_Value]


def _against(report: ComplexityReport, figure: str) -> _Value | None:
    found = None if report.baseline is None else report.baseline.ratio(figure)
    return None if found is None else _Value.of(found)


def _against_random(blocks: BlockComplexity | None) -> _Value | None:
    return None if blocks is None or not blocks.blocks else _Value(blocks.random_ratio)


def _reference(report: ComplexityReport) -> str:
    if report.baseline is None:
        return "random bits"
    source = report.baseline.source
    return REFERENCES.get(source) or shortened(PurePath(source).name)


def _series(reports: Sequence[ComplexityReport]) -> tuple[str, list[_Series]]:
    """What to draw of whole models: ratios to the baseline, else to random bits."""
    candidates: dict[str, Callable[[ComplexityReport], _Value | None]]
    if all(report.baseline is not None for report in reports):
        candidates = {
            "bdm": lambda report: _against(report, "bdm"),
            "bdm_2d": lambda report: _against(report, "bdm_2d"),
            "qubd": lambda report: _against(report, "qubd"),
        }
    else:
        candidates = {
            "bdm": lambda report: _against_random(report.signs),
            "bdm_2d": lambda report: _against_random(report.bdm_2d),
        }
    drawn = []
    for figure, value in candidates.items():
        values = [found for report in reports if (found := value(report)) is not None]
        if len(values) == len(reports):
            drawn.append(_Series(MEASURES[figure], values))
    return f"ratio to {_reference(reports[0])}", drawn


def _layers(report: ComplexityReport) -> tuple[str, dict[str, _Value]]:
    """What is drawn of layers, and the layers that have it, in order.

    The measure that tells most of those measured: QuBD, then the signs as matrices, then as a
    stream. Layers that it does not apply to, such as biases, are not drawn.
    """
    if report.baseline is None:
        planes = {each.name: _against_random(each.bdm_2d) for each in report.tensors}
        return MEASURES["bdm_2d"], {name: each for name, each in planes.items() if each is not None}
    for figure, label in MEASURES.items():
        found = {
            tensor.name: _Value.of(ratio)
            for tensor in report.baseline.tensors
            for ratio in tensor.ratios
            if ratio.figure == figure
        }
        if found:
            return label, found
    return "", {}


def _draw_layers(axes: Axes, report: ComplexityReport) -> None:
    measure, layers = _layers(report)
    positions = list(range(len(layers)))
    ratios = [each.ratio for each in layers.values()]
    axes.hlines(positions, 1, ratios, color=COLOURS[0], linewidth=1)
    _points(axes, list(layers.values()), positions, 0)
    axes.axvline(1, color=NEUTRAL, linewidth=0.8, linestyle="--")
    axes.set_ylim(len(layers) - 0.4, -0.6)
    _name_rows(axes, tensor_labels(list(layers)))
    (name,) = model_labels([report.source])
    finish(
        axes,
        title=f"Layers of {name}",
        xlabel=f"{measure},\nratio to {_reference(report)}",
        ylabel="",
    )


def _points(
    axes: Axes,
    values: Sequence[_Value],
    positions: Sequence[int],
    style: int,
    label: str | None = None,
) -> None:
    """Points with a bar for the spread over random baselines."""
    spreads = [each.spread for each in values]
    axes.errorbar(
        [each.ratio for each in values],
        positions,
        xerr=spreads if any(spreads) else None,
        fmt=MARKERS[style],
        color=COLOURS[style],
        markersize=3.5,
        elinewidth=0.8,
        zorder=3,
        label=label,
    )


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Names at the rows; at every other, third, ... one if they are too many for all."""
    step = -(-len(labels) // MAX_LABELS)
    axes.set_yticks(range(0, len(labels), step), labels[::step])


def _draw_planes(axes: Axes, reports: Sequence[ComplexityReport], times: _Times | None) -> None:
    kept = [index for index, each in enumerate(reports) if each.qubd and each.qubd.measured]
    drawn = [reports[index] for index in kept]
    relative = all(report.baseline is not None for report in drawn)
    lines = [_planes(report, relative=relative) for report in drawn]
    if relative:
        axes.axhline(1, color=NEUTRAL, linewidth=0.8, linestyle="--")
    if times is not None and len(drawn) > 1:
        for index, line in zip(kept, lines, strict=True):
            _plot(axes, line, color=shade_of(times.share(index)))
        add_scale(axes, min(times.values), max(times.values), times.label)
    else:
        _draw_lines(axes, lines, model_labels([report.source for report in drawn]))
    bits = max(map(len, lines))
    axes.set_xticks(range(bits))
    what = f" of {model_labels([drawn[0].source])[0]}" if len(drawn) == 1 else ""
    finish(
        axes,
        title=f"Bit-planes{what} (QuBD)",
        xlabel="bit-plane (0 is least significant)",
        ylabel=f"BDM, ratio to {_reference(drawn[0])}" if relative else "BDM per 4x4 block (bits)",
    )


def _draw_lines(axes: Axes, lines: Sequence[Sequence[_Value]], labels: Sequence[str]) -> None:
    """Lines told apart; of too many the extremes."""
    if len(lines) == 1:
        _plot(axes, lines[0], **style_of(0))
        return
    order = sorted(range(len(lines)), key=lambda index: sum(each.ratio for each in lines[index]))
    named = sorted(order[:NAMED_EXTREMES] + order[-NAMED_EXTREMES:])
    if len(lines) <= MOST_STYLES:
        named = list(range(len(lines)))
    others = [line for index, line in enumerate(lines) if index not in named]
    for number, line in enumerate(others):
        label = f"{len(others)} models between" if number == 0 else None
        _plot(axes, line, color="#BBBBBB", zorder=1.5, label=label)
    for position, index in enumerate(named):
        _plot(axes, lines[index], label=labels[index], **style_of(position))


def _plot(axes: Axes, line: Sequence[_Value], **style: Any) -> None:
    spreads = [each.spread for each in line]
    axes.errorbar(
        range(len(line)),
        [each.ratio for each in line],
        yerr=spreads if any(spreads) else None,
        elinewidth=0.8,
        markersize=3.5,
        linewidth=1,
        **style,
    )


def _planes(report: ComplexityReport, *, relative: bool) -> list[_Value]:
    """The complexity of each plane against the baseline's, or per block."""
    assert report.qubd is not None
    if relative:
        ratios = [_against(report, f"qubd[{plane}]") for plane in range(report.qubd.bits)]
        return [_Value(float("nan")) if ratio is None else ratio for ratio in ratios]
    weights = sum(each.n for each in report.tensors if each.qubd is not None)
    return [_Value(16 * value / max(weights, 1)) for value in report.qubd.planes]


def _draw_ranking(axes: Axes, reports: Sequence[ComplexityReport]) -> None:
    label, series = _series(reports)
    if not series:
        raise InvalidArgumentError("models are ranked by bdm, bdm_2d or qubd; measure one of them")
    order = sorted(range(len(reports)), key=lambda index: series[0].values[index].ratio)
    positions = list(range(1, len(order) + 1))
    for style, each in enumerate(series):
        _points(axes, [each.values[index] for index in order], positions, style, each.name)
    axes.axvline(1, color=NEUTRAL, linewidth=0.8, linestyle="--")
    axes.set_ylim(0.4, len(order) + 0.6)
    named = len(order) <= MAX_LABELS
    if named:
        labels = model_labels([report.source for report in reports])
        axes.set_yticks(positions, [labels[index] for index in order])
    finish(
        axes,
        title=f"Models, ranked by {series[0].name}",
        xlabel=label,
        ylabel="" if named else "rank (1 is least complex)",
    )


def _draw_time(axes: Axes, reports: Sequence[ComplexityReport], times: _Times) -> None:
    label, series = _series(reports)
    if not series:
        raise InvalidArgumentError("training is drawn by bdm, bdm_2d or qubd; measure one of them")
    axes.axhline(1, color=NEUTRAL, linewidth=0.8, linestyle="--")
    for position, each in enumerate(series):
        spreads = [value.spread for value in each.values]
        axes.errorbar(
            times.values,
            [value.ratio for value in each.values],
            yerr=spreads if any(spreads) else None,
            elinewidth=0.8,
            markersize=3.5,
            markevery=-(-len(times.values) // 20),
            linewidth=1,
            label=each.name,
            **style_of(position),
        )
    integer_ticks(axes)
    finish(axes, title="Complexity over training", xlabel=times.label, ylabel=label)
