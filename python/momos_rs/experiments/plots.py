"""The paper's figures, drawn from the logs of runs.

Colours are Okabe and Ito's, told apart with any colour vision; lines differ by their marker too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidArgumentError
from ..files import replacing
from .checkpoints import LOG_NAME
from .config import RunConfig
from .log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "Run", "draw", "find_runs", "load_run"]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_PLAIN_COLOR = "#222222"
_MOST_LINES = len(_COLORS)
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
        if not self.config.projects:
            return self.config.method
        size = f"k={self.config.k}" if self.config.k else f"c={self.config.capacity:g}"
        return f"s={self.config.s}, {size}"


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
        config=RunConfig.from_dict(events[0]["config"]),
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
        InvalidArgumentError: If matplotlib is missing, a figure is unknown, or the runs have
            nothing for a figure that was asked for.
        FileExistsError: If a file exists and may not be replaced.
    """
    for name in figures:
        if name not in FIGURES:
            raise InvalidArgumentError(f"unknown figure {name!r}: {', '.join(FIGURES)}")
    plt = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in figures or FIGURES:
        with plt.rc_context(_STYLE):
            try:
                figure = FIGURES[name](runs, layer)
            except _NothingToDrawError as error:
                if name in figures:
                    raise InvalidArgumentError(f"figure {name}: {error}") from None
                continue
            target = folder / f"{name}.{suffix}"
            try:
                with replacing(target, overwrite=overwrite) as file:
                    figure.savefig(file, format=suffix)
            finally:
                plt.close(figure)
        written.append(target)
    if not written:
        raise InvalidArgumentError("the runs have nothing to draw yet")
    return written


class _NothingToDrawError(Exception):
    """The runs do not have what the figure shows."""


_STYLE: dict[str, Any] = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        raise InvalidArgumentError(
            "pictures need matplotlib: pip install 'momos_rs[plot]'"
        ) from None
    return plt


def _figure(width: float = 4.8, height: float = 3.2, columns: int = 1) -> tuple[Figure, Any]:
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height))


def _style_of(position: int) -> dict[str, Any]:
    return {
        "color": _COLORS[position % len(_COLORS)],
        "marker": _MARKERS[position % len(_MARKERS)],
    }


def _curves(runs: Sequence[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """The first run of each setting, so that seeds do not crowd a picture, with its style.

    A setting has the same style in all figures; runs without a mosaic are black and dashed.
    """
    settings: dict[RunConfig, Run] = {}
    for run in runs:
        settings.setdefault(replace(run.config, seed=0), run)
    plain = [run for run in settings.values() if not run.config.projects]
    mosaics = [run for run in settings.values() if run.config.projects]
    dashed = {"color": _PLAIN_COLOR, "linestyle": "--", "marker": "None"}
    return [(run, dashed) for run in plain[:1]] + [
        (run, _style_of(position)) for position, run in enumerate(mosaics[:_MOST_LINES])
    ]


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(handles, labels, fontsize=8)


def draw_distortion(runs: Sequence[Run], _layer: str | None) -> Figure:
    """Distortion of each projection over training (the paper's figures 3 and 5)."""
    curves = []
    for run, style in _curves(runs):
        points = [each for each in run.epochs if each.get("distortion", 0.0) > 0.0]
        if points:
            curves.append((run, points, style))
    if not curves:
        raise _NothingToDrawError("no run projects")
    figure, axes = _figure()
    for run, points, style in curves:
        weights = run.start["parameters"]
        axes.plot(
            [each["epoch"] for each in points],
            [each["distortion"] / weights for each in points],
            label=run.label,
            markevery=max(1, len(points) // 8),
            **style,
        )
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("distortion per weight")
    axes.set_title("Distortion of the projections", fontsize=10)
    _integer_axis(axes)
    _legend(axes)
    return figure


def draw_accuracy(runs: Sequence[Run], _layer: str | None) -> Figure:
    """Test accuracy against capacity, with the line of the run without a mosaic (figure 4)."""
    points: dict[int, dict[float, list[float]]] = {}
    plain: list[float] = []
    for run in runs:
        if run.end is None:
            continue
        accuracy = 100 * run.end["test_accuracy"]
        if run.config.projects:
            capacity = run.end["k"] / run.end["m"]
            asked = run.config.capacity
            at = capacity if asked is None else asked
            points.setdefault(run.config.s, {}).setdefault(at, []).append(accuracy)
        else:
            plain.append(accuracy)
    if not points:
        raise _NothingToDrawError("no finished run has a mosaic")
    figure, axes = _figure()
    for position, (s, by_capacity) in enumerate(sorted(points.items())):
        capacities = sorted(by_capacity)
        axes.errorbar(
            capacities,
            [statistics.fmean(by_capacity[each]) for each in capacities],
            yerr=[_deviation(by_capacity[each]) for each in capacities],
            capsize=2.5,
            label=f"s={s}",
            **_style_of(position),
        )
    if plain:
        mean, spread = statistics.fmean(plain), _deviation(plain)
        axes.axhline(mean, color="#555555", linestyle="--", label="no mosaic")
        if spread:
            axes.axhspan(mean - spread, mean + spread, color="#555555", alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    _plain_log_axis(axes, sorted({c for by in points.values() for c in by}))
    axes.set_xlabel("capacity c (motifs per block)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("Accuracy against capacity", fontsize=10)
    _legend(axes)
    return figure


def draw_usage(runs: Sequence[Run], _layer: str | None) -> Figure:
    """How often each motif is used, from the most used one on."""
    curves = [
        (run, run.end["motif_counts"], style)
        for run, style in _curves(runs)
        if run.end is not None and "motif_counts" in run.end
    ]
    if not curves:
        raise _NothingToDrawError("no finished run has a mosaic")
    figure, axes = _figure()
    for run, counts, style in curves:
        used = [each for each in counts if each]
        ranks = range(1, len(used) + 1)
        marks = [0] + [
            min(len(used) - 1, round(10**power)) for power in (0.5, 1, 1.5, 2, 2.5, 3, 3.5)
        ]
        label = f"{run.label}: {len(used):,} of {len(counts):,} used"
        axes.plot(ranks, used, label=label, markevery=sorted(set(marks)), **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank of the motif")
    axes.set_ylabel("blocks that use it")
    axes.set_title("Motif usage", fontsize=10)
    axes.legend(fontsize=8)
    return figure


def draw_complexity(runs: Sequence[Run], _layer: str | None) -> Figure:
    """Complexity over training, relative to initialisation (or to the first epoch)."""
    chosen = [
        (run, style)
        for run, style in _curves(runs)
        if run.epochs and all("complexity" in each for each in run.epochs)
    ]
    if not chosen:
        raise _NothingToDrawError("no run logs complexity (--measure)")
    names = [
        name
        for name in ("bdm", "bdm2d", "qubd", "entropy", "gzip", "bz2", "lzma", "zstd")
        if all(name in run.epochs[0]["complexity"] for run, _ in chosen)
    ][:3]
    if not names:
        raise _NothingToDrawError("the runs have no measure in common")
    titles = {
        "bdm": "BDM of the signs", "bdm2d": "2-D BDM of the signs", "qubd": "QuBD, 8 planes",
        "entropy": "block entropy of the signs",
    }  # fmt: skip
    figure, grid = _figure(width=0.6 + 3.4 * len(names), columns=len(names))
    for axes, name in zip(np.atleast_1d(grid), names, strict=True):
        for run, style in chosen:
            epochs = [0] if "complexity" in run.start else []
            values = [run.start["complexity"][name]] if epochs else []
            epochs += [each["epoch"] for each in run.epochs]
            values += [each["complexity"][name] for each in run.epochs]
            axes.plot(
                epochs,
                [value / values[0] for value in values],
                label=run.label,
                markevery=max(1, len(values) // 8),
                **style,
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel("ratio to initialisation")
        axes.set_title(titles.get(name, f"{name} ratio"), fontsize=10)
        _integer_axis(axes)
    _legend(np.atleast_1d(grid)[0])
    return figure


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
    figure, grid = _figure(width=9.6, height=3.1, columns=3)
    limit = float(np.percentile(np.abs(np.concatenate([before, after])), 99.5)) or 1.0
    for axes, values, title in (
        (grid[0], before, "at initialisation"),
        (grid[1], after, "after training: a mosaic"),
    ):
        image = axes.imshow(
            values, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="none", aspect="auto"
        )
        axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=grid[1], label="weight", shrink=0.9)
    shown = grid[2].imshow(
        1 + ranks, cmap="cividis_r", interpolation="none", aspect="auto",
        norm=_log_norm(1, max(2, int(motif.max()) + 1)),
    )  # fmt: skip
    grid[2].set_title("its motifs", fontsize=10)
    figure.colorbar(shown, ax=grid[2], label="rank of the motif by use (1: most)", shrink=0.9)
    for axes in grid:
        axes.grid(visible=False)
        axes.set_xlabel("input")
    grid[0].set_ylabel("output")
    part = "" if after.shape == last[name].shape else f", its first {after.shape[0]} rows and "
    part += f"{after.shape[1]} columns" if part else ""
    figure.suptitle(f"{name} ({run.label}){part}", fontsize=10)
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


def _integer_axis(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plain_log_axis(axes: Axes, at: Sequence[float]) -> None:
    """Ticks at the values themselves, written as plain numbers."""
    from matplotlib.ticker import NullLocator

    axes.set_xticks(list(at), [f"{value:g}" for value in at])
    axes.xaxis.set_minor_locator(NullLocator())


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
