"""``momos calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import debug_option, format_count, json_option, print_json, progress_bar, quiet_option
from .sizes import memory_option

__all__ = ["calibrate"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--text",
    "texts",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    metavar="FILE",
    help="Plain text like what the model will read (repeatable).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The calibration, for momos pack --calibration.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Most paragraphs to use; of more, evenly spread ones.",
)
@click.option(
    "--length",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Most tokens of a paragraph.",
)
@click.option("--device", help="Where to run the model, such as cuda; the CPU by default.")
@memory_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
@quiet_option
@debug_option
def calibrate(
    model: Path,
    texts: tuple[Path, ...],
    output: Path,
    samples: int,
    length: int,
    device: str | None,
    memory: int | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find out how MODEL, the folder of a transformers model, uses its weights.

    The model reads the text, and what its layers are fed with is summed. Nothing is downloaded. For
    other models, momos_rs.calibrate(model, batches) does the same from Python.
    """
    from momos_rs.calibration.text import calibrate_folder
    from momos_rs.runtime.atomic_file import check_target

    check_target(output, overwrite=force)
    with progress_bar(enabled=not (quiet or as_json)) as progress:
        found = calibrate_folder(
            model,
            texts,
            samples=samples,
            length=length,
            device=device,
            memory=memory,
            progress=progress,
        )
    found.save(output, overwrite=force)
    report: dict[str, Any] = {
        "model": found.model,
        "samples": found.samples,
        "layers": len(found.layers),
        "calibration": str(output),
        "bytes": output.stat().st_size,
        "notes": list(found.notes),
    }
    if as_json:
        print_json(report)
    elif not quiet:
        click.echo(
            f"{model} -> {output}\n\n  {format_count(found.samples)} samples, "
            f"{format_count(len(found.layers))} layers of {found.model}"
        )
        for note in found.notes:
            click.echo(f"  note: {note}")
