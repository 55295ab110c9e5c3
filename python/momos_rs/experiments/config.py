"""What a training run is: one frozen record of every choice."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast

from momos_rs.errors import InvalidArgumentError

__all__ = ["LR_SCHEDULES", "OPTIMIZERS", "TRAINING_METHODS", "RunConfig", "TrainingMethod"]

TrainingMethod = Literal[
    "baseline", "qat", "momos", "momos+qat", "mosaic-aware", "mosaic-aware+qat"
]
TRAINING_METHODS: tuple[TrainingMethod, ...] = (
    "baseline", "qat", "momos", "momos+qat", "mosaic-aware", "mosaic-aware+qat",
)  # fmt: skip
OPTIMIZERS = ("adam", "adamw", "sgd")
LR_SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class RunConfig:
    """A recipe with its settings.

    Attributes:
        model: A name of :mod:`.models`, or any timm model name when timm is installed.
        data: A name of :mod:`.data`.
        method: ``baseline`` trains plainly, ``qat`` with fake-quantised weights, ``momos`` with
            projections, ``mosaic-aware`` through the mosaic; ``+qat`` quantises as well.
        s: Block size of the mosaic.
        k: Number of motifs; give it or ``capacity``.
        capacity: Motifs per block.
        selection: How the motifs of ``momos`` are chosen, see :class:`momos_rs.MoMos`.
        force_zero: Whether the first motif is zero.
        q: Bits of a weight for ``qat``.
        include: Glob patterns of the parameters that become mosaic; all trainable ones if empty.
        exclude: Glob patterns of parameters that neither become mosaic nor are quantised.
        epochs: Epochs of training with projections.
        tune_epochs: Epochs of motif fine-tuning after the last projection: only the motifs are
            trained.
        every: Epochs from one projection to the next; with ``mosaic-aware``, steps from one search
            to the next.
        warmup: Epochs before the first projection, or before the mosaic; None for a quarter of
            ``epochs`` with ``mosaic-aware`` and none otherwise.
        batch_size: Samples per step.
        optimizer: ``adam``, ``adamw`` or ``sgd`` (momentum 0.9).
        learning_rate: At the start.
        lr_schedule: ``cosine``, to zero over ``epochs``, or ``constant``.
        tune_learning_rate: For motif fine-tuning, likewise over ``tune_epochs``.
        weight_decay: Of the optimizer.
        patience: Training ends after that many epochs without a better validation accuracy; None
            for no early end. Motif fine-tuning follows all the same.
        checkpoint_every: Epochs from one kept checkpoint to the next; None keeps none.
        seed: Seed of initialisation, batches, augmentation and motifs.
        measures: Complexity measures to log at every epoch's end.
        device: A torch device.
        threads: Threads of torch; None leaves them as they are.
    """

    model: str = "mlp"
    data: str = "digits"
    method: TrainingMethod = "momos"
    s: int = 4
    k: int | None = None
    capacity: float | None = None
    selection: str = "random"
    force_zero: bool = True
    q: int = 8
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    epochs: int = 30
    tune_epochs: int = 0
    every: int = 1
    warmup: int | None = None
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    lr_schedule: str = "cosine"
    tune_learning_rate: float = 3e-3
    weight_decay: float = 0.0
    patience: int | None = None
    checkpoint_every: int | None = None
    seed: int = 0
    measures: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.method not in TRAINING_METHODS:
            raise InvalidArgumentError(
                f"unknown method {self.method!r}; it is one of {', '.join(TRAINING_METHODS)}"
            )
        for name, known in (("optimizer", OPTIMIZERS), ("lr_schedule", LR_SCHEDULES)):
            if getattr(self, name) not in known:
                raise InvalidArgumentError(
                    f"unknown {name} {getattr(self, name)!r}; it is one of {', '.join(known)}"
                )
        if self.k is not None and self.capacity is not None:
            raise InvalidArgumentError("give k or capacity, not both")
        if self.k is None and self.capacity is None:
            object.__setattr__(self, "capacity", 0.05)
        for name, least in (
            ("epochs", 1), ("tune_epochs", 0), ("every", 1), ("warmup", 0), ("batch_size", 1),
            ("patience", 1), ("checkpoint_every", 1),
        ):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise InvalidArgumentError(
                    f"{name} must be at least {least}, not {getattr(self, name)}"
                )
        if self.tune_epochs and not self.projects:
            raise InvalidArgumentError(
                f"motif fine-tuning needs motifs, which method {self.method!r} has none of"
            )

    @property
    def projects(self) -> bool:
        """Whether the run ends as a mosaic."""
        return self.method.startswith("momos") or self.aware

    @property
    def aware(self) -> bool:
        """Whether the run trains through the mosaic."""
        return self.method.startswith("mosaic-aware")

    @property
    def warmup_epochs(self) -> int:
        """Epochs before the first projection, or before the mosaic."""
        if self.warmup is not None:
            return self.warmup
        return self.epochs // 4 if self.aware else 0

    @property
    def quantizes(self) -> bool:
        """Whether the run trains with fake-quantised weights."""
        return self.method.endswith("qat")

    @property
    def total_epochs(self) -> int:
        """Epochs in all."""
        return self.epochs + self.tune_epochs

    def extends(self, other: RunConfig) -> bool:
        """Whether this is the same run with more epochs of the phase that the other ends in."""
        if other.tune_epochs:
            return self.tune_epochs > other.tune_epochs and self == replace(
                other, tune_epochs=self.tune_epochs
            )
        longer = replace(other, epochs=self.epochs, tune_epochs=self.tune_epochs)
        return (
            self.total_epochs > other.total_epochs
            and self.epochs >= other.epochs
            and (self == longer)
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> RunConfig:
        """The record that :meth:`to_dict` came from.

        Raises:
            InvalidArgumentError: If a setting is unknown.
        """
        known = {each.name for each in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise InvalidArgumentError(f"unknown settings of a run: {', '.join(unknown)}")
        plain = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
        }
        return cls(**cast(Any, plain))
