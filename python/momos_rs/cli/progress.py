"""Bars that show how far long work is, how fast it goes and when it will be done."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

__all__ = ["UNITS", "ProgressBar", "progress_bar"]

BYTES = "B"
UNITS: Mapping[str, str] = {
    "assign": "blocks",
    "encode": BYTES,
    "gather": "blocks",
    "grid": "weights",
    "measure": BYTES,
    "plan": "trials",
    "refine motifs": "blocks",
    "select": BYTES,
    "training": "epochs",
    "unpack": BYTES,
    "verify": BYTES,
}
"""What each phase counts; others are shown without a unit."""

_SECONDS_BETWEEN = 0.1
"""Maximum seconds between two updates of a bar."""

_WINDOW = 15.0
"""Seconds of the past that the rate goes by."""

_LABEL = 14
_SHORTEST_BAR = 8
_LONGEST_BAR = 36

Clock = Callable[[], float]


@contextlib.contextmanager
def progress_bar(
    *, enabled: bool = True, units: Mapping[str, str] = UNITS
) -> Iterator[Callable[[str, int, int], None] | None]:
    """A callback that shows phases of work as bars on standard error, if that is a terminal.

    Args:
        enabled: Whether to show anything.
        units: What each phase counts; ``"B"`` are bytes.
    """
    if not (enabled and sys.stderr.isatty()):
        yield None
        return
    bar = ProgressBar(sys.stderr, units)
    try:
        yield bar.show
    finally:
        bar.close()


class ProgressBar:
    """One line per phase on a terminal: its name, a bar, the share, the rate and the time left."""

    def __init__(
        self, stream: TextIO, units: Mapping[str, str] = UNITS, *, clock: Clock = time.monotonic
    ) -> None:
        """A bar that shows nothing yet.

        Args:
            stream: The terminal.
            units: What each phase counts.
            clock: Tells seconds.
        """
        self._stream = stream
        self._units = units
        self._clock = clock
        self._phase: str | None = None
        self._began = 0.0
        self._shown = 0.0
        self._latest = (0, 1)
        self._samples: deque[tuple[float, int]] = deque()
        self._length = 0

    def show(self, phase: str, done: int, total: int) -> None:
        """Shows how far a phase is; another phase than before begins a line."""
        now = self._clock()
        if phase != self._phase:
            self.close()
            self._phase = phase
            self._began = now
            self._shown = now - _SECONDS_BETWEEN
            self._samples = deque([(now, done)])
        self._latest = (min(done, total), max(total, 1))
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        if now - self._shown >= _SECONDS_BETWEEN or done >= total:
            self._shown = now
            self._draw(f"{self._rate()}{self._time_left()}")

    def close(self) -> None:
        """Ends the line of the phase, if there is one."""
        if self._phase is None:
            return
        done, total = self._latest
        if done == total:
            seconds = self._clock() - self._began
            rate = _format_rate(done / seconds, self._unit) if seconds > 0 else ""
            self._draw(f"{rate}  in {_format_seconds(seconds)}")
        self._stream.write("\n")
        self._stream.flush()
        self._phase = None
        self._length = 0

    @property
    def _unit(self) -> str:
        return self._units.get(self._phase or "", "")

    def _per_second(self) -> float:
        (start, before), (now, done) = self._samples[0], self._samples[-1]
        return max(done - before, 0) / (now - start) if now > start else 0.0

    def _rate(self) -> str:
        rate = self._per_second()
        return _format_rate(rate, self._unit) if rate > 0 else ""

    def _time_left(self) -> str:
        done, total = self._latest
        rate = self._per_second()
        return f"  {_format_seconds((total - done) / rate)} left" if rate > 0 else ""

    def _draw(self, after: str) -> None:
        done, total = self._latest
        label = f"{self._phase:<{_LABEL}}"
        share = f"{100 * done // total:3d}%"
        room = _width(self._stream) - 1 - len(label) - len(share) - len(after) - 6
        bar = ""
        if room >= _SHORTEST_BAR:
            length = min(room, _LONGEST_BAR)
            filled = length * done // total
            bar = f" [{'#' * filled}{'-' * (length - filled)}]"
        line = f"{label}{bar} {share}  {after}"[: _width(self._stream) - 1].rstrip()
        # Spaces over what is left of a longer line, which every terminal understands.
        self._stream.write(f"\r{line}{' ' * (self._length - len(line))}")
        self._stream.flush()
        self._length = len(line)


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _format_rate(rate: float, unit: str) -> str:
    """``12.3 MB/s``, ``4.56 M blocks/s``, ``7.89 tensors/s``."""
    for power, prefix in ((4, "T"), (3, "G"), (2, "M"), (1, "k"), (0, "")):
        if rate >= 1000**power or power == 0:
            value = f"{rate / 1000**power:.3g}"
            if unit == BYTES:
                return f"{value} {prefix}B/s"
            return " ".join(part for part in (value, prefix, unit) if part) + "/s"
    raise AssertionError


def _format_seconds(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``1:02:03``; days beyond what a clock shows."""
    whole = round(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} days"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
