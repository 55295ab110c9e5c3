"""Options that are numbers of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.budget import parse_size

__all__ = ["Size", "memory_option", "threads_option"]

Function = TypeVar("Function", bound="Callable[..., Any]")


class Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of bytes, with or without a unit: see :func:`momos_rs.runtime.budget.parse_size`."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads the text of an option."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except InvalidArgumentError as error:
            self.fail(str(error), param, ctx)


def memory_option(function: Function) -> Function:
    """Adds ``--memory``, passed as ``memory``: bytes, or None where it is not given."""
    return click.option(
        "--memory",
        type=Size(),
        metavar="SIZE",
        help="Memory to use, such as 512M or 4G, beyond the program itself; half of what is free "
        "by default. Does not change the result.",
    )(function)


def threads_option(function: Function) -> Function:
    """Adds ``--threads``, passed as ``threads``: their number, or None where it is not given."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        help="Number of threads; all cores by default. Does not change the result.",
    )(function)
