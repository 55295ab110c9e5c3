"""``momos pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from momos_rs import defaults
from momos_rs.limits import MAX_BLOCK_SIZE
from momos_rs.packing.options import PackOptions
from momos_rs.packing.pack_model import pack_file
from momos_rs.packing.report import PackReport
from momos_rs.runtime.team import SOLO, Team

from .arguments import given, refusing_command_line
from .console import (
    RELATIVE_ERROR,
    debug_option,
    echo,
    format_bytes,
    format_count,
    format_percent,
    format_table,
    json_option,
    print_json,
    printable,
    progress_bar,
    quiet_option,
)
from .lists import values_option
from .sizes import memory_option, threads_option
from .targets import target_options

__all__ = ["pack", "run"]

WORST_TENSORS = 5


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The archive; beside MODEL with the suffix .momos by default.",
)
@click.option(
    "-s",
    "--block-size",
    type=click.IntRange(1, MAX_BLOCK_SIZE),
    default=defaults.BLOCK_SIZE,
    show_default=True,
    help="Values per block.",
)
@click.option(
    "-c",
    "--capacity",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Motifs per block.  [default: {defaults.CAPACITY}]",
)
@click.option(
    "-k", "--motifs", type=click.IntRange(1), help="Number of motifs, instead of a capacity."
)
@click.option(
    "--method",
    type=click.Choice([*defaults.FREE_METHODS, *defaults.STRUCTURED_METHODS]),
    default=defaults.METHOD,
    show_default=True,
    help="How motifs are chosen: drawn from the blocks, refined from there, or the points of a "
    "grid, each weight by itself or along a trellis.",
)
@click.option(
    "--init",
    type=click.Choice(defaults.INITS),
    default=defaults.INIT,
    show_default=True,
    help="Where k-means begins: with motifs drawn in rounds, the likelier the farther from those "
    "before, or with motifs drawn uniformly.",
)
@click.option(
    "--iterations",
    type=click.IntRange(0),
    default=defaults.ITERATIONS,
    show_default=True,
    help="Maximum number of iterations of k-means; with --mini-batch, the number of batches.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    default=defaults.TOLERANCE,
    show_default=True,
    help="End k-means after an iteration that lowers the distortion by a smaller share.",
)
@click.option(
    "--training-blocks",
    type=click.IntRange(0),
    default=defaults.TRAINING_BLOCKS,
    show_default=True,
    help="Refine motifs on at most this many blocks per motif, where there are more than twice as "
    "many and two million; 0 for all blocks.",
)
@click.option(
    "--mini-batch",
    type=click.IntRange(0),
    default=0,
    help="Let every iteration of k-means look at this many blocks only, drawn at random.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=defaults.SEED,
    show_default=True,
    help="Seed of the draw of motifs.",
)
@click.option(
    "--force-zero/--no-force-zero",
    default=defaults.FORCE_ZERO,
    show_default=True,
    help="Make the zero block a motif.",
)
@click.option(
    "--effort",
    type=click.Choice(defaults.EFFORTS),
    default=defaults.EFFORT,
    show_default=True,
    help="How much time coding may take; all decode to the same tensors.",
)
@click.option(
    "--motif-dtype",
    type=click.Choice(defaults.MOTIF_DTYPES),
    default=defaults.MOTIF_DTYPE,
    show_default=True,
    help="Precision of motifs that are not exact; fixed adds at most 2% to the distortion.",
)
@click.option(
    "--lossless",
    is_flag=True,
    help="Keep every bit: use a mosaic only if the weights are one already.",
)
@values_option(
    "--include",
    metavar="GLOB",
    help="Put the tensors of these names into the mosaic, instead of those of two or more "
    "dimensions.",
)
@values_option("--exclude", metavar="GLOB", help="Keep the tensors of these names exact.")
@click.option(
    "--all-parameters",
    is_flag=True,
    help="Put all parameters into the mosaic, as in the paper; costs accuracy in norms and biases.",
)
@threads_option
@memory_option
@target_options
@click.option("--allow-pickle", is_flag=True, help="Let MODEL run its own code while it loads.")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
@json_option
@quiet_option
@debug_option
def pack(**options: Any) -> None:
    """Pack MODEL, a checkpoint file or folder, as a mosaic of motifs.

    Floating tensors of two or more dimensions are cut into blocks of consecutive values, and
    every block is replaced by one of the motifs; everything else is stored exactly.
    """
    run(SOLO, **options)


def run(
    team: Team,
    *,
    model: Path,
    output: Path | None,
    force: bool,
    allow_pickle: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """What the command does.

    Args:
        team: The processes that pack together; the first one reports.
        model: As the arguments of the command, like those that follow.
        output: The archive.
        force: Whether to replace an existing archive.
        allow_pickle: Whether the model may run code of its own.
        as_json: Whether to print JSON.
        quiet: Whether to print nothing.
        **options: See :class:`~momos_rs.packing.options.PackKeywords`; those that are not given on
            the command line do not count.
    """
    keywords = given(options)
    with refusing_command_line():
        PackOptions.of(keywords)
    with progress_bar(enabled=team.is_first and not (quiet or as_json)) as progress:
        report = pack_file(
            model,
            output,
            overwrite=force,
            allow_pickle=allow_pickle,
            team=team,
            progress=progress,
            **keywords,
        )
    if not team.is_first:
        return
    if as_json:
        print_json(report.to_dict())
    elif not quiet:
        echo(render(report))


def render(report: PackReport) -> str:
    """The report for people."""
    summary = [
        ("weights (n)", format_count(report.weights)),
        ("in the mosaic", format_count(report.mosaic_weights)),
        ("blocks (m) of size (s)", f"{format_count(report.blocks)} of {report.block_size}"),
        ("motifs (k), used", f"{format_count(report.motifs)}, {format_count(report.motifs_used)}"),
        ("capacity (c)", f"{report.capacity:.4g}"),
        ("method", report.method),
        ("motifs stored as", _precision(report)),
        ("effort", report.effort),
        ("distortion", f"{report.distortion:.6g}"),
        ("relative error", f"{report.relative_error:.4g}"),
        ("bytes of tensors", format_bytes(report.tensor_bytes)),
        ("bytes of archive", format_bytes(report.archive_bytes)),
        ("ratio", f"{report.ratio:.4g}"),
        ("bits per weight", f"{report.bits_per_weight:.4g}"),
        (
            "paper's bound (mosaic)",
            f"{format_bytes(report.bound_bits / 8)}, taken {format_percent(report.bound_share)}",
        ),
        ("peak memory", format_bytes(report.peak_memory) if report.peak_memory else "unknown"),
    ]
    sections = [
        (name, format_bytes(nbytes), format_percent(nbytes / report.archive_bytes))
        for name, nbytes in report.sections.items()
    ]
    seconds = [(phase, f"{value:.2f} s") for phase, value in report.seconds.items()]
    worst = sorted(report.tensors, key=lambda each: -each.relative_error)[:WORST_TENSORS]
    parts = [
        f"{report.source} -> {report.archive}",
        format_table(summary),
        format_table(sections, header=("section", "bytes", "share")),
        format_table(seconds, header=("phase", "time")),
    ]
    if report.relative_error > 0:
        rows = [
            (each.names[0], format_count(each.elements), f"{each.relative_error:.4g}")
            for each in worst
            if each.relative_error > 0
        ]
        parts.append(format_table(rows, header=("worst tensors", "weights", "relative error")))
        parts.append(f"  {RELATIVE_ERROR}")
    notes = list(report.notes)
    if report.lossless:
        notes.append("lossless: every tensor unpacks bit for bit as it was")
    if report.left_out:
        notes.append(f"left out: {', '.join(report.left_out)}")
    parts += [f"  note: {printable(note)}" for note in notes]
    return "\n\n".join(parts[: len(parts) - len(notes)]) + (
        "\n\n" + "\n".join(parts[len(parts) - len(notes) :]) if notes else ""
    )


def _precision(report: PackReport) -> str:
    if report.motif_step is not None:
        return f"multiples of {report.motif_step:.4g}"
    return report.motif_dtype or "none"
