"""How to make a mosaic: the settings of every method, each in a value of its own.

A method is handed down whole from :func:`momos_rs.pack` to where it is used. It checks itself when
it is made, so no setting is ever ignored and no impossible mixture reaches the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.errors import Argument, InvalidArgumentError

from .calibration import Calibration
from .mosaic import motif_count
from .targets import Targets

Sensitivity: TypeAlias = "float | npt.NDArray[np.float32]"
"""How much the squared error of a tensor's elements counts: one number, or one per element."""

__all__ = [
    "LEAST_TRAINING_BLOCKS",
    "METHODS_BY_NAME",
    "Exact",
    "FreeMotifs",
    "Grid",
    "KMeans",
    "Method",
    "RandomMotifs",
    "Sensitivity",
    "StructuredMotifs",
    "Trellis",
    "make_method",
    "settings_of",
]

LEAST_TRAINING_BLOCKS = 1 << 20
"""Samples for refining motifs are no smaller than this: searching that many takes a second."""


def _check_block_size(block_size: int) -> None:
    _core.block_count(0, block_size)


def _give_one(arguments: list[Argument], targets: Targets, what: str) -> None:
    """Raises InvalidArgumentError if more than one argument, or one and a target, is given."""
    given = [each for each in arguments if each.value is not None] + targets.arguments[:1]
    if len(given) > 1:
        raise InvalidArgumentError(
            "give either ", given[0], " or ", given[1], f", not both: each chooses {what}"
        )


@dataclass(frozen=True, kw_only=True)
class FreeMotifs:
    """What :class:`KMeans` and :class:`RandomMotifs` have in common: a table of k free motifs.

    Attributes:
        block_size: Values per block, s, from 1 to 4096.
        capacity: Motifs per block, c, above 0 and at most 1; the number of motifs is then
            ``max(1, min(floor(c * m), m))``. :data:`momos_rs.defaults.CAPACITY` unless a number
            of motifs or a target is given.
        motifs: Number of motifs, k, instead of a capacity; at most m are used.
        targets: A size or an error to reach, instead of either.
        seed: Seed of the draw of motifs, 0 to 2^64 - 1.
        force_zero: Whether the zero block is a motif.
        motif_dtype: The precision of motifs that are not exact: ``"float32"``, ``"float16"``,
            ``"bfloat16"``, ``"fixed"`` (whole multiples of a step that adds at most 2% to the
            distortion) or ``"auto"``.
    """

    name: ClassVar[defaults.MethodName]

    block_size: int = defaults.BLOCK_SIZE
    capacity: float | None = None
    motifs: int | None = None
    targets: Targets = field(default_factory=Targets)
    seed: int = defaults.SEED
    force_zero: bool = defaults.FORCE_ZERO
    motif_dtype: defaults.MotifDtype = defaults.MOTIF_DTYPE

    def __post_init__(self) -> None:
        _check_block_size(self.block_size)
        _give_one(
            [Argument("capacity", self.capacity), Argument("motifs", self.motifs)],
            self.targets,
            "the number of motifs",
        )
        if self.capacity is not None:
            motif_count(0, self.capacity)
        if self.motifs is not None and self.motifs < 1:
            raise InvalidArgumentError(
                Argument("motifs"), f" must be at least 1, not {self.motifs}"
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidArgumentError(
                Argument("seed"), f" must be at least 0 and below 2^64, not {self.seed}"
            )
        if self.motif_dtype not in defaults.MOTIF_DTYPES:
            raise InvalidArgumentError(
                Argument("motif_dtype"),
                f" must be one of {', '.join(defaults.MOTIF_DTYPES)}, not {self.motif_dtype!r}",
            )

    def motif_count(self, blocks: int) -> int:
        """Number of motifs, k, for that many blocks, m; at the default capacity for a target."""
        if self.motifs is not None:
            return min(self.motifs, blocks)
        return motif_count(blocks, defaults.CAPACITY if self.capacity is None else self.capacity)

    def record(self, blocks: int, motifs: int) -> dict[str, Any]:
        """The settings as an archive states them.

        Args:
            blocks: Number of blocks of all tensors, m.
            motifs: Number of motifs, k.
        """
        del blocks, motifs
        capacity = defaults.CAPACITY if self.capacity is None else self.capacity
        return {
            "capacity": capacity if self.motifs is None else None,
            "method": self.name,
            "iterations": 0,
            "seed": self.seed,
            "force_zero": self.force_zero,
        }


@dataclass(frozen=True, kw_only=True)
class RandomMotifs(FreeMotifs):
    """Motifs drawn uniformly without replacement from the blocks, as in the paper."""

    name: ClassVar[defaults.MethodName] = "random"


@dataclass(frozen=True, kw_only=True)
class KMeans(FreeMotifs):
    """Motifs drawn from the blocks and refined by Lloyd's algorithm (1982).

    Attributes:
        init: Where to begin: ``"spread"`` draws motifs in rounds, the likelier the farther from
            those before, and moves those of little use between iterations (see
            :mod:`momos_rs.mosaic.spread` and :mod:`momos_rs.mosaic.relocation`); ``"random"``
            draws them uniformly, as :class:`RandomMotifs` does.
        iterations: Maximum number of iterations; with ``mini_batch``, the number of batches.
        tolerance: Stop after an iteration that lowers the distortion by a smaller share; 0 to stop
            only where no motif moves.
        training_blocks: Motifs are refined on at most this many blocks per motif (and on
            :data:`LEAST_TRAINING_BLOCKS` in any case), drawn at random, where there are more than
            twice as many; 0 for all blocks.
        mini_batch: If not 0, every iteration looks at this many blocks only, drawn at random, and
            moves each motif to the mean of all blocks it was given so far (Sculley, 2010).
        sensitivity: How much errors count, by name of a tensor: a number, or one per element; see
            :mod:`momos_rs.mosaic.sensitivity`.
    """

    name: ClassVar[defaults.MethodName] = "kmeans"

    init: defaults.Init = defaults.INIT
    iterations: int = defaults.ITERATIONS
    tolerance: float = defaults.TOLERANCE
    training_blocks: int = defaults.TRAINING_BLOCKS
    mini_batch: int = 0
    sensitivity: Mapping[str, Sensitivity] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in defaults.INITS:
            raise InvalidArgumentError(
                Argument("init"), f" must be one of {', '.join(defaults.INITS)}, not {self.init!r}"
            )
        for name in ("iterations", "training_blocks", "mini_batch"):
            if getattr(self, name) < 0:
                raise InvalidArgumentError(
                    Argument(name), f" must be at least 0, not {getattr(self, name)}"
                )
        if not 0 <= self.tolerance < 1:
            raise InvalidArgumentError(
                Argument("tolerance"), f" must be at least 0 and below 1, not {self.tolerance}"
            )
        if self.mini_batch and self.sensitivity is not None:
            raise InvalidArgumentError(
                "give either ",
                Argument("sensitivity"),
                " or ",
                Argument("mini_batch", self.mini_batch),
                ", not both: a sensitivity looks at all blocks",
            )

    def sample_width(self, blocks: int, motifs: int) -> int:
        """Of how many blocks one is looked at in an iteration."""
        if self.mini_batch:
            return max(-(-blocks // self.mini_batch), 1)
        return self.training_width(blocks, motifs)

    def training_width(self, blocks: int, motifs: int) -> int:
        """The same without a mini-batch, which motifs are not drawn from."""
        wanted = max(self.training_blocks * motifs, LEAST_TRAINING_BLOCKS)
        if self.training_blocks == 0 or blocks <= 2 * wanted:
            return 1
        return -(-blocks // wanted)

    def record(self, blocks: int, motifs: int) -> dict[str, Any]:
        """As :meth:`FreeMotifs.record`; of what is usually the same, only what is not."""
        settings = super().record(blocks, motifs) | {"iterations": self.iterations}
        if self.init != defaults.INIT:
            settings["init"] = self.init
        if self.tolerance != defaults.TOLERANCE:
            settings["tolerance"] = self.tolerance
        if self.mini_batch:
            settings["mini_batch"] = self.mini_batch
        elif self.sample_width(blocks, motifs) > 1:
            settings["training_blocks"] = self.training_blocks
        return settings


@dataclass(frozen=True, kw_only=True)
class StructuredMotifs:
    """What :class:`Grid` and :class:`Trellis` have in common: the points of a grid as motifs.

    See :mod:`momos_rs.mosaic.grid`.

    Attributes:
        block_size: Values per block, s, by which motifs are counted.
        step: Spacing of the grid as a multiple of the root mean square of all weights.
            :data:`momos_rs.defaults.STEP` unless a target is given.
        targets: A size or an error to reach, instead of a step.
        step_exponent: The step of a tensor is proportional to its root mean square to this power;
            :data:`momos_rs.defaults.STEP_EXPONENT` unless a sensitivity is given.
        sensitivity: How much errors count, by name of a tensor: a number, or one per element; the
            steps of the tensors then follow from it.
        calibration: How the weights are used, see :func:`momos_rs.calibrate`: errors go where the
            model's outputs feel them least, and the steps of tensors, rows and columns follow.
        calibration: How the weights are used, see :mod:`momos_rs.calibration`: errors are put where
            the model's outputs feel them least, and the steps of tensors, rows and columns follow.
    """

    name: ClassVar[defaults.MethodName]
    states: ClassVar[int]

    block_size: int = defaults.BLOCK_SIZE
    step: float | None = None
    targets: Targets = field(default_factory=Targets)
    step_exponent: float | None = None
    sensitivity: Mapping[str, Sensitivity] | None = field(default=None, compare=False)
    calibration: Calibration | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_block_size(self.block_size)
        _give_one([Argument("step", self.step)], self.targets, "the step")
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise InvalidArgumentError(Argument("step"), f" must be above 0, not {self.step}")
        self._check_one_choice_of_steps()

    def _check_one_choice_of_steps(self) -> None:
        if self.calibration is not None and self.sensitivity is not None:
            raise InvalidArgumentError(
                "give either ",
                Argument("calibration"),
                " or ",
                Argument("sensitivity"),
                ", not both: each says how much errors count",
            )
        if self.step_exponent is None:
            return
        if not math.isfinite(self.step_exponent):
            raise InvalidArgumentError(
                Argument("step_exponent"), f" must be finite, not {self.step_exponent}"
            )
        for name in ("sensitivity", "calibration"):
            if getattr(self, name) is not None:
                raise InvalidArgumentError(
                    "give either ",
                    Argument(name),
                    " or ",
                    Argument("step_exponent", self.step_exponent),
                    ", not both: each chooses the steps of the tensors",
                )

    @property
    def spacing(self) -> float:
        """The step; where a target chooses it, the one to try first."""
        return defaults.STEP if self.step is None else self.step

    @property
    def exponent(self) -> float:
        """The exponent of the step where there is no sensitivity."""
        return defaults.STEP_EXPONENT if self.step_exponent is None else self.step_exponent

    def record(self, step: float | None) -> dict[str, Any]:
        """The settings as an archive states them.

        Args:
            step: The spacing of the grid; None if every tensor has one of its own.
        """
        record: dict[str, Any] = {
            "method": self.name,
            "step": step,
            "step_exponent": self.exponent,
        }
        if self.sensitivity is not None:
            record["step_exponent"] = None
        if self.calibration is not None:
            record |= {"step_exponent": None, "calibration_samples": self.calibration.samples}
        return record


@dataclass(frozen=True, kw_only=True)
class Grid(StructuredMotifs):
    """Every value by itself on a grid: entropy-constrained scalar quantisation."""

    name: ClassVar[defaults.MethodName] = "grid"
    states: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True)
class Trellis(StructuredMotifs):
    """Values on a grid by the cheapest path through a trellis (Marcellin and Fischer, 1990)."""

    name: ClassVar[defaults.MethodName] = "trellis"
    states: ClassVar[int] = 64


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The mosaic that the weights already are, if they are one; every bit is kept.

    Attributes:
        block_size: Values per block, s, to prefer.
    """

    name: ClassVar[defaults.MethodName] = "exact"
    targets: ClassVar[Targets] = Targets()

    block_size: int = defaults.BLOCK_SIZE

    def __post_init__(self) -> None:
        _check_block_size(self.block_size)


Method: TypeAlias = "KMeans | RandomMotifs | Grid | Trellis | Exact"

METHODS_BY_NAME: Mapping[str, type[Method]] = {
    each.name: each for each in (KMeans, RandomMotifs, Grid, Trellis, Exact)
}

_TARGETS = tuple(each.name for each in fields(Targets))


def make_method(
    method: str | Method = defaults.METHOD, settings: Mapping[str, Any] | None = None
) -> Method:
    """A method from its name and flat settings.

    Args:
        method: A name, or a method that is ready; then there must be no settings.
        settings: Attributes of the method, and those of :class:`~momos_rs.mosaic.targets.Targets`;
            None stands for the default.

    Raises:
        InvalidArgumentError: If the method does not take a setting, or it is out of its range.
    """
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    if isinstance(method, (KMeans, RandomMotifs, Grid, Trellis, Exact)):
        for name, value in given.items():
            raise InvalidArgumentError(
                _mention(name, value),
                f" cannot be added to {type(method).__name__}(...); make it a part of it",
            )
        return method
    kind = METHODS_BY_NAME.get(method) if isinstance(method, str) else None
    if kind is None:
        raise InvalidArgumentError(
            Argument("method"), f" must be one of {', '.join(METHODS_BY_NAME)}, not {method!r}"
        )
    for name, value in given.items():
        if name not in settings_of(kind):
            raise _not_taken(name, value, kind)
    own = {name: value for name, value in given.items() if name not in _TARGETS}
    targets = {name: value for name, value in given.items() if name in _TARGETS}
    make: Callable[..., Method] = kind
    return make(**own, targets=Targets(**targets)) if targets else make(**own)


def settings_of(kind: type[Method]) -> frozenset[str]:
    """The names of the flat settings that a method takes."""
    names = {each.name for each in fields(kind)}
    return frozenset(names - {"targets"} | ({*_TARGETS} if "targets" in names else set()))


def _mention(name: str, value: Any) -> Argument:
    """A setting with its value, if that is short."""
    return Argument(name, value if isinstance(value, (str, int, float)) else None)


def _not_taken(name: str, value: Any, kind: type[Method]) -> InvalidArgumentError:
    takers = [each for each, other in METHODS_BY_NAME.items() if name in settings_of(other)]
    if kind is Exact:
        return InvalidArgumentError(
            Argument("lossless", True),
            " keeps every bit and does not take ",
            _mention(name, value),
        )
    return InvalidArgumentError(
        Argument("method", kind.name),
        " does not take ",
        _mention(name, value),
        f"; {' and '.join(takers)} {'do' if len(takers) > 1 else 'does'}",
    )
