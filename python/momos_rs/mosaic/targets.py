"""What an archive has to reach: a size, or an error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from momos_rs.errors import Argument, InvalidArgumentError

__all__ = ["Targets"]

_SIZES = ("target_ratio", "target_size", "bits")
_ERRORS = ("max_error", "max_tensor_error")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What to reach. At most one of the sizes, or one or both of the errors, may be given.

    A relative error is ``||w - w'||^2 / ||w||^2``: squared norms, not norms.

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
        for argument in self.arguments:
            value = argument.value
            if not (math.isfinite(value) and value > 0):
                raise InvalidArgumentError(
                    Argument(argument.name), f" must be above 0, not {value}"
                )
            if argument.name in _ERRORS and value >= 1:
                raise InvalidArgumentError(
                    Argument(argument.name),
                    f" must be below 1, the error of leaving every weight out, not {value}",
                )
        sizes = [each for each in self.arguments if each.name in _SIZES]
        if sizes and len(self.arguments) > 1:
            one, other = self.arguments[:2]
            raise InvalidArgumentError("give either ", one, " or ", other, ", not both")

    @property
    def arguments(self) -> list[Argument]:
        """What is given."""
        return [
            Argument(name, getattr(self, name))
            for name in (*_SIZES, *_ERRORS)
            if getattr(self, name) is not None
        ]

    def __bool__(self) -> bool:
        """Whether there is anything to reach."""
        return bool(self.arguments)

    def most_bytes(self, tensor_bytes: int, weights: int) -> float | None:
        """Most bytes of the archive; None if an error is to be reached.

        Args:
            tensor_bytes: Bytes of all tensors.
            weights: Elements of all tensors.
        """
        if self.target_size is not None:
            return self.target_size
        if self.target_ratio is not None:
            return tensor_bytes / self.target_ratio
        if self.bits is not None:
            return weights * self.bits / 8
        return None

    @property
    def mention(self) -> tuple[str | Argument, ...]:
        """What is given, as a part of a message."""
        parts: list[str | Argument] = []
        for argument in self.arguments:
            parts += [" and ", argument] if parts else [argument]
        return tuple(parts)

    def describe(self) -> str:
        """What is to be reached, in words."""
        words = {
            "target_ratio": "a ratio of at least {:g}",
            "target_size": "at most {:,.0f} bytes",
            "bits": "at most {:g} bits per weight",
            "max_error": "a relative error of at most {:g}",
            "max_tensor_error": "a relative error of at most {:g} in every tensor",
        }
        return " and ".join(words[each.name].format(each.value) for each in self.arguments)
