"""Options of structured motifs and of targets."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import defaults

__all__ = ["dial_options"]

Function = TypeVar("Function", bound="Callable[..., Any]")

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class _Size(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of bytes, with or without a unit."""

    name = "bytes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reads ``1500``, ``1.5 MB`` or ``3MiB``."""
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"\s*([0-9.]+)\s*([kmg]?i?)b?\s*", str(value).lower())
        try:
            assert match is not None
            return float(match[1]) * _UNITS[match[2]]
        except (AssertionError, KeyError, ValueError):
            self.fail(f"{value!r} is not a size like 1500, 1.5MB or 3MiB", param, ctx)


_POSITIVE = click.FloatRange(0, min_open=True)
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)

_OPTIONS = (
    click.option(
        "--step",
        type=_POSITIVE,
        default=defaults.STEP,
        show_default=True,
        help="Spacing of the grid as a multiple of the weights' root mean square (methods grid "
        "and trellis).",
    ),
    click.option(
        "--step-exponent",
        type=float,
        default=defaults.STEP_EXPONENT,
        show_default=True,
        help="The step of a tensor is proportional to its root mean square to this power; 0 for "
        "the least error in all.",
    ),
    click.option(
        "--sensitivity",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="How much errors matter, per tensor (JSON) or per weight (a checkpoint with the same "
        "names, such as a Fisher diagonal).",
    ),
    click.option("--target-ratio", type=_POSITIVE, help="Least ratio of bytes in to bytes out."),
    click.option("--target-size", type=_Size(), help="Most bytes of the archive: 1500, 1.5MB."),
    click.option("--bits", type=_POSITIVE, help="Most bits of the archive per weight."),
    click.option("--max-error", type=_SHARE, help="Largest relative error in all."),
    click.option("--max-tensor-error", type=_SHARE, help="Largest relative error of a tensor."),
)


def dial_options(function: Function) -> Function:
    """Adds the options; a sensitivity is read before the command runs."""

    @functools.wraps(function)
    def command(*arguments: Any, sensitivity: Path | None, **options: Any) -> Any:
        if sensitivity is not None:
            from ..sensitivity import read_sensitivity

            options["sensitivity"] = read_sensitivity(sensitivity)
        return function(*arguments, **options)

    decorated: Any = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: Function = decorated
    return result
