"""Options that take several values: repeated, separated by commas, or both."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

__all__ = ["values_option"]

Function = TypeVar("Function", bound="Callable[..., Any]")

_COMMA = re.compile(r",(?![^\[]*\])")
"""A comma outside the brackets of a pattern such as ``layer.[1,2]``."""


class _Values(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Values separated by commas, each of another type."""

    def __init__(self, each: click.ParamType[Any]) -> None:
        self.each = each
        self.name = each.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Reads ``2,4,8``."""
        parts = _COMMA.split(value) if isinstance(value, str) else [value]
        return tuple(self.each.convert(part, param, ctx) for part in parts)

    def get_metavar(
        self,
        param: click.Parameter,  # noqa: ARG002
        ctx: click.Context | None = None,  # noqa: ARG002
    ) -> str:
        """The choices, or the name of the type, and that there may be more."""
        if isinstance(self.each, click.Choice):
            return f"[{'|'.join(map(str, self.each.choices))}],..."
        return f"{self.name.upper()},..."


def values_option(
    *names: str,
    type: click.ParamType[Any] = click.STRING,  # noqa: A002 - as click names it
    default: Sequence[Any] = (),
    help: str,  # noqa: A002
    metavar: str | None = None,
) -> Callable[[Function], Function]:
    """Adds an option that takes several values, passed as a tuple.

    Args:
        *names: As of :func:`click.option`.
        type: Of each value.
        default: The values where none are given.
        help: What it does; that it takes several values is added.
        metavar: What a value is called.
    """

    def flatten(
        _ctx: click.Context, _param: click.Parameter, parts: Sequence[tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        return tuple(value for part in parts for value in part)

    return click.option(
        *names,
        type=_Values(type),
        multiple=True,
        default=default,
        show_default=",".join(map(str, default)) if default else False,
        callback=flatten,
        metavar=metavar and f"{metavar},...",
        help=f"{help} Repeatable, or with commas.",
    )
