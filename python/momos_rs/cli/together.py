"""``momos pack`` by several processes: ``torchrun -m momos_rs pack MODEL``.

torchrun starts the same command line once per process and says so in the environment. The arguments
are those of ``momos pack`` and ``--backend``; the archive is the same to the byte.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from momos_rs.runtime.torch_team import BACKENDS, Backend, TeamError, joined

from .main import main as run_command
from .pack import pack, run

__all__ = ["main"]

NAME = "torchrun -m momos_rs"


def _pack(backend: Backend, **options: Any) -> None:
    try:
        with joined(backend) as team:
            run(team, **options)
    except TeamError as error:
        if error.told:
            sys.exit(1)
        raise


pack_together = click.Command(
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
)

group = click.Group(
    "momos",
    commands=[pack_together],
    help="Commands that several processes can run together.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    Args:
        arguments: The arguments; those of the process by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get("RANK", "0") != "0":
        # The first process reports what is wrong with the command line; the others just end.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                with group.make_context(NAME, list(arguments)) as context:
                    _, command, rest = group.resolve_command(context, arguments)
                    assert command is not None
                    command.make_context("pack", rest, parent=context)
            except click.ClickException as error:
                sys.exit(error.exit_code)
            except click.exceptions.Exit as end:
                sys.exit(end.exit_code)
    run_command(arguments, group, NAME)
