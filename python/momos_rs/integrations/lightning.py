"""Lightning callbacks that train a module as a mosaic."""

from __future__ import annotations

import contextlib
from typing import Any

from momos_rs.errors import InvalidArgumentError
from momos_rs.nn import MosaicAware, mosaic_aware
from momos_rs.projection import MoMos, ProjectionStats

from .loop import Projector, is_mosaic_of
from .schedule import Schedule

try:
    import lightning.pytorch as pl
except ImportError:
    try:
        import pytorch_lightning as pl  # type: ignore[no-redef,unused-ignore]
    except ImportError:
        raise ImportError(
            "the Lightning callback needs lightning: pip install 'momos_rs[lightning]'"
        ) from None

__all__ = ["MoMosCallback", "MosaicAwareCallback"]


class MoMosCallback(pl.Callback):  # type: ignore[misc,unused-ignore]
    """Projects the module on schedule, and after the last step in any case.

    A projection at the end of an epoch comes before the epoch's validation, so that validation,
    and the checkpoints chosen by it, are of the mosaic. The figures of each projection are logged
    as ``momos/distortion``, ``momos/changed_weights`` and ``momos/motifs_used``. Checkpoints hold
    the callback's state, so a resumed run goes on as if it had not been interrupted. A run that is
    stopped early, by time or by an exception, leaves a mosaic too; the callback goes behind others,
    such as those that average weights, and before those that save.

    Args:
        momos: What a projection is.
        schedule: When to project; after every epoch by default.

    Attributes:
        last: The figures of the last projection.
    """

    def __init__(self, momos: MoMos, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.momos = momos
        self.schedule = schedule or Schedule()
        self.last: ProjectionStats | None = None
        self._projector: Projector | None = None
        self._saved: dict[str, Any] | None = None
        self._steps = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Goes behind callbacks that change weights."""
        _go_last(trainer, self)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Gets hold of the module."""
        self._projector = Projector(pl_module, self.momos, self.schedule)
        if self._saved is not None:
            self._projector.load_state_dict(self._saved)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Notes where training begins."""
        self._steps = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Projects after a step, or after the last batch of an epoch, if it is time to."""
        assert self._projector is not None
        # Batches whose gradients are only accumulated change nothing.
        if trainer.global_step != self._steps:
            self._steps = trainer.global_step
            self._note(pl_module, self._projector.step())
        if trainer.is_last_batch:
            self._note(pl_module, self._projector.end_epoch())
        if trainer.max_steps is not None and 0 <= trainer.max_steps <= trainer.global_step:
            self._note(pl_module, self._projector.finish())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Projects the last epoch's module, before any checkpoint of it is written."""
        assert self._projector is not None
        over = (
            trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
        )
        if over or trainer.should_stop:
            self._note(pl_module, self._projector.finish())

    def on_exception(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Leaves a mosaic to callbacks that save after an exception, if the weights allow it."""
        if self._projector is not None:
            with contextlib.suppress(InvalidArgumentError):
                self.last = self._projector.finish() or self.last

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Makes sure that what training leaves is a mosaic."""
        assert self._projector is not None
        self.last = self._projector.finish() or self.last

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {} if self._projector is None else self._projector.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From checkpoints."""
        if not state_dict:
            return
        self._saved = state_dict
        if self._projector is not None:
            self._projector.load_state_dict(state_dict)

    def _note(self, module: pl.LightningModule, stats: ProjectionStats | None) -> None:
        if stats is None:
            return
        self.last = stats
        _log(module, stats)


class MosaicAwareCallback(pl.Callback):  # type: ignore[misc,unused-ignore]
    """Trains the module through its mosaic: see :func:`momos_rs.nn.mosaic_aware`.

    After ``warmup`` steps validation and every checkpoint are of the mosaic. Checkpoints hold the
    dense weights beside it, as the callback's state, so a resumed run goes on as if it had not been
    interrupted. The figures are logged after every epoch.

    Args:
        momos: What the mosaic is.
        every: Optimizer steps from one search for the nearest motifs to the next.
        warmup: Optimizer steps before the mosaic.

    Attributes:
        last: The figures of the mosaic, after the last epoch.
    """

    def __init__(self, momos: MoMos, *, every: int = 1, warmup: int = 0) -> None:
        super().__init__()
        self.momos = momos
        self.every = every
        self.warmup = warmup
        self.last: ProjectionStats | None = None
        self._training: MosaicAware | None = None
        self._saved: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Goes behind callbacks that change weights."""
        _go_last(trainer, self)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gets hold of the module and its optimizers."""
        self._training = mosaic_aware(
            pl_module, self.momos, *trainer.optimizers, every=self.every, warmup=self.warmup
        )
        if self._saved is not None:
            self._training.load_state_dict(self._saved)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes stock; the last epoch's module is a mosaic before any checkpoint is written."""
        assert self._training is not None
        over = (
            trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
        )
        if self._training.started or over or trainer.should_stop:
            self.last = self._training.begin()
            _log(pl_module, self.last)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Ends the training through the mosaic, which the module stays."""
        assert self._training is not None
        self.last = self._training.finish()
        self._training = None
        if not is_mosaic_of(pl_module, self.momos, self.last.k) and self.last.mosaic is not None:
            # Another callback has averaged the weights.
            self.last = self.momos(pl_module, motifs=self.last.mosaic.motifs)

    def on_exception(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Leaves the module as the mosaic that it was trained as."""
        if self._training is not None:
            with contextlib.suppress(InvalidArgumentError):
                self.last = self._training.finish()
            self._training = None

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {} if self._training is None else self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From checkpoints."""
        if state_dict:
            self._saved = state_dict


def _go_last(trainer: pl.Trainer, callback: pl.Callback) -> None:
    """Puts a callback behind all that do not write checkpoints, for which Lightning has a place."""
    others = [each for each in trainer.callbacks if each is not callback]
    at = next(
        (n for n, each in enumerate(others) if isinstance(each, pl.callbacks.Checkpoint)),
        len(others),
    )
    trainer.callbacks = [*others[:at], callback, *others[at:]]


def _log(module: pl.LightningModule, stats: ProjectionStats) -> None:
    for name, value in (
        ("distortion", stats.distortion),
        ("changed_weights", stats.num_changed_weights),
        ("motifs_used", stats.motifs_used),
    ):
        module.log(f"momos/{name}", float(value))
