"""What a training run is: one frozen record of every choice."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from momos_rs.errors import InvalidArgumentError

__all__ = ["TRAINING_METHODS", "RunConfig", "TrainingMethod"]

TrainingMethod = Literal["baseline", "qat", "momos", "momos+qat"]
TRAINING_METHODS: tuple[TrainingMethod, ...] = ("baseline", "qat", "momos", "momos+qat")


@dataclass(frozen=True)
class RunConfig:
    """A recipe with its settings.

    Attributes:
        model: A name of :mod:`.models`, or any timm model name when timm is installed.
        data: A name of :mod:`.data`.
        method: ``baseline`` trains plainly, ``qat`` with fake-quantised weights, ``momos`` with
            projections, ``momos+qat`` with both.
        s: Block size of the mosaic.
        k: Number of motifs; give it or ``capacity``.
        capacity: Motifs per block.
        selection: How motifs are chosen, see :class:`momos_rs.MoMos`.
        q: Bits of a weight for ``qat``.
        include: Glob patterns of the parameters that become mosaic; all trainable ones if empty.
        exclude: Glob patterns of parameters that do not.
        epochs: Epochs of training with projections.
        tune_epochs: Epochs of motif fine-tuning after the last projection: only the motifs are
            trained.
        every: Epochs from one projection to the next.
        warmup: Epochs before the first projection.
        batch_size: Samples per step.
        optimizer: ``adam`` or ``sgd`` (momentum 0.9).
        learning_rate: At the start; it follows a cosine to zero over ``epochs``.
        tune_learning_rate: For motif fine-tuning, likewise over ``tune_epochs``.
        weight_decay: Of the optimizer.
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
    q: int = 8
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    epochs: int = 30
    tune_epochs: int = 0
    every: int = 1
    warmup: int = 0
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    tune_learning_rate: float = 3e-3
    weight_decay: float = 0.0
    seed: int = 0
    measures: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.method not in TRAINING_METHODS:
            raise InvalidArgumentError(
                f"unknown method {self.method!r}; it is one of {', '.join(TRAINING_METHODS)}"
            )
        if self.optimizer not in ("adam", "sgd"):
            raise InvalidArgumentError(f"unknown optimizer {self.optimizer!r}: adam or sgd")
        if self.k is not None and self.capacity is not None:
            raise InvalidArgumentError("give k or capacity, not both")
        if self.k is None and self.capacity is None:
            object.__setattr__(self, "capacity", 0.05)
        for name, least in (
            ("epochs", 1), ("tune_epochs", 0), ("every", 1), ("warmup", 0), ("batch_size", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise InvalidArgumentError(
                    f"{name} must be at least {least}, not {getattr(self, name)}"
                )
        if self.tune_epochs and not self.projects:
            raise InvalidArgumentError(
                f"motif fine-tuning needs motifs, which method {self.method!r} has none of"
            )

    @property
    def projects(self) -> bool:
        """Whether the run projects onto a mosaic."""
        return self.method.startswith("momos")

    @property
    def quantizes(self) -> bool:
        """Whether the run trains with fake-quantised weights."""
        return self.method.endswith("qat")

    @property
    def total_epochs(self) -> int:
        """Epochs in all."""
        return self.epochs + self.tune_epochs

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
