"""The paper's figures, drawn from the logs of runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from momos_rs.errors import InvalidArgumentError
from momos_rs.plots.labels import shortened
from momos_rs.plots.style import (
    FONT_SIZE,
    MOST_STYLES,
    NEUTRAL,
    add_colours,
    finish,
    integer_ticks,
    label,
    new_row,
    new_sheet,
    plain_log_ticks,
    save,
    style_of,
)
from momos_rs.runtime.atomic_file import check_target, replacing
from momos_rs.runtime.event_log import read_log

from .checkpoints import LOG_NAME, settings_of
from .config import RunConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "Run", "draw", "find_runs", "load_run"]

_PANEL = 2.4  # inches
_MOST_ROWS, _MOST_COLUMNS = 48, 64


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its log tells it.

    Attributes:
        path: Its folder.
        config: Its settings.
        start: The first event.
        epochs: The entries of its epochs.
        end: The last event, None if the run has not come to its end.
    """

    path: Path
    config: RunConfig
    start: dict[str, Any]
    epochs: list[dict[str, Any]]
    end: dict[str, Any] | None

    @property
    def label(self) -> str:
        """How legends call it."""
        return _motifs(self.config)


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of folders: each a run, or a sweep with a run in every subfolder.

    Raises:
        InvalidArgumentError: If a folder holds no run.
        OSError: If one cannot be read.
    """
    runs = []
    for path in paths:
        if (path / LOG_NAME).is_file():
            runs.append(load_run(path))
            continue
        inner = sorted(each.parent for each in path.glob(f"*/{LOG_NAME}"))
        if not inner:
            what = "holds no run" if path.is_dir() else "does not exist"
            raise InvalidArgumentError(f"{path} {what}; name the folder of a run or of a sweep")
        runs += [load_run(each) for each in inner]
    return runs


def load_run(path: Path) -> Run:
    """The run of a folder.

    Raises:
        InvalidArgumentError: If its log has no beginning.
        CorruptionError: If its log is damaged.
    """
    events = read_log(path / LOG_NAME)
    if not events or events[0]["event"] != "start":
        raise InvalidArgumentError(f"{path / LOG_NAME} is not the log of a run")
    return Run(
        path=path,
        config=RunConfig.from_dict(settings_of(events)),
        start=events[0],
        epochs=[each for each in events if each["event"] == "epoch"],
        end=next((each for each in events if each["event"] == "end"), None),
    )


def draw(
    runs: Sequence[Run],
    folder: Path,
    *,
    figures: Sequence[str] = (),
    suffix: str = "png",
    layer: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Draws figures into files.

    Args:
        runs: The runs.
        folder: Where the files go, made if it is not there.
        figures: Names of :data:`FIGURES`; those that the runs have something for, if empty.
        suffix: ``png``, ``svg`` or ``pdf``.
        layer: The parameter that the mosaic's picture shows; a small one by default.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files, one per figure.

    Raises:
        InvalidArgumentError: If a figure is unknown, or the runs have nothing for a figure that
            was asked for.
        MomosError: If matplotlib is not installed.
        FileExistsError: If a file exists and may not be replaced.
    """
    for name in figures:
        if name not in FIGURES:
            raise InvalidArgumentError(f"unknown figure {name!r}: {', '.join(FIGURES)}")
    drawn = {}
    for name in figures or FIGURES:
        try:
            drawn[name] = FIGURES[name](runs, layer)
        except _NothingToDrawError as error:
            if name in figures:
                raise InvalidArgumentError(f"figure {name}: {error}") from None
    if not drawn:
        raise InvalidArgumentError("the runs have nothing to draw yet")
    folder.mkdir(parents=True, exist_ok=True)
    targets = {folder / f"{name}.{suffix}": figure for name, figure in drawn.items()}
    for target in targets:
        check_target(target, overwrite=overwrite)
    for target, figure in targets.items():
        with replacing(target, overwrite=overwrite) as file:
            save(figure, file, suffix)
    return list(targets)


class _NothingToDrawError(Exception):
    """The runs do not have what the figure shows."""


@dataclass(frozen=True)
class _Curve:
    """A setting of several, by its first run, so that seeds do not crowd a picture."""

    run: Run
    label: str
    style: dict[str, Any]


def _curves(runs: Sequence[Run], drawn: Callable[[Run], bool]) -> tuple[list[_Curve], int]:
    """The settings that there is something to draw of, and how many more there are than styles.

    A setting has the same style in all figures; runs without a mosaic are black, without markers.
    """
    settings: dict[RunConfig, Run] = {}
    for run in runs:
        settings.setdefault(replace(run.config, seed=0), run)
    settings = {config: settings[config] for config in sorted(settings, key=_order)}
    labels = dict(zip(settings, _labels(list(settings)), strict=True))
    curves = []
    plain = mosaics = left_out = 0
    for config, run in settings.items():
        if config.projects:
            style, room = style_of(mosaics), mosaics < MOST_STYLES
            mosaics += 1
        else:
            style, room = _plain_style(plain), plain < len(_DASHES)
            plain += 1
        if drawn(run):
            if room:
                curves.append(_Curve(run, labels[config], style))
            else:
                left_out += 1
    return curves, left_out


def _order(config: RunConfig) -> tuple[bool, int, float]:
    """Runs without a mosaic first, then by block size and motifs."""
    return config.projects, config.s, config.capacity or config.k or 0.0


_DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def _plain_style(position: int) -> dict[str, Any]:
    return {"color": "black", "linestyle": _DASHES[position % len(_DASHES)]}


def _size(config: RunConfig) -> str:
    return f"k={config.k}" if config.k else f"c={config.capacity:g}"


def _motifs(config: RunConfig) -> str:
    return f"s={config.s}, {_size(config)}" if config.projects else config.method


def _labels(
    configs: Sequence[RunConfig], called: Callable[[RunConfig], str] = _motifs
) -> list[str]:
    """What legends call settings: by a name, and by whatever else they differ in."""
    named = ("s", "k", "capacity", "method", "seed", "measures", "device", "threads")
    others = [
        field.name
        for field in fields(RunConfig)
        if field.name not in named and len({getattr(each, field.name) for each in configs}) > 1
    ]
    methods = {each.method for each in configs if each.projects}
    labels = []
    for config in configs:
        parts = [called(config)]
        if config.projects and len(methods) > 1:
            parts.append(config.method)
        parts += [_setting(name, getattr(config, name)) for name in others]
        labels.append(", ".join(parts))
    return labels


def _block_size(config: RunConfig) -> str:
    return f"s={config.s}" if config.projects else config.method


def _setting(name: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{name.replace('_', ' ')} {value}"


def _with_left_out(title: str, left_out: int) -> str:
    return f"{title} (without {left_out} more)" if left_out else title


def _plot(axes: Axes, x: Sequence[float], y: Sequence[float], curve: _Curve) -> None:
    axes.plot(
        x,
        y,
        label=curve.label,
        markevery=-(-len(x) // 12),
        markersize=3.5,
        linewidth=1,
        **curve.style,
    )


def draw_distortion(runs: Sequence[Run], _layer: str | None) -> Figure:
    """Distortion of each projection over training (the paper's figures 3 and 5)."""
    curves, left_out = _curves(runs, lambda run: bool(_projections(run)))
    if not curves:
        raise _NothingToDrawError("no run projects")
    sheet = new_sheet([_PANEL])
    (axes,) = sheet.panels
    for curve in curves:
        points = _projections(curve.run)
        weights = curve.run.start["parameters"]
        _plot(
            axes,
            [each["epoch"] for each in points],
            [each["distortion"] / weights for each in points],
            curve,
        )
    axes.set_yscale("log")
    integer_ticks(axes)
    finish(
        axes,
        title=_with_left_out("Distortion of the projections", left_out),
        xlabel="epoch",
        ylabel="distortion per weight (squared)",
    )
    return sheet.fit()


def _projections(run: Run) -> list[dict[str, Any]]:
    return [each for each in run.epochs if each.get("distortion", 0.0) > 0.0]


def draw_accuracy(runs: Sequence[Run], _layer: str | None) -> Figure:
    """Test accuracy against capacity, with the line of the run without a mosaic (figure 4)."""
    lines: dict[RunConfig, dict[float, list[float]]] = {}
    plain: dict[RunConfig, list[float]] = {}
    for run in runs:
        if run.end is None:
            continue
        accuracy = 100 * run.end["test_accuracy"]
        setting = replace(run.config, seed=0, k=None, capacity=1.0)
        if run.config.projects:
            asked = run.config.capacity
            at = run.end["k"] / run.end["m"] if asked is None else asked
            lines.setdefault(setting, {}).setdefault(at, []).append(accuracy)
        else:
            plain.setdefault(setting, []).append(accuracy)
    capacities = {capacity for line in lines.values() for capacity in line}
    if not lines:
        raise _NothingToDrawError("no finished run has a mosaic")
    if len(capacities) == 1 and not plain:
        raise _NothingToDrawError(
            "one capacity is not much of a figure; add runs of others, or one of --method baseline"
        )
    seeds = max(len(each) for line in lines.values() for each in line.values())
    sheet = new_sheet([_PANEL])
    (axes,) = sheet.panels
    settings = [*lines, *plain]
    labels = dict(zip(settings, _labels(settings, _block_size), strict=True))
    for position, (setting, line) in enumerate(list(plain.items())[: len(_DASHES)]):
        mean, spread = statistics.fmean(line), _deviation(line)
        label = "no mosaic" if len(plain) == 1 else labels[setting]
        axes.axhline(mean, linewidth=1, label=label, **_plain_style(position))
        if spread:
            axes.axhspan(mean - spread, mean + spread, color=NEUTRAL, alpha=0.15, linewidth=0)
    ordered = sorted(lines.items(), key=lambda item: item[0].s)
    for position, (setting, by_capacity) in enumerate(ordered[:MOST_STYLES]):
        at = sorted(by_capacity)
        axes.errorbar(
            at,
            [statistics.fmean(by_capacity[each]) for each in at],
            yerr=[_deviation(by_capacity[each]) for each in at] if seeds > 1 else None,
            capsize=2.5,
            elinewidth=0.8,
            markersize=3.5,
            linewidth=1,
            label=labels[setting],
            **style_of(position),
        )
    plain_log_ticks(axes, sorted(capacities))
    finish(
        axes,
        title=_with_left_out(
            f"Accuracy against capacity{f', {seeds} seeds' if seeds > 1 else ''}",
            max(len(ordered) - MOST_STYLES, 0),
        ),
        xlabel="capacity c (motifs per block)",
        ylabel="test accuracy (%)" if seeds == 1 else "test accuracy (%), mean and s.d.",
    )
    return sheet.fit()


def draw_usage(runs: Sequence[Run], _layer: str | None) -> Figure:
    """How often each motif is used, from the most used one on."""
    curves, left_out = _curves(runs, lambda run: run.end is not None and "motif_counts" in run.end)
    if not curves:
        raise _NothingToDrawError("no finished run has a mosaic")
    sheet = new_sheet([_PANEL])
    (axes,) = sheet.panels
    for curve in curves:
        assert curve.run.end is not None
        counts = curve.run.end["motif_counts"]
        used = [each for each in counts if each]
        marks = {min(len(used) - 1, round(10 ** (half / 2))) for half in range(1, 16)} | {0}
        axes.plot(
            range(1, len(used) + 1),
            used,
            label=f"{curve.label}: {len(used):,} of {len(counts):,}",
            markevery=sorted(marks),
            markersize=3.5,
            linewidth=1,
            **curve.style,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(
        axes,
        title=_with_left_out("Motif usage: motifs used of k", left_out),
        xlabel="rank of the motif, most used first",
        ylabel="blocks that use it",
    )
    return sheet.fit()


_MEASURES = {
    "bdm": "BDM of signs (1-D)",
    "bdm_2d": "BDM of signs (4x4)",
    "qubd": "QuBD, 8 planes",
    "entropy": "block entropy of signs",
    "gzip": "gzip ratio",
    "bz2": "bz2 ratio",
    "lzma": "lzma ratio",
    "zstd": "zstd ratio",
}


def draw_complexity(runs: Sequence[Run], _layer: str | None) -> Figure:
    """Complexity over training, relative to initialisation (or to the first epoch)."""
    curves, left_out = _curves(
        runs, lambda run: bool(run.epochs) and all("complexity" in each for each in run.epochs)
    )
    if not curves:
        raise _NothingToDrawError("no run logs complexity (--measure)")
    names = [
        name
        for name in _MEASURES
        if all(name in curve.run.epochs[0]["complexity"] for curve in curves)
    ][:3]
    if not names:
        raise _NothingToDrawError("the runs have no measure in common")
    sheet = new_sheet([_PANEL] + [_PANEL - 0.3] * (len(names) - 1))
    for axes, name in zip(sheet.panels, names, strict=True):
        for curve in curves:
            start = [curve.run.start] if "complexity" in curve.run.start else []
            entries = [*start, *curve.run.epochs]
            first = entries[0]["complexity"][name] or 1.0
            _plot(
                axes,
                [each.get("epoch", 0) for each in entries],
                [each["complexity"][name] / first for each in entries],
                curve,
            )
            if axes is not sheet.panels[0]:
                axes.lines[-1].set_label("")  # one key for all panels
        integer_ticks(axes)
        finish(
            axes,
            title=_with_left_out(_MEASURES[name], left_out),
            xlabel="epoch",
            ylabel="ratio to initialisation",
        )
    return sheet.fit()


def draw_mosaic(runs: Sequence[Run], layer: str | None) -> Figure:
    """A small layer before training, after it, and which motif each of its blocks is (figure 1)."""
    run = next((r for r in runs if r.config.projects and (r.path / "final.pt").is_file()), None)
    if run is None:
        raise _NothingToDrawError("no finished run has a mosaic")
    first, last = _weights(run.path / "init.pt"), _weights(run.path / "final.pt")
    name = _choose_layer(last, layer)
    s = run.config.s
    columns = last[name].shape[1]
    window = np.s_[:_MOST_ROWS, : min(columns, max(s, _MOST_COLUMNS // s * s))]
    motif = _motif_ranks(last[name], s)
    before, after, ranks = first[name][window], last[name][window], motif[window]
    figure, panels = new_row(3, 2.3)
    limit = float(np.percentile(np.abs(np.concatenate([before, after])), 99.5)) or 1.0
    common: dict[str, Any] = {"interpolation": "none", "aspect": "auto"}
    weights: dict[str, Any] = {"cmap": "PuOr", "vmin": -limit, "vmax": limit, **common}
    panels[0].imshow(before, **weights)
    shown = panels[1].imshow(after, **weights)
    add_colours(panels[1], shown, "weight")
    used = panels[2].imshow(
        1 + ranks, cmap="cividis_r", norm=_log_norm(1, max(2, int(motif.max()) + 1)), **common
    )
    add_colours(panels[2], used, "rank of the motif by use")
    titles = (f"{shortened(name)}, initial", f"trained, {run.label}", "motifs, 1 is most used")
    for axes, title in zip(panels, titles, strict=True):
        label(axes, title=title, xlabel="column (input)", ylabel="")
        axes.grid(visible=False)
    panels[0].set_ylabel("row (output)", fontsize=FONT_SIZE)
    return figure


FIGURES: dict[str, Callable[[Sequence[Run], str | None], Figure]] = {
    "mosaic": draw_mosaic,
    "distortion": draw_distortion,
    "accuracy": draw_accuracy,
    "usage": draw_usage,
    "complexity": draw_complexity,
}
"""Figures by name."""


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _log_norm(low: float, high: float) -> Any:
    from matplotlib.colors import LogNorm

    return LogNorm(low, high)


def _weights(path: Path) -> dict[str, Any]:
    """The matrices of a checkpoint, higher dimensions flattened to (rows, rest)."""
    import torch

    saved = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {
        name: each.float().flatten(1).numpy()
        for name, each in saved.items()
        if each.is_floating_point() and each.dim() >= 2
    }


def _choose_layer(weights: dict[str, Any], layer: str | None) -> str:
    if layer is not None:
        if layer not in weights:
            raise InvalidArgumentError(
                f"there is no layer {layer!r}; there are {', '.join(weights)}"
            )
        return layer
    if not weights:
        raise _NothingToDrawError("the model has no matrix")
    # The smallest one that fills the picture, else the largest.
    enough = [n for n, w in weights.items() if w.shape[0] >= 24 and w.shape[1] >= 24]
    return min(enough or weights, key=lambda name: weights[name].size * (1 if enough else -1))


def _motif_ranks(weights: Any, s: int) -> Any:
    """For each weight the rank, from 0, of its block's motif by use within the layer."""
    flat = np.pad(weights.ravel(), (0, -weights.size % s))
    _, label, counts = np.unique(
        flat.reshape(-1, s), axis=0, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    per_weight = np.repeat(rank[label.ravel()], s)[: weights.size]
    return per_weight.reshape(weights.shape)
