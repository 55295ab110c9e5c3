"""A Lightning callback that trains a module as a mosaic."""

from __future__ import annotations

from typing import Any

from momos_rs.projection import MoMos, ProjectionStats

from .loop import Projector
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

__all__ = ["MoMosCallback"]


class MoMosCallback(pl.Callback):  # type: ignore[misc,unused-ignore]
    """Projects the module on schedule, and after the last step in any case.

    A projection at the end of an epoch comes before the epoch's validation, so that validation,
    and the checkpoints chosen by it, are of the mosaic. The figures of each projection are logged
    as ``momos/distortion``, ``momos/changed_weights`` and ``momos/motifs_used``. Checkpoints hold
    the callback's state, so a resumed run goes on as if it had not been interrupted.

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
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1:
            self._note(pl_module, self._projector.finish())

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
        for name, value in (
            ("distortion", stats.distortion),
            ("changed_weights", stats.num_changed_weights),
            ("motifs_used", stats.motifs_used),
        ):
            module.log(f"momos/{name}", float(value))
