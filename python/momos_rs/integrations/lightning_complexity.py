"""A Lightning callback that measures a module's complexity as it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tracker import ComplexityTracker, TrackerKeywords

if TYPE_CHECKING:
    from typing_extensions import Unpack

try:
    import lightning.pytorch as pl
except ImportError:
    try:
        import pytorch_lightning as pl
    except ImportError:
        raise ImportError(
            "the Lightning callback needs lightning: pip install 'momos_rs[lightning]'"
        ) from None

__all__ = ["ComplexityCallback"]


class ComplexityCallback(pl.Callback):  # type: ignore[misc,unused-ignore]
    """Measures the module before training and after every epoch, and logs the figures.

    Figures are logged as ``complexity/bdm``, ``complexity/entropy`` and so on.

    Args:
        **options: Passed to :class:`momos_rs.ComplexityTracker`.

    Attributes:
        tracker: The tracker, once training began; it keeps the history and draws it.
    """

    def __init__(self, **options: Unpack[TrackerKeywords]) -> None:
        super().__init__()
        self.tracker: ComplexityTracker | None = None
        self._options = options
        self._saved: dict[str, Any] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures the module as it is at the start."""
        self.tracker = ComplexityTracker(pl_module, **self._options)
        if self._saved is not None:
            self.tracker.load_state_dict(self._saved)
        elif trainer.is_global_zero:
            self.tracker.update(0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures the module if it is time to."""
        assert self.tracker is not None
        # All ranks hold the same weights; one measures them.
        entry = self.tracker.update(trainer.current_epoch + 1) if trainer.is_global_zero else None
        if entry is not None:
            figures = {f"complexity/{name}": value for name, value in entry.figures.items()}
            pl_module.log_dict(figures, rank_zero_only=True)

    def state_dict(self) -> dict[str, Any]:
        """The history."""
        return {} if self.tracker is None else self.tracker.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the history of the run that is resumed."""
        self._saved = state_dict or None
