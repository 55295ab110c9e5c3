"""``momos pack`` by several processes: ``torchrun -m momos_rs.pack``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ..processes import BACKENDS, Backend, TeamError, joined
from .main import main as run_command
from .pack import pack, run

__all__ = ["main"]

NAME = "torchrun -m momos_rs.pack"


def _pack(backend: Backend, **options: Any) -> None:
    try:
        with joined(backend) as team:
            run(team, **options)
    except TeamError as error:
        if error.told:
            sys.exit(1)
        raise


command = click.Command(
    "pack",
    params=[
        *pack.params,
        click.Option(
            ["--backend"],
            type=click.Choice(BACKENDS),
            default=BACKENDS[0],
            show_default=True,
            help="What carries messages between processes; nccl needs GPUs.",
        ),
    ],
    callback=_pack,
    help=pack.help,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    Args:
        arguments: The arguments; those of the process by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if os.environ.get("RANK", "0") != "0":
        # What the first process says of the command line need not be said again.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                command.make_context(NAME, list(arguments))
            except click.ClickException as error:
                sys.exit(error.exit_code)
            except click.exceptions.Exit as end:
                sys.exit(end.exit_code)
    run_command(arguments, command, NAME)
