"""A callback for Hugging Face's ``Trainer`` that measures a model's complexity as it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tracker import ComplexityTracker, TrackedComplexity, TrackerKeywords

if TYPE_CHECKING:
    from typing_extensions import Unpack

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise ImportError(
        "the Trainer callback needs transformers: pip install 'momos_rs[transformers]'"
    ) from None

__all__ = ["ComplexityTrainerCallback"]


class ComplexityTrainerCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Measures the model before training and after every epoch.

    The figures are added to the trainer's log history as ``complexity/bdm``,
    ``complexity/entropy`` and so on.

    Args:
        **options: Passed to :class:`momos_rs.ComplexityTracker`.

    Attributes:
        tracker: The tracker, once training began; it keeps the history and draws it.
    """

    def __init__(self, **options: Unpack[TrackerKeywords]) -> None:
        self.tracker: ComplexityTracker | None = None
        self._options = options

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Measures the model as it is at the start."""
        self.tracker = ComplexityTracker(kwargs["model"], **self._options)
        if state.is_world_process_zero:
            self._note(state, self.tracker.update(state.global_step))

    def on_epoch_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Measures the model if it is time to."""
        assert self.tracker is not None
        if state.is_world_process_zero:
            self._note(state, self.tracker.update(state.global_step))

    def _note(self, state: TrainerState, entry: TrackedComplexity | None) -> None:
        if entry is not None:
            figures = {f"complexity/{name}": value for name, value in entry.figures.items()}
            state.log_history.append({"step": entry.step, "epoch": state.epoch, **figures})
