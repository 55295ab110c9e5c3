"""``momos unpack``."""

from __future__ import annotations

from pathlib import Path

import click

from momos_rs.packing.unpack_model import unpack_file

from .console import debug_option, echo, progress_bar, quiet_option
from .sizes import memory_option, threads_option

__all__ = ["unpack"]


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The checkpoint; its suffix (.pt, .pth, .bin, .ckpt, .safetensors) chooses the format. "
    "Beside ARCHIVE, in the format of the original, by default.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--max-bytes",
    type=click.IntRange(0),
    help="Most bytes of tensors to accept, for archives that expand by more than 1,024.",
)
@threads_option
@memory_option
@quiet_option
@debug_option
def unpack(
    archive: Path,
    output: Path | None,
    force: bool,
    max_bytes: int | None,
    threads: int | None,
    memory: int | None,
    quiet: bool,
) -> None:
    """Unpack ARCHIVE into a checkpoint with the names, shapes, types and ties of the original."""
    with progress_bar(enabled=not quiet) as progress:
        target = unpack_file(
            archive,
            output,
            overwrite=force,
            max_bytes=max_bytes,
            threads=threads,
            memory=memory,
            progress=progress,
        )
    if not quiet:
        echo(f"{archive} -> {target}")
