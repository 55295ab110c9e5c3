"""Targets: a size or an error to reach, and the search for the setting that reaches it.

Size and error are monotone in one setting (the step of a grid, the number of motifs) but for small
steps, so a bracketing search finds the setting; it always ends on the permitted side of the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from momos_rs.errors import InvalidArgumentError

__all__ = ["TOLERANCE", "Found", "MissedError", "Targets", "search"]

TOLERANCE = 0.01
"""How far below its target a result may stay, as a share of the target."""

_MOST_TRIALS = 40

T = TypeVar("T")


@dataclass(frozen=True)
class Targets:
    """What to reach. At most one of the sizes, or one or both of the errors, may be given.

    Attributes:
        target_ratio: Least ratio of the bytes of all tensors to those of the archive.
        target_size: Most bytes of the archive.
        bits: Most bits of the archive per weight.
        max_error: Largest relative error over all tensors of the mosaic.
        max_tensor_error: Largest relative error of each of them.
    """

    target_ratio: float | None = None
    target_size: float | None = None
    bits: float | None = None
    max_error: float | None = None
    max_tensor_error: float | None = None

    def __post_init__(self) -> None:
        sizes = {
            "target_ratio": self.target_ratio,
            "target_size": self.target_size,
            "bits": self.bits,
        }
        errors = {"max_error": self.max_error, "max_tensor_error": self.max_tensor_error}
        for name, value in (sizes | errors).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidArgumentError(f"{name} must be above 0, not {value}")
        for name, value in errors.items():
            if value is not None and value >= 1:
                raise InvalidArgumentError(
                    f"{name} must be below 1, the error of leaving every weight out, not {value}"
                )
        given = [name for name, value in sizes.items() if value is not None]
        if len(given) > 1 or (given and (self.max_error or self.max_tensor_error)):
            raise InvalidArgumentError(
                "give one of target_ratio, target_size and bits, or max_error and "
                "max_tensor_error: a size and an error cannot both be chosen"
            )

    def __bool__(self) -> bool:
        """Whether there is anything to reach."""
        return any(
            value is not None
            for value in (
                self.target_ratio,
                self.target_size,
                self.bits,
                self.max_error,
                self.max_tensor_error,
            )
        )

    def most_bytes(self, bytes_in: int, weights: int) -> float | None:
        """Most bytes of the archive; None if an error is to be reached.

        Args:
            bytes_in: Bytes of all tensors.
            weights: Elements of all tensors.
        """
        if self.target_size is not None:
            return self.target_size
        if self.target_ratio is not None:
            return bytes_in / self.target_ratio
        if self.bits is not None:
            return weights * self.bits / 8
        return None

    def describe(self) -> str:
        """What is to be reached, as on the command line."""
        given = {
            "--target-ratio": self.target_ratio,
            "--target-size": self.target_size,
            "--bits": self.bits,
            "--max-error": self.max_error,
            "--max-tensor-error": self.max_tensor_error,
        }
        return " ".join(f"{name} {value:g}" for name, value in given.items() if value is not None)


@dataclass(frozen=True)
class Found(Generic[T]):
    """One trial.

    Attributes:
        setting: The setting that was tried.
        value: What it led to.
        result: What was made with it.
    """

    setting: float
    value: float
    result: T


class MissedError(Exception):
    """No setting reaches the target.

    Attributes:
        nearest_below: The best trial on the permitted side, None if there is none.
        nearest_above: The best trial on the other side, None if there is none.
    """

    def __init__(self, below: Found[Any] | None, above: Found[Any] | None) -> None:
        super().__init__("no setting reaches the target")
        self.nearest_below = below
        self.nearest_above = above


def search(
    trial: Callable[[float], tuple[float, T]],
    target: float,
    *,
    start: float,
    low: float,
    high: float,
    rising: bool,
    whole: bool = False,
    tolerance: float = TOLERANCE,
) -> Found[T]:
    """The setting whose value is at most ``target``, and within ``tolerance`` of it.

    Args:
        trial: Makes something with a setting; returns a positive value and what was made.
        target: The value to reach.
        start: The first setting to try, above 0.
        low: Smallest setting.
        high: Largest setting.
        rising: Whether the value rises with the setting.
        whole: Whether settings are whole numbers.
        tolerance: As a share of the target.

    Raises:
        MissedError: If there is no such setting.
    """
    below: Found[T] | None = None
    above: Found[T] | None = None
    # The ends of the interval still searched; values need not be quite monotone within it.
    bracket: dict[bool, Found[T]] = {}
    stuck = 0
    aim = target * (1 - tolerance / 2)
    setting = _clamp(start, low, high, whole=whole)
    for _ in range(_MOST_TRIALS):
        value, result = trial(setting)
        found = Found(setting, value, result)
        permitted = value <= target
        if permitted and value >= target * (1 - tolerance):
            return found
        if permitted and (below is None or value > below.value):
            below = found
        if not permitted and (above is None or value < above.value):
            above = found
        bracket[permitted] = found
        stuck = max(stuck, 0) + 1 if permitted else min(stuck, 0) - 1
        if len(bracket) == 2:
            following = _between(bracket, aim, halve=abs(stuck) > 1, whole=whole)
        else:
            following = _onwards(found, aim, low, high, rising=rising, whole=whole)
        if following is None:
            break
        setting = following
    raise MissedError(below, above)


def _between(
    bracket: Mapping[bool, Found[T]], aim: float, *, halve: bool, whole: bool
) -> float | None:
    """The next setting to try between two; None if there is none left."""
    a, b = bracket[True], bracket[False]
    low, high = sorted((a.setting, b.setting))
    if high - low <= (1 if whole else 1e-6 * high):
        return None
    # Both are near straight lines in logarithms.
    share = 0.5
    if not halve and a.value > 0:
        share = math.log(aim / a.value) / math.log(b.value / a.value)
    between: float = a.setting * (b.setting / a.setting) ** min(max(share, 0.05), 0.95)
    if whole:
        return min(max(round(between), low + 1), high - 1)
    return between


def _onwards(
    last: Found[T], aim: float, low: float, high: float, *, rising: bool, whole: bool
) -> float | None:
    """The next setting to try while only one side is known; None if the end is reached."""
    wanted = aim / last.value if last.value > 0 else math.inf
    upwards = (wanted > 1) == rising
    factor = max(min(max(wanted, 1 / wanted), 16.0), 1.05) ** 1.25
    following = last.setting * factor if upwards else last.setting / factor
    if whole:
        following = (
            max(following, last.setting + 1) if upwards else min(following, last.setting - 1)
        )
    following = _clamp(following, low, high, whole=whole)
    return None if following == last.setting else following


def _clamp(setting: float, low: float, high: float, *, whole: bool) -> float:
    if whole:
        setting = round(setting)
    return min(max(setting, low), high)
