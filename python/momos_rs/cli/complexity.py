"""``momos complexity``."""

from __future__ import annotations

from pathlib import Path

import click

from momos_rs import defaults
from momos_rs.complexity import ComplexityReport, measure

from .console import (
    debug_option,
    format_count,
    format_percent,
    format_table,
    json_option,
    print_json,
    progress_bar,
)

__all__ = ["complexity"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-s",
    "--block-size",
    type=click.IntRange(1, 4096),
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
@click.option("--allow-pickle", is_flag=True, help="Let MODEL run its own code while it loads.")
@json_option
@debug_option
def complexity(
    model: Path, block_size: int, capacity: float, allow_pickle: bool, as_json: bool
) -> None:
    """Measure the algorithmic complexity of the weights of MODEL."""
    with progress_bar(enabled=not as_json) as progress:
        report = measure(
            model,
            block_size=block_size,
            capacity=capacity,
            allow_pickle=allow_pickle,
            progress=progress,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(render(report))


def render(report: ComplexityReport) -> str:
    """The report for people."""
    rows = [("weights (n)", format_count(report.n))]
    if report.sparsity is not None:
        rows.append(("sparsity", format_percent(report.sparsity)))
    if report.l2 is not None:
        rows.append(("L2 norm", f"{report.l2:.6g}"))
    if report.signs is not None:
        rows += [
            ("BDM of the signs, 1-D", f"{report.signs.bdm:,.1f} bits"),
            ("block entropy (of 12 bits)", f"{report.signs.entropy:.4f} bits"),
            ("corrected (Miller-Madow)", f"{report.signs.entropy_corrected:.4f} bits"),
            ("distinct blocks of 4,096", format_count(report.signs.distinct)),
        ]
    rows += [
        (f"{each.name} ratio of the {each.of}", f"{each.ratio:.4f}") for each in report.compression
    ]
    if report.bound is not None:
        rows.append(
            (
                f"mosaic bound (s={report.bound.block_size}, c={report.bound.capacity:g})",
                f"{format_count(report.bound.bits)} bits",
            )
        )
    parts = [report.source, format_table(rows)]
    if report.left_out:
        parts.append(f"  left out: {len(report.left_out)} tensors that are no parameters")
    return "\n\n".join(parts)
