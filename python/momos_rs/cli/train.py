"""``momos train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from momos_rs import defaults
from momos_rs.complexity import MEASURES
from momos_rs.experiments import RECIPES, RunConfig, recipe
from momos_rs.experiments.config import LR_SCHEDULES, OPTIMIZERS, TRAINING_METHODS
from momos_rs.limits import MAX_BLOCK_SIZE
from momos_rs.projection import METHODS

from .console import (
    debug_option,
    format_bytes,
    format_count,
    format_table,
    json_option,
    print_json,
    progress_bar,
    quiet_option,
)
from .lists import values_option

__all__ = ["train"]


_DEFAULT = RunConfig()


@click.command()
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(list(RECIPES)),
    help="Settings to begin from; other options given go before them.",
)
@click.option(
    "--model",
    default=_DEFAULT.model,
    show_default=True,
    help="mlp, convnet, resnet20, or the name of a timm model.",
)
@click.option(
    "--data",
    default=_DEFAULT.data,
    show_default=True,
    help="digits, mnist1d, mnist5k, mnist, fashion_mnist or cifar10.",
)
@click.option(
    "--data-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where torchvision's data sets lie.",
)
@click.option("--download", is_flag=True, help="Download the data into its folder if need be.")
@click.option(
    "--method",
    type=click.Choice(TRAINING_METHODS),
    default=_DEFAULT.method,
    show_default=True,
    help="How to train.",
)
@values_option(
    "-s",
    "--block-size",
    "s",
    type=click.IntRange(1, MAX_BLOCK_SIZE),
    default=(_DEFAULT.s,),
    help="Values per block; several with --sweep.",
)
@values_option(
    "-c",
    "--capacity",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Motifs per block, {defaults.CAPACITY} by default; several with --sweep.",
)
@click.option(
    "-k", "--motifs", "k", type=click.IntRange(1), help="Number of motifs, instead of a capacity."
)
@click.option(
    "--selection",
    type=click.Choice(METHODS),
    default=_DEFAULT.selection,
    show_default=True,
    help="How the motifs of momos are chosen.",
)
@click.option(
    "--force-zero/--no-force-zero",
    default=_DEFAULT.force_zero,
    show_default=True,
    help="Whether the first motif is zero.",
)
@values_option(
    "--include", metavar="GLOB", help="Make only the parameters of these names a mosaic."
)
@values_option(
    "--exclude",
    metavar="GLOB",
    help="Leave the parameters of these names alone, also in quantisation.",
)
@click.option(
    "--bits",
    "q",
    type=click.IntRange(2, 31),
    default=_DEFAULT.q,
    show_default=True,
    help="Bits of a weight for the qat methods.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=_DEFAULT.epochs,
    show_default=True,
    help="Epochs of training.",
)
@click.option(
    "--tune-epochs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Epochs of motif fine-tuning after them.",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Epochs from one projection to the next; for mosaic-aware, steps from one search to the "
    "next.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0),
    help="Epochs before projections or the mosaic begin.  [default: a quarter of the epochs for "
    "mosaic-aware, else 0]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=_DEFAULT.batch_size,
    show_default=True,
    help="Samples per step.",
)
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default=_DEFAULT.optimizer,
    show_default=True,
    help="The optimizer.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULT.learning_rate,
    show_default=True,
    help="Learning rate at the start.",
)
@click.option(
    "--lr-schedule",
    type=click.Choice(LR_SCHEDULES),
    default=_DEFAULT.lr_schedule,
    show_default=True,
    help="The learning rate falls to zero along a cosine, or stays.",
)
@click.option(
    "--tune-learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULT.tune_learning_rate,
    show_default=True,
    help="The same for motif fine-tuning.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Weight decay of the optimizer.",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="End training after so many epochs without a better validation accuracy.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    help="Keep the weights of every so many epochs.",
)
@values_option(
    "--seed",
    type=click.INT,
    default=(_DEFAULT.seed,),
    help="Seed of everything random; several make a run each, and a table of their mean.",
)
@values_option(
    "--measure",
    "--measures",
    "measures",
    type=click.Choice([each for each in MEASURES if each != "bound"]),
    help="Log this complexity measure every epoch.",
)
@click.option("--device", default="cpu", show_default=True, help="A torch device.")
@click.option("--threads", type=click.IntRange(1), help="Number of threads.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder of the run or the sweep.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in the folder, if there is one; a finished one with more --epochs.",
)
@click.option("--force", is_flag=True, help="Replace the run in the folder.")
@click.option(
    "--sweep",
    "sweeping",
    is_flag=True,
    help="Train every combination of the block sizes, capacities and seeds, and a "
    "baseline for each seed; finished runs are not repeated.",
)
@json_option
@quiet_option
@debug_option
def train(
    recipe_name: str | None,
    data_folder: Path | None,
    download: bool,
    s: tuple[int, ...],
    capacity: tuple[float, ...],
    seed: tuple[int, ...],
    output: Path,
    resume: bool,
    force: bool,
    sweeping: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a model as a mosaic of motifs.

    --method momos projects the weights after every epoch as in the paper, mosaic-aware trains
    through the mosaic; --recipe paper-sgd and paper-adamw are the paper's settings.

    The folder gets the log (one JSON object a line), checkpoints of the first, best and last
    weights, what resuming needs, and the packed mosaic.
    """  # fmt: skip
    if not sweeping and (len(s) > 1 or len(capacity) > 1):
        raise click.UsageError("several block sizes or capacities need --sweep")
    if capacity and settings["k"] is not None:
        raise click.UsageError("give either --capacity or --motifs, not both")
    if recipe_name is not None:
        context = click.get_current_context()
        default = click.core.ParameterSource.DEFAULT
        settings.update(
            (name, value)
            for name, value in recipe(recipe_name).items()
            if context.get_parameter_source(name) is default
        )
    config = RunConfig(s=s[0], capacity=capacity[0] if capacity else None, seed=seed[0], **settings)
    silent = quiet or as_json
    if sweeping or len(seed) > 1:
        if sweeping and settings["k"] is not None:
            raise click.UsageError("--sweep is over capacities; leave out --motifs")
        _sweep(
            config, output, s, capacity or (defaults.CAPACITY,), seed, data_folder, download,
            baseline=sweeping, silent=silent, as_json=as_json,
        )  # fmt: skip
        return
    from momos_rs.experiments.trainer import train as run

    with progress_bar(enabled=not silent) as bar:

        def show(epoch: int, epochs: int, entry: dict[str, Any]) -> None:
            if bar is not None:
                bar("training", epoch, epochs)
            elif not silent:
                click.echo(_epoch_line(epoch, epochs, entry))

        result = run(
            config, folder=output, data_folder=data_folder, download=download,
            resume=resume, overwrite=force, progress=show,
        )  # fmt: skip
    summary = {name: each for name, each in result.summary.items() if name != "motif_counts"}
    if as_json:
        print_json({"folder": str(output), **summary})
    elif not quiet:
        click.echo(_render(summary, output))


def _sweep(
    config: RunConfig,
    output: Path,
    sizes: tuple[int, ...],
    capacities: tuple[float, ...],
    seeds: tuple[int, ...],
    data_folder: Path | None,
    download: bool,
    *,
    baseline: bool,
    silent: bool,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from momos_rs.experiments.sweep import run_name, sweep

    with progress_bar(enabled=not silent) as bar:

        def begin(run: RunConfig, number: int, runs: int) -> None:
            if bar is not None:
                bar("training", number - 1, runs)
            elif not silent:
                click.echo(f"  run {number:>3}/{runs}  {run_name(run)}")

        rows = sweep(
            config, output, sizes=sizes, capacities=capacities, seeds=seeds,
            baseline=baseline, data_folder=data_folder, download=download, begin=begin,
        )  # fmt: skip
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    header = ("method", "s", "c", "k", "accuracy", "+-", "distortion", "archive", "ratio")
    table = [
        (
            row.method,
            _or_dash(row.s, "d"),
            _or_dash(row.capacity, "g"),
            _or_dash(row.k, ",d"),
            f"{100 * row.accuracy:.2f}%",
            f"{100 * row.accuracy_deviation:.2f}",
            _or_dash(row.distortion, ".4g"),
            "-" if row.archive_bytes is None else format_bytes(row.archive_bytes),
            "-" if row.ratio is None else f"{row.ratio:.1f}x",
        )
        for row in rows
    ]
    if not silent:
        click.echo(format_table(table, header=header))


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _epoch_line(epoch: int, epochs: int, entry: dict[str, Any]) -> str:
    parts = [f"  epoch {epoch:>3}/{epochs}", f"train loss {entry['train_loss']:.4f}"]
    if "val_accuracy_before" in entry:
        parts.append(f"val accuracy {entry['val_accuracy_before']:.4f} before projection")
        parts.append(f"{entry['val_accuracy']:.4f} after")
    else:
        parts.append(f"val accuracy {entry['val_accuracy']:.4f}")
    if "distortion" in entry:
        parts.append(f"distortion {entry['distortion']:.4g}")
    return "  ".join(parts)


def _render(summary: dict[str, Any], folder: Path) -> str:
    rows = [
        ("weights (n)", format_count(summary["parameters"])),
        ("test accuracy", f"{100 * summary['test_accuracy']:.2f}%"),
    ]
    if summary["best"] is not None:
        best = summary["best"]
        rows.append(
            ("best validation accuracy",
             f"{100 * best['val_accuracy']:.2f}% in epoch {best['epoch']}")
        )  # fmt: skip
    if "k" in summary:
        rows += [
            ("blocks (m) of size (s)", f"{format_count(summary['m'])} of {summary['s']}"),
            ("motifs (k), used",
             f"{format_count(summary['k'])}, {format_count(summary['motifs_used'])}"),
            ("distortion", f"{summary['distortion']:.6g}"),
        ]  # fmt: skip
    if "archive_bytes" in summary:
        ratio = summary["float32_bytes"] / summary["archive_bytes"]
        rows.append(("archive", f"{format_bytes(summary['archive_bytes'])}, {ratio:.1f}x smaller"))
    rows.append(("time", f"{summary['seconds']:.1f} s"))
    return f"{format_table(rows)}\n  in {folder}"
