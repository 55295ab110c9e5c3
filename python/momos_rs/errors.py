"""What can go wrong: one exception per kind, all under :class:`MomosError`.

Trouble with files themselves (missing, no permission, disk full) stays the standard
:class:`OSError`.
"""

__all__ = [
    "CorruptionError",
    "InsufficientDataError",
    "InvalidArgumentError",
    "MomosError",
    "UnsafeFileError",
    "UnsupportedVersionError",
]


class MomosError(Exception):
    """Base of every error momos raises on purpose; its text is one line for people."""


class CorruptionError(MomosError):
    """The bytes contradict themselves or the format."""


class InsufficientDataError(CorruptionError):
    """The bytes end before what they announce (a truncated file)."""


class UnsupportedVersionError(MomosError):
    """The file needs a newer version of momos, or a feature this build does not have."""


class InvalidArgumentError(MomosError, ValueError):
    """The caller asked for something that has no meaning."""


class UnsafeFileError(MomosError):
    """The file would have to run code of its own to be loaded."""
