"""The search for the setting that reaches a target: a size, or an error.

Size and error are monotone in one setting (the step of a grid, the number of motifs) but for small
steps, so a bracketing search finds the setting; it always ends on the permitted side of the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["TOLERANCE", "Found", "MissedError", "search"]

TOLERANCE = 0.01
"""How far below its target a result may stay, as a share of the target."""

_MOST_TRIALS = 40

T = TypeVar("T")


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
