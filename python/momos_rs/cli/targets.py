"""Options of structured motifs and of targets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from momos_rs import defaults

from .sizes import Size

__all__ = ["target_options"]

Function = TypeVar("Function", bound="Callable[..., Any]")

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
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="How MODEL uses its weights, from momos calibrate (methods grid and trellis).",
    ),
    click.option(
        "--target-ratio",
        type=_POSITIVE,
        help="Least ratio of the bytes of all tensors to those of the archive.",
    ),
    click.option("--target-size", type=Size(), help="Most bytes of the archive: 1500, 1.5MB."),
    click.option("--bits", type=_POSITIVE, help="Most bits of the archive per weight."),
    click.option(
        "--max-error",
        type=_SHARE,
        help="Largest relative error in all, ||w - w'||^2 / ||w||^2 (of squared norms).",
    ),
    click.option(
        "--max-tensor-error", type=_SHARE, help="Largest relative error of a tensor, likewise."
    ),
)


def target_options(function: Function) -> Function:
    """Adds the options; a sensitivity and a calibration are read before the command runs."""

    @functools.wraps(function)
    def command(
        *arguments: Any, sensitivity: Path | None, calibration: Path | None, **options: Any
    ) -> Any:
        if sensitivity is not None:
            from momos_rs.mosaic.sensitivity import read_sensitivity

            options["sensitivity"] = read_sensitivity(sensitivity)
        if calibration is not None:
            from momos_rs.mosaic.calibration import Calibration

            options["calibration"] = Calibration.load(calibration)
        return function(*arguments, **options)

    decorated: Any = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: Function = decorated
    return result
