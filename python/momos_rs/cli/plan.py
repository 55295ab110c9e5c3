"""``momos plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from momos_rs import checkpoint, defaults
from momos_rs.limits import MAX_BLOCK_SIZE
from momos_rs.packing.plan import BLOCK_SIZES, CAPACITIES, PLAN_METHODS, STEPS, Plan
from momos_rs.packing.plan import plan as make_plan
from momos_rs.plots.plan import plot_plan
from momos_rs.plots.style import check_format, save
from momos_rs.runtime.atomic_file import check_target, replacing

from .arguments import given
from .console import (
    RELATIVE_ERROR,
    debug_option,
    format_bytes,
    format_table,
    json_option,
    print_json,
    progress_bar,
)
from .lists import values_option
from .sizes import memory_option, threads_option

__all__ = ["plan"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@values_option(
    "--method",
    "--methods",
    "methods",
    type=click.Choice([*defaults.FREE_METHODS, *defaults.STRUCTURED_METHODS]),
    default=PLAN_METHODS,
    help="Methods to try.",
)
@values_option(
    "-s",
    "--block-size",
    "--block-sizes",
    "block_sizes",
    type=click.IntRange(1, MAX_BLOCK_SIZE),
    default=BLOCK_SIZES,
    help="Block sizes to try, for free motifs.",
)
@values_option(
    "-c",
    "--capacity",
    "--capacities",
    "capacities",
    type=click.FloatRange(0, 1, min_open=True),
    default=CAPACITIES,
    help="Capacities to try, for free motifs.",
)
@values_option(
    "--step",
    "--steps",
    "steps",
    type=click.FloatRange(0, min_open=True),
    default=STEPS,
    help="Spacings of the grid to try, for structured motifs.",
)
@click.option(
    "--iterations",
    type=click.IntRange(0),
    default=defaults.ITERATIONS,
    show_default=True,
    help="Maximum number of iterations of k-means.",
)
@click.option(
    "--step-exponent",
    type=float,
    default=defaults.STEP_EXPONENT,
    show_default=True,
    help="The step of a tensor is proportional to its root mean square to this power.",
)
@click.option(
    "--references/--no-references",
    default=True,
    show_default=True,
    help="Compare with zstd, xz and lossless packing.",
)
@values_option("--include", metavar="GLOB", help="As for momos pack.")
@values_option("--exclude", metavar="GLOB", help="As for momos pack.")
@click.option("--all-parameters", is_flag=True, help="As for momos pack.")
@threads_option
@memory_option
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw ratio against error into this file (.png, .svg, .pdf).",
)
@click.option("--force", is_flag=True, help="Replace an existing picture.")
@click.option("--allow-pickle", is_flag=True, help="Let MODEL run its own code while it loads.")
@json_option
@debug_option
def plan(
    model: Path,
    plot: Path | None,
    force: bool,
    allow_pickle: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Pack MODEL in many ways, without writing any, and compare what comes of it."""
    if plot is not None:
        check_target(plot, overwrite=force)
        check_format(plot)
    with progress_bar(enabled=not as_json) as progress:
        result = make_plan(
            checkpoint.read(model, allow_pickle=allow_pickle), progress=progress, **given(options)
        )
    try:
        if plot is not None:
            with replacing(plot, overwrite=force) as file:
                save(plot_plan(result), file, plot.suffix[1:].lower())
    finally:  # what took so long to find is shown, whatever comes of the picture
        if as_json:
            print_json(result.to_dict())
        else:
            click.echo(render(result))


def render(result: Plan) -> str:
    """The plan for people."""
    rows = [
        (
            point.options.removeprefix("--method "),
            format_bytes(point.archive_bytes),
            f"{point.ratio:.4g}",
            f"{point.bits_per_weight:.3g}",
            f"{point.relative_error:.3g}",
            "-" if point.bound_ratio is None else f"{point.bound_ratio:.4g}",
            "*" if point.best else "",
        )
        for point in result.points
    ]
    header = ("method", "bytes", "ratio", "bits/weight", "relative error", "at the bound", "best")
    references = [
        (each.name + (" (sampled)" if each.sampled else ""), f"{each.ratio:.4g}")
        for each in result.references
    ]
    parts = [
        f"{result.source}: {result.weights:,} weights, {format_bytes(result.tensor_bytes)}",
        format_table(rows, header=header),
        f"  {RELATIVE_ERROR}",
    ]
    if references:
        parts.append(format_table(references, header=("without any error", "ratio")))
    parts.append("\n".join(f"  {line}" for line in result.advice))
    return "\n\n".join(parts)
