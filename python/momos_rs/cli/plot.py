"""``momos plot``."""

from __future__ import annotations

from pathlib import Path

import click

from momos_rs.experiments.plots import FIGURES, draw, find_runs

from .console import debug_option, quiet_option
from .lists import values_option

__all__ = ["plot"]


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the pictures; `plots` within the first RUN by default.",
)
@values_option(
    "--figure",
    "--figures",
    "figures",
    type=click.Choice(list(FIGURES)),
    help="Draw this figure; by default all the runs have something for.",
)
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "svg", "pdf"]),
    default="png",
    show_default=True,
    help="The pictures' format.",
)
@click.option("--layer", metavar="NAME", help="The layer whose mosaic is shown.")
@click.option("--force", is_flag=True, help="Replace existing pictures.")
@quiet_option
@debug_option
def plot(
    runs: tuple[Path, ...],
    output: Path | None,
    figures: tuple[str, ...],
    suffix: str,
    layer: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Draw the paper's figures from the folders of training runs or sweeps.

    mosaic: a small layer before and after training, and its motifs (figure 1). distortion: of
    every projection over training (figures 3 and 5). accuracy: against capacity, with the line of
    the run without a mosaic (figure 4). usage: how often each motif is used. complexity: over
    training, relative to initialisation.
    """
    written = draw(
        find_runs(runs),
        runs[0] / "plots" if output is None else output,
        figures=figures,
        suffix=suffix,
        layer=layer,
        overwrite=force,
    )
    if not quiet:
        for path in written:
            click.echo(str(path))
