"""Arguments of the library, as options of the command line."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource

from momos_rs.errors import Argument, InvalidArgumentError

__all__ = ["given", "in_options", "refusing_command_line"]

_OPTIONS = {"overwrite": "--force", "against": "--against"}
"""Options whose name is not that of their argument."""


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the current command that its user gave; defaults are left out."""
    source = click.get_current_context().get_parameter_source
    defaults = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {name: value for name, value in options.items() if source(name) not in defaults}


def in_options(error: InvalidArgumentError) -> str:
    """The message of an error, with arguments spelled as options."""
    return "".join(_option(part) if isinstance(part, Argument) else part for part in error.parts)


@contextlib.contextmanager
def refusing_command_line() -> Iterator[None]:
    """Makes arguments that the library refuses a command line that is not valid."""
    try:
        yield
    except InvalidArgumentError as error:
        raise click.UsageError(in_options(error), click.get_current_context()) from error


def _option(argument: Argument) -> str:
    name, value = argument.name, argument.value
    option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
    if value is None or value is True:
        return option
    if value is False:
        return option.replace("--", "--no-", 1)
    if isinstance(value, float):
        return f"{option} {value:g}"
    if isinstance(value, (list, tuple)):
        return " ".join(f"{option} {shlex.quote(str(each))}" for each in value)
    return f"{option} {shlex.quote(str(value))}"
