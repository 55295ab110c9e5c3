"""What can go wrong: one exception per kind, all under :class:`MomosError`.

Trouble with files themselves (missing, no permission, disk full) stays the standard
:class:`OSError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "Argument",
    "CorruptionError",
    "InsufficientDataError",
    "InvalidArgumentError",
    "MomosError",
    "UnsafeFileError",
    "UnsupportedVersionError",
]


@dataclass(frozen=True)
class Argument:
    """An argument of a function, as a part of the message of :class:`InvalidArgumentError`.

    Python callers read ``memory='4G'``; the command line spells the same ``--memory 4G``.

    Attributes:
        name: Its name.
        value: Its value; None to speak of the argument whatever its value.
    """

    name: str
    value: Any = None

    def __str__(self) -> str:
        """The argument as Python code spells it."""
        return self.name if self.value is None else f"{self.name}={self.value!r}"


class MomosError(Exception):
    """Base of every error momos raises on purpose; its text is one line for people."""


class CorruptionError(MomosError):
    """The bytes contradict themselves or the format."""


class InsufficientDataError(CorruptionError):
    """The bytes end before what they announce (a truncated file)."""


class UnsupportedVersionError(MomosError):
    """The file needs a newer version of momos, or a feature this build does not have."""


class InvalidArgumentError(MomosError, ValueError):
    """The caller asked for something that has no meaning.

    Args:
        *parts: The message: text, and the arguments it speaks of as :class:`Argument`.
    """

    def __init__(self, *parts: str | Argument) -> None:
        super().__init__(*parts)
        self.parts = parts

    def __str__(self) -> str:
        """The message, arguments spelled as in Python."""
        return "".join(map(str, self.parts))


class UnsafeFileError(MomosError):
    """The file would have to run code of its own to be loaded."""
