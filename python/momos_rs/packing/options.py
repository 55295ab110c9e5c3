"""How to pack: what ``momos pack`` and the functions of the package have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from momos_rs import checkpoint, defaults
from momos_rs.checkpoint import Checkpoint
from momos_rs.errors import Argument, InvalidArgumentError
from momos_rs.mosaic.methods import Exact, KMeans, Method, make_method
from momos_rs.runtime.resources import Resources
from momos_rs.runtime.team import SOLO, Team

from .selection import Selection

if TYPE_CHECKING:
    import torch

    from momos_rs.mosaic.calibration import Calibration
    from momos_rs.mosaic.methods import Sensitivity

__all__ = [
    "ARCHIVE_SUFFIX",
    "MethodKeywords",
    "Model",
    "PackKeywords",
    "PackOptions",
    "PathLike",
    "ResourceKeywords",
    "SelectionKeywords",
    "as_checkpoint",
    "beside",
    "resources_of",
]

PathLike: TypeAlias = "str | os.PathLike[str]"
Model: TypeAlias = "torch.nn.Module | Mapping[str, Any] | Checkpoint"

ARCHIVE_SUFFIX = ".momos"


class ResourceKeywords(TypedDict, total=False):
    """What a computation may use, as keywords; the result does not depend on it.

    ``threads`` is a number of threads, all cores by default; ``memory`` is a number of bytes to use
    beyond what the program takes itself, or a size like ``"4G"``; half of what is free by default.
    """

    threads: int | None
    memory: int | str | None


class SelectionKeywords(TypedDict, total=False):
    """The attributes of :class:`~momos_rs.packing.selection.Selection` as keywords."""

    include: Sequence[str]
    exclude: Sequence[str]
    all_parameters: bool


class MethodKeywords(TypedDict, total=False):
    """The settings of all methods as keywords, of which each takes its own.

    See :mod:`momos_rs.mosaic.methods` for their meaning, and
    :class:`~momos_rs.mosaic.targets.Targets` for the last five.
    """

    block_size: int
    capacity: float | None
    motifs: int | None
    seed: int
    force_zero: bool
    motif_dtype: defaults.MotifDtype
    init: defaults.Init
    iterations: int
    tolerance: float
    training_blocks: int
    mini_batch: int
    step: float | None
    step_exponent: float | None
    sensitivity: Mapping[str, Sensitivity] | None
    calibration: Calibration | None
    target_ratio: float | None
    target_size: float | None
    bits: float | None
    max_error: float | None
    max_tensor_error: float | None


class PackKeywords(MethodKeywords, SelectionKeywords, ResourceKeywords, total=False):
    """The keywords of :func:`~momos_rs.pack` and of the functions beside it.

    ``method`` is ``"kmeans"``, or ``"random"`` as in the paper; ``"grid"`` or ``"trellis"`` for
    structured motifs; or an object of :mod:`momos_rs.mosaic.methods`, which holds its settings.
    ``lossless`` uses a mosaic only where it is exact, so that every tensor unpacks bit for bit.
    ``effort`` is how much time coding may take, ``"fast"``, ``"default"`` or ``"best"``.
    """

    method: defaults.MethodName | Method
    lossless: bool
    effort: defaults.Effort


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """How to pack.

    Attributes:
        method: How the mosaic is made, with its settings.
        selection: Which tensors become part of it.
        effort: How much time coding may take: ``"fast"``, ``"default"`` or ``"best"``. All decode
            to the same tensors.
    """

    method: Method = field(default_factory=KMeans)
    selection: Selection = field(default_factory=Selection)
    effort: defaults.Effort = defaults.EFFORT

    def __post_init__(self) -> None:
        if self.effort not in defaults.EFFORTS:
            raise InvalidArgumentError(
                Argument("effort"),
                f" must be one of {', '.join(defaults.EFFORTS)}, not {self.effort!r}",
            )

    @property
    def lossless(self) -> bool:
        """Whether every tensor must unpack bit for bit as it was."""
        return isinstance(self.method, Exact)

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> PackOptions:
        """The options that :class:`PackKeywords` stand for, those of resources left aside.

        Raises:
            InvalidArgumentError: If there is no such keyword, the method does not take it, or it is
                out of its range.
        """
        unknown = sorted(keywords.keys() - _KNOWN)
        if unknown:
            raise InvalidArgumentError(
                f"unknown option {', '.join(unknown)}; there are {', '.join(sorted(_KNOWN))}"
            )
        settings = {name: keywords[name] for name in keywords if name in _OF_METHODS}
        method = keywords.get("method")
        if keywords.get("lossless"):
            if method not in (None, "exact"):
                raise InvalidArgumentError(
                    "give either ",
                    Argument("lossless", True),
                    " or ",
                    Argument("method", method),
                    ", not both: lossless packing chooses no motifs",
                )
            method = "exact"
        return cls(
            method=make_method(defaults.METHOD if method is None else method, settings),
            selection=Selection(
                tuple(keywords.get("include", ())),
                tuple(keywords.get("exclude", ())),
                keywords.get("all_parameters", False),
            ),
            effort=keywords.get("effort", defaults.EFFORT),
        )


_OF_METHODS = MethodKeywords.__annotations__.keys()
_KNOWN = (
    _OF_METHODS
    | SelectionKeywords.__annotations__.keys()
    | ResourceKeywords.__annotations__.keys()
    | {"method", "lossless", "effort"}
)


def resources_of(keywords: Mapping[str, Any], team: Team = SOLO) -> Resources:
    """What :class:`ResourceKeywords` allow a process of a team to use.

    Raises:
        InvalidArgumentError: If that is no size, or no number of threads.
    """
    return Resources(keywords.get("memory"), keywords.get("threads"), team=team)


def as_checkpoint(model: Model) -> Checkpoint:
    """The model as a checkpoint."""
    return model if isinstance(model, Checkpoint) else checkpoint.from_state_dict(model)


def beside(source: Path, suffix: str) -> Path:
    """The path beside a source, with its name and another suffix."""
    resolved = source if source.name else source.resolve()
    name = resolved.name if resolved.is_dir() else resolved.name.removesuffix(resolved.suffix)
    return resolved.with_name(name.removesuffix(".index") + suffix)
