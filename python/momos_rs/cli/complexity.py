"""``momos complexity``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from momos_rs import defaults
from momos_rs.complexity import (
    MEASURES,
    NON_FINITE,
    RANDOM_BASELINES,
    ComplexityReport,
    WeightSet,
    collect_weights,
    measure,
)
from momos_rs.complexity.bit_planes import BITS, PERCENTILE
from momos_rs.complexity.collection import expand_models, short_names, times_of
from momos_rs.complexity.measurement import SAMPLE, SEEDS
from momos_rs.complexity.tables import format_figure, model_row, tensor_rows, to_csv
from momos_rs.errors import InvalidArgumentError
from momos_rs.limits import MAX_BLOCK_SIZE
from momos_rs.plots.style import check_format
from momos_rs.runtime.atomic_file import check_target, replacing

from .console import (
    debug_option,
    fitting_columns,
    fold,
    format_bytes,
    format_count,
    format_percent,
    format_table,
    json_option,
    print_json,
    progress_bar,
    quiet_option,
    screen_width,
)
from .lists import values_option
from .sizes import memory_option, threads_option

__all__ = ["complexity"]

DRAWN = ("bdm", "bdm_2d", "qubd")
"""Measures that there are pictures of."""

MEBIBYTE = 1 << 20


@click.command()
@click.argument("models", type=click.Path(path_type=Path), nargs=-1, required=True)
@values_option(
    "--measure",
    "--measures",
    "measures",
    type=click.Choice(MEASURES),
    help="What to measure; everything by default. bdm includes block entropy.",
)
@values_option("--skip", type=click.Choice(MEASURES), help="What not to measure.")
@click.option(
    "--baseline",
    metavar="MODEL|gaussian|shuffled",
    help="Compare with another checkpoint, such as the one at initialisation; with normal weights "
    "of each tensor's mean and deviation; or with each tensor's weights permuted.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=SEEDS,
    show_default=True,
    help="Random baselines to average.",
)
@click.option("--per-tensor", is_flag=True, help="Show every tensor, compressors included.")
@click.option(
    "--over-time", is_flag=True, help="The MODELS are checkpoints of one training run, in order."
)
@click.option(
    "-s",
    "--block-size",
    type=click.IntRange(1, MAX_BLOCK_SIZE),
    default=defaults.BLOCK_SIZE,
    show_default=True,
    help="Values per block of the mosaic bound.",
)
@click.option(
    "-c",
    "--capacity",
    type=click.FloatRange(0, 1, min_open=True),
    default=defaults.CAPACITY,
    show_default=True,
    help="Motifs per block of the mosaic bound.",
)
@click.option(
    "--bits",
    type=click.IntRange(1, 16),
    default=BITS,
    show_default=True,
    help="Bits per weight of the quantised bit-planes.",
)
@click.option("--robust", is_flag=True, help="Quantise between percentiles, not the extremes.")
@click.option(
    "--percentile",
    type=click.FloatRange(0, 100, min_open=True),
    default=PERCENTILE,
    show_default=True,
    help="Central share of the weights, in percent, that --robust keeps.",
)
@click.option(
    "--non-finite",
    type=click.Choice(NON_FINITE),
    default="error",
    show_default=True,
    help="What to do about tensors with NaN or infinities.",
)
@click.option(
    "--sample",
    type=click.IntRange(0),
    default=SAMPLE // MEBIBYTE,
    show_default=True,
    metavar="MIB",
    help="Most MiB of weights that bz2 and lzma are given; 0 for all.",
)
@threads_option
@memory_option
@click.option("--allow-pickle", is_flag=True, help="Let models run their own code as they load.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write a CSV file.")
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path),
    help="Draw pictures into a .png, .svg or .pdf file.",
)
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path), help="Write one page of everything."
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@json_option
@quiet_option
@debug_option
def complexity(
    models: tuple[Path, ...],
    measures: tuple[str, ...],
    skip: tuple[str, ...],
    baseline: str | None,
    per_tensor: bool,
    over_time: bool,
    sample: int,
    allow_pickle: bool,
    csv_path: Path | None,
    plot_path: Path | None,
    html_path: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure the algorithmic complexity of the weights of MODELS.

    MODELS are checkpoints, .momos archives, or folders of them. Measured are the trainable
    parameters: integer tensors and running statistics of normalisation layers are left out.
    """
    targets = [path for path in (csv_path, plot_path, html_path) if path is not None]
    for target in targets:
        check_target(target, overwrite=force)
    if len({target.resolve() for target in targets}) < len(targets):
        raise InvalidArgumentError("--csv, --plot and --html need a file each")
    chosen = [each for each in measures or MEASURES if each not in skip]
    if plot_path is not None:
        check_format(plot_path)
        if not set(chosen) & set(DRAWN):
            raise InvalidArgumentError(f"--plot draws {', '.join(DRAWN)}; measure one of them")
    paths = expand_models(models)
    if over_time and len(paths) < 2:
        raise InvalidArgumentError(
            f"--over-time needs several checkpoints of a run, and {paths[0]} is one"
        )
    times = times_of(paths) if over_time else None
    units = dict.fromkeys(_phases(len(paths)), "weights")
    with progress_bar(enabled=not (quiet or as_json), units=units) as progress:
        reports = _measure_all(
            paths,
            progress,
            measures=chosen,
            baseline=_baseline(baseline, allow_pickle=allow_pickle),
            per_tensor_compression=per_tensor,
            sample=sample * MEBIBYTE or None,
            allow_pickle=allow_pickle,
            **options,
        )
    drawing: dict[str, Any] = {"over_time": over_time}
    if times is not None:
        drawing |= {"steps": times.steps, "unit": times.unit}
    try:
        _write_files(reports, csv_path, plot_path, html_path, per_tensor, drawing, force)
    finally:  # what took so long to measure is shown, whatever comes of the files
        if as_json:
            print_json(
                [report.to_dict() for report in reports] if len(paths) > 1 else reports[0].to_dict()
            )
        elif not quiet:
            click.echo(render(reports, per_tensor=per_tensor, width=screen_width()))


def _baseline(baseline: str | None, *, allow_pickle: bool) -> str | WeightSet | None:
    """A checkpoint is opened once, however many models there are."""
    if baseline is None or baseline in RANDOM_BASELINES:
        return baseline
    if not baseline or not Path(baseline).exists():
        raise FileNotFoundError(
            f"there is no baseline {baseline!r}: give a checkpoint, "
            f"or {' or '.join(RANDOM_BASELINES)}"
        )
    return collect_weights(baseline, allow_pickle=allow_pickle)


def _measure_all(
    paths: Sequence[Path],
    progress: Callable[[str, int, int], object] | None,
    **options: Any,
) -> list[ComplexityReport]:
    reports = []
    phases = _phases(len(paths))
    for phase, path, name in zip(phases, paths, short_names(paths), strict=True):

        def show(_phase: str, done: int, total: int, phase: str = phase) -> None:
            if progress is not None:
                progress(phase, done, total)

        reports.append(measure(path, name=name, progress=show, **options))
    return reports


def _phases(models: int) -> list[str]:
    """What the progress of each model is called."""
    if models == 1:
        return ["measure"]
    return [f"{number} of {models}" for number in range(1, models + 1)]


def _write_files(
    reports: Sequence[ComplexityReport],
    csv_path: Path | None,
    plot_path: Path | None,
    html_path: Path | None,
    per_tensor: bool,
    drawing: dict[str, Any],
    force: bool,
) -> None:
    if csv_path is not None:
        rows = [row for each in reports for row in tensor_rows(each)] if per_tensor else []
        text = to_csv(rows or [model_row(each) for each in reports])
        with replacing(csv_path, overwrite=force) as file:
            file.write(text.encode())
    if plot_path is not None:
        from momos_rs.plots import save_pictures

        save_pictures(reports, plot_path, overwrite=force, **drawing)
    if html_path is not None:
        from momos_rs.plots.page import render_page

        page = render_page(reports, **drawing)
        with replacing(html_path, overwrite=force) as file:
            file.write(page.encode())


def render(
    reports: Sequence[ComplexityReport], *, per_tensor: bool = False, width: int | None = None
) -> str:
    """The reports for people, in lines of that many characters."""
    if len(reports) > 1 and not per_tensor:
        return _render_many(reports, width)
    return "\n\n".join(_render_one(each, per_tensor=per_tensor, width=width) for each in reports)


def _render_many(reports: Sequence[ComplexityReport], width: int | None) -> str:
    """A row for each model, of what tells models of different sizes apart."""
    columns = {
        "n": "n",
        "bdm": "BDM",
        "bdm / random": "BDM/rand",
        "entropy corrected": "entropy",
        "bdm_2d": "bdm_2d",
        "bdm_2d / random": "bdm_2d/rand",
        "qubd": "QuBD",
        "gzip of weights": "gzip",
        "zstd of weights": "zstd",
        "bound ratio": "bound",
    }
    lines = []
    if all(report.baseline is not None for report in reports):
        assert reports[0].baseline is not None
        source = reports[0].baseline.source
        columns |= {f"{each} / {source}": f"{each}/base" for each in ("bdm", "bdm_2d", "qubd")}
        lines.append(f"base: {source}")
    rows = [model_row(report) for report in reports]
    shown = [column for column in columns if any(column in row for row in rows)]
    cells = [
        [str(row["model"]), *(_cell(column, row.get(column)) for column in shown)] for row in rows
    ]
    header = ["model", *(columns[column] for column in shown)]
    first = [
        column
        for ending in ("/base", "/rand")
        for column, name in enumerate(header)
        if name.endswith(ending)
    ]
    return "\n\n".join([_fitting_table(cells, header, width, first), *lines])


def _fitting_table(
    cells: list[list[str]], header: list[str], width: int | None, first: Sequence[int] = ()
) -> str:
    """A table of the columns there is room for, and the names of the others."""
    kept = fitting_columns([header, *cells], width, first=first)
    table = format_table(
        [[row[column] for column in kept] for row in cells],
        header=[header[column] for column in kept],
    )
    hidden = [name for column, name in enumerate(header) if column not in kept]
    if not hidden:
        return table
    names = f"no room for {', '.join(hidden)}; --csv FILE has them"
    return f"{table}\n{fold(names, indent='  ', width=width)}"


def _cell(column: str, value: str | int | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else format_figure(column, value)


def _render_one(report: ComplexityReport, *, per_tensor: bool, width: int | None) -> str:
    rows = [("weights (n)", format_count(report.n), format_bytes(report.nbytes))]
    if report.sparsity is not None:
        rows.append(("sparsity", format_percent(report.sparsity), ""))
    if report.l2 is not None:
        rows.append(("L2 norm", f"{report.l2:.6g}", ""))
    for blocks, what, size in (
        (report.signs, "signs, 1-D", "12 bits"),
        (report.bdm_2d, "signs, 4x4", "16 bits"),
    ):
        if blocks is not None and not blocks.blocks:
            rows.append((f"BDM of {what}", "-", "too few weights for a block"))
        elif blocks is not None:
            seen = f"{blocks.distinct:,} of {blocks.possible:,} blocks seen"
            rows += [
                (f"BDM of {what}", f"{blocks.bdm:,.1f} bits", seen),
                ("  over random bits", f"{blocks.random_ratio:.6f}", ""),
                (f"  entropy per {size}", f"{blocks.entropy:.5f} bits", ""),
                ("  corrected (Miller-Madow)", f"{blocks.entropy_corrected:.5f} bits", ""),
            ]
    if report.qubd is not None:
        tensors = f"{report.qubd.measured} of {len(report.tensors)} tensors"
        rows.append((f"QuBD, {report.qubd.bits} bits", f"{report.qubd.total:,.1f} bits", tensors))
    for each in report.compression:
        given = f"of {format_bytes(each.bytes_in)}{', a sample' if each.sampled else ''}"
        rows.append((f"{each.name} ratio of {each.of}", f"{each.ratio:.4f}", given))
    if report.bound is not None:
        bound = report.bound
        rows.append(
            (
                f"mosaic bound, s={bound.block_size}, c={bound.capacity:g}",
                f"{format_count(bound.bits)} bits",
                f"{format_percent(bound.ratio)} of the weights, k={bound.motifs:,}",
            )
        )
    parts = [report.source, format_table(rows)]
    if report.baseline is not None:
        parts.append(_render_baseline(report))
    if per_tensor:
        parts.append(_render_tensors(report, width))
    notes = list(report.notes)
    if report.left_out:
        reasons = sorted({each.reason for each in report.left_out})
        shown = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
        notes.append(f"{len(report.left_out)} tensors left out ({shown})")
    if notes:
        parts.append("\n".join(fold(f"note: {note}", indent="  ", width=width) for note in notes))
    return "\n\n".join(parts)


def _render_baseline(report: ComplexityReport) -> str:
    assert report.baseline is not None
    rows = [
        (
            each.figure,
            f"{each.ratio:.5f}",
            f"{each.baseline:,.5g}",
            f"{each.spread:.2g}" if report.baseline.seeds > 1 else "",
        )
        for each in report.baseline.ratios
    ]
    return format_table(rows, header=(f"against {report.baseline.source}", "ratio", "it has", "+-"))


def _render_tensors(report: ComplexityReport, width: int | None) -> str:
    rows = tensor_rows(report)
    hidden = ("model", "entropy", "entropy_2d", "bound bits", "entropy_2d corrected")
    shown = [
        column
        for column in dict.fromkeys(name for row in rows for name in row)
        if column not in hidden and not ("[" in column and report.baseline is not None)
    ]
    cells = [[_cell(column, row.get(column)) for column in shown] for row in rows]
    telling = [index for index, name in enumerate(shown) if " / " in name or name in ("n", "qubd")]
    return _fitting_table(cells, shown, width, telling)
