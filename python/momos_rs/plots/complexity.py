"""Pictures of complexity reports: by layer, by bit-plane, ranked, over training time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from momos_rs.complexity.report import ComplexityReport
from momos_rs.errors import InvalidArgumentError
from momos_rs.files import replacing

from .style import COLOURS, MARKERS, add_scale, finish, new_figure, save, shade_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "Picture", "draw_pictures", "pictures_for", "save_pictures"]

Picture: TypeAlias = Literal["layers", "planes", "ranking", "time"]
PICTURES: tuple[Picture, ...] = get_args(Picture)

FORMATS = (".pdf", ".png", ".svg")
MAX_LABELS = 40
"""More layers or models than this are numbered, not named."""

LABEL_LENGTH = 24


def pictures_for(reports: Sequence[ComplexityReport], *, over_time: bool = False) -> list[Picture]:
    """The pictures that there are data for."""
    pictures: list[Picture] = []
    if over_time and len(reports) > 1:
        pictures.append("time")
    elif len(reports) > 1:
        pictures.append("ranking")
    if len(reports) == 1 and _layers(reports[0])[1]:
        pictures.append("layers")
    if any(report.qubd is not None for report in reports):
        pictures.append("planes")
    return pictures


def save_pictures(
    reports: Sequence[ComplexityReport],
    path: Path,
    *,
    over_time: bool = False,
    steps: Sequence[float] | None = None,
    overwrite: bool = False,
) -> None:
    """Draws all pictures there are data for into one file, one below the other.

    Args:
        reports: The models, in order.
        path: A ``.pdf``, ``.png`` or ``.svg`` file.
        over_time: Whether the reports are of one model in the course of its training.
        steps: When each was, such as the epoch; 0, 1, 2, ... by default.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InvalidArgumentError: If the suffix is none of these, or nothing measured can be drawn.
        MomosError: If matplotlib is not installed.
        OSError: If the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise InvalidArgumentError(f"pictures end in {', '.join(FORMATS)}, not {path.suffix!r}")
    figure = draw_pictures(reports, over_time=over_time, steps=steps)
    with replacing(path, overwrite=overwrite) as file:
        save(figure, file, path.suffix[1:])


def draw_pictures(
    reports: Sequence[ComplexityReport],
    *,
    pictures: Sequence[Picture] | None = None,
    over_time: bool = False,
    steps: Sequence[float] | None = None,
) -> Figure:
    """The pictures as panels of one figure of the width of a column.

    Args:
        reports: The models, in order.
        pictures: Which; all there are data for by default.
        over_time: Whether the reports are of one model in the course of its training.
        steps: When each was; 0, 1, 2, ... by default.

    Raises:
        InvalidArgumentError: If nothing measured can be drawn.
        MomosError: If matplotlib is not installed.
    """
    chosen = pictures_for(reports, over_time=over_time) if pictures is None else list(pictures)
    if not chosen:
        raise InvalidArgumentError(
            "nothing that was measured can be drawn; measure bdm, bdm2d or qubd"
        )
    heights = [_height(picture, reports) for picture in chosen]
    figure, panels = new_figure(heights)
    for picture, axes in zip(chosen, panels, strict=True):
        if picture == "layers":
            _draw_layers(axes, reports[0])
        elif picture == "planes":
            _draw_planes(axes, reports, over_time=over_time)
        elif picture == "ranking":
            _draw_ranking(axes, reports)
        else:
            _draw_time(axes, reports, steps)
    return figure


def _height(picture: Picture, reports: Sequence[ComplexityReport]) -> float:
    rows = {"layers": len(_layers(reports[0])[1]), "ranking": len(reports)}.get(picture, 0)
    return 2.4 if rows == 0 else 0.9 + 0.16 * min(rows, MAX_LABELS + 20)


@dataclass(frozen=True)
class _Series:
    name: str
    value: Callable[[ComplexityReport], float | None]


def _against(figure: str) -> Callable[[ComplexityReport], float | None]:
    def value(report: ComplexityReport) -> float | None:
        found = None if report.baseline is None else report.baseline.ratio(figure)
        return None if found is None else found.ratio

    return value


def _series(reports: Sequence[ComplexityReport]) -> tuple[str, list[_Series]]:
    """What to draw of whole models: ratios to the baseline, else to random bits."""
    if all(report.baseline is not None for report in reports):
        assert reports[0].baseline is not None
        label = f"complexity / that of {_shortened(reports[0].baseline.source)}"
        candidates = [
            _Series("BDM of signs, 1-D", _against("bdm")),
            _Series("BDM of signs, 4x4", _against("bdm2d")),
            _Series("QuBD", _against("qubd")),
        ]
    else:
        label = "BDM / that of random bits"
        candidates = [
            _Series("signs, 1-D", lambda r: r.signs.random_ratio if r.signs else None),
            _Series("signs, 4x4", lambda r: r.sign_plane.random_ratio if r.sign_plane else None),
        ]
    drawn = [each for each in candidates if all(each.value(r) is not None for r in reports)]
    return label, drawn


def _layers(report: ComplexityReport) -> tuple[str, list[tuple[str, float]]]:
    """What is drawn of layers, and the layers that have it, in order.

    The measure that tells most of those measured: QuBD, then the signs as matrices, then as a
    stream. Layers that it does not apply to, such as biases, are not drawn.
    """
    if report.baseline is None:
        planes = [(each.name, each.sign_plane) for each in report.tensors]
        return "4x4 BDM of signs", [
            (name, plane.random_ratio) for name, plane in planes if plane and plane.blocks
        ]
    names = {"qubd": "QuBD", "bdm2d": "4x4 BDM of signs", "bdm": "1-D BDM of signs"}
    for figure, label in names.items():
        found = [
            (tensor.name, ratio.ratio)
            for tensor in report.baseline.tensors
            for ratio in tensor.ratios
            if ratio.figure == figure
        ]
        if found:
            return label, found
    return "", []


def _draw_layers(axes: Axes, report: ComplexityReport) -> None:
    measure, layers = _layers(report)
    positions = list(range(len(layers)))
    axes.scatter([value for _, value in layers], positions, s=10, color=COLOURS[0], zorder=3)
    axes.axvline(1, color="#555555", linewidth=0.8, linestyle="--")
    axes.invert_yaxis()
    if len(layers) <= MAX_LABELS:
        axes.set_yticks(positions, [_shortened(name) for name, _ in layers])
    reference = report.baseline.source if report.baseline else "random bits"
    finish(
        axes,
        title="By layer",
        xlabel=f"{measure} / that of {_shortened(reference)}",
        ylabel="" if len(layers) <= MAX_LABELS else "layer, in order",
    )


def _draw_planes(axes: Axes, reports: Sequence[ComplexityReport], *, over_time: bool) -> None:
    drawn = [report for report in reports if report.qubd is not None]
    relative = all(report.baseline is not None for report in drawn)
    shade = over_time and len(drawn) > 1
    for index, report in enumerate(drawn):
        values = _planes(report, relative=relative)
        style: dict[str, Any] = {"color": COLOURS[0], "alpha": 0.3}
        if shade:
            style = {"color": shade_of(index, len(drawn))}
        elif len(drawn) <= len(COLOURS):
            style = {
                "color": COLOURS[index],
                "marker": MARKERS[index],
                "label": _shortened(report.source),
            }
        axes.plot(range(len(values)), values, markersize=3, linewidth=1, **style)
    if shade:
        add_scale(axes, len(drawn), "checkpoint, in order")
    elif 1 < len(drawn) <= len(COLOURS):
        axes.legend(frameon=False)
    bits = max(report.qubd.bits for report in drawn if report.qubd is not None)
    axes.set_xticks(range(bits))
    reference = drawn[0].baseline.source if relative and drawn[0].baseline else ""
    if relative:
        axes.axhline(1, color="#555555", linewidth=0.8, linestyle="--")
    finish(
        axes,
        title="By bit-plane (QuBD)",
        xlabel=f"bit-plane (0: least significant, {bits - 1}: most)",
        ylabel=f"BDM / that of {_shortened(reference)}" if relative else "BDM (bits per 4x4 block)",
    )


def _planes(report: ComplexityReport, *, relative: bool) -> list[float]:
    """The complexity of each plane against the baseline's, or per block."""
    assert report.qubd is not None
    if relative:
        ratios = [_against(f"qubd[{plane}]")(report) for plane in range(report.qubd.bits)]
        return [float("nan") if ratio is None else ratio for ratio in ratios]
    weights = sum(each.n for each in report.tensors if each.qubd is not None)
    return [16 * value / max(weights, 1) for value in report.qubd.planes]


def _draw_ranking(axes: Axes, reports: Sequence[ComplexityReport]) -> None:
    label, series = _series(reports)
    if not series:
        raise InvalidArgumentError("models are ranked by bdm, bdm2d or qubd; measure one of them")
    first = series[0].value
    ranked = sorted(reports, key=lambda report: first(report) or 0.0)
    positions = list(range(len(ranked)))
    for index, each in enumerate(series):
        axes.scatter(
            [each.value(report) or 0.0 for report in ranked],
            positions,
            s=12,
            color=COLOURS[index],
            marker=MARKERS[index],
            label=each.name,
            zorder=3,
        )
    axes.axvline(1, color="#555555", linewidth=0.8, linestyle="--")
    if len(ranked) <= MAX_LABELS:
        axes.set_yticks(positions, [_shortened(report.source) for report in ranked])
    if len(series) > 1:
        axes.legend(loc="best", framealpha=0.9)
    finish(
        axes,
        title="Models, ranked",
        xlabel=label,
        ylabel="" if len(ranked) <= MAX_LABELS else "rank",
    )


def _draw_time(
    axes: Axes, reports: Sequence[ComplexityReport], steps: Sequence[float] | None
) -> None:
    label, series = _series(reports)
    if not series:
        raise InvalidArgumentError("training is drawn by bdm, bdm2d or qubd; measure one of them")
    times = list(range(len(reports))) if steps is None else list(steps)
    for index, each in enumerate(series):
        axes.plot(
            times,
            [each.value(report) or 0.0 for report in reports],
            color=COLOURS[index],
            marker=MARKERS[index],
            markersize=3,
            linewidth=1,
            label=each.name,
        )
    axes.axhline(1, color="#555555", linewidth=0.8, linestyle="--")
    axes.legend(frameon=False)
    finish(
        axes,
        title="Over training",
        xlabel="checkpoint, in order" if steps is None else "step of training",
        ylabel=label,
    )


def _shortened(name: str) -> str:
    """A path without its folders, and the end of a long name, which tells more than its start."""
    name = (name.rpartition("/")[2] or name).removesuffix(".weight")
    return name if len(name) <= LABEL_LENGTH else f"…{name[1 - LABEL_LENGTH :]}"
