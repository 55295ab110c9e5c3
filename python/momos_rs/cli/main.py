"""The command group, and how every command ends.

Exit status 0: done. 1: failed, with one line on standard error. 2: not a valid command line.
130 and 143: stopped by Ctrl-C or SIGTERM; nothing half-written is left.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from momos_rs.errors import InvalidArgumentError, MomosError

from .arguments import in_options
from .console import debugging, printable

__all__ = ["group", "main"]

# Name, module and help of each command. Modules are imported when their command runs, so that
# `momos --help` and light commands do not wait for torch.
COMMANDS: dict[str, tuple[str, str]] = {
    "pack": ("pack", "Pack a model as a mosaic of motifs."),
    "unpack": ("unpack", "Unpack an archive into a checkpoint."),
    "info": ("info", "Show what is in an archive, without decoding it."),
    "plan": ("plan", "Compare block sizes, capacities and methods on a model."),
    "calibrate": ("calibrate", "Find out how a model uses its weights, for momos pack."),
    "verify": ("verify", "Check an archive, optionally against the model."),
    "complexity": ("complexity", "Measure the algorithmic complexity of a model's weights."),
    "train": ("train", "Train a model as a mosaic of motifs, by the paper's recipes."),
    "plot": ("plot", "Draw the paper's figures from training runs."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f".{module}", __package__), module)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands in the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="momos_rs", prog_name="momos")
def group() -> None:
    """Measure, simplify and pack neural networks as mosaics of motifs."""


class _TerminatedError(BaseException):
    """SIGTERM arrived."""


@contextlib.contextmanager
def _handling_signals() -> Iterator[None]:
    """Lets SIGTERM end commands as Ctrl-C does, and lets nothing interrupt their clearing up."""
    handlers: dict[int, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else _TerminatedError

    for number in map(int, (signal.SIGINT, signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell
            handlers[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def main(
    arguments: Sequence[str] | None = None,
    command: click.Command | None = None,
    name: str = "momos",
) -> NoReturn:
    """Runs the command line and exits.

    Args:
        arguments: The arguments; those of the process by default.
        command: What to run; the group of all commands by default.
        name: What it is called.
    """
    with _handling_signals():
        _run(arguments, command or group, name)


def _run(arguments: Sequence[str] | None, command: click.Command, name: str) -> NoReturn:
    try:
        result = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        path = "momos" if error.ctx is None else error.ctx.command_path
        message = _one_line(error.format_message()).removesuffix(".")
        click.echo(f"momos: error: {message}; see {path} --help", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"momos: error: {_one_line(error.format_message())}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("momos: stopped", err=True)
        sys.exit(130)
    except _TerminatedError:
        click.echo("momos: terminated", err=True)
        sys.exit(143)
    except BrokenPipeError:
        # The reader of our output has gone; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (MomosError, OSError) as error:
        if debugging():
            raise
        click.echo(f"momos: error: {_message(error)}", err=True)
        sys.exit(1)
    except MemoryError:
        if debugging():
            raise
        click.echo("momos: error: out of memory", err=True)
        sys.exit(1)


def _message(error: Exception) -> str:
    text = in_options(error) if isinstance(error, InvalidArgumentError) else str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return _one_line(text) or type(error).__name__


def _one_line(text: str) -> str:
    # Names come from files: nothing in them may reach the terminal as more than text.
    return printable(" ".join(text.split()))
