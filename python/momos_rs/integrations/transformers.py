"""A callback for Hugging Face's ``Trainer`` that trains a model as a mosaic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import MoMos, ProjectionStats
from momos_rs.runtime.atomic_file import replacing

from .loop import Projector
from .schedule import Schedule

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise ImportError(
        "the Trainer callback needs transformers: pip install 'momos_rs[transformers]'"
    ) from None

__all__ = ["STATE_NAME", "MoMosTrainerCallback"]

STATE_NAME = "momos.pt"
"""The callback's file in every checkpoint folder."""


class MoMosTrainerCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Projects the model on schedule, and after the last step in any case.

    A projection comes before the evaluation and the checkpoint of the same step or epoch. The
    state is written beside the weights of every checkpoint, as ``momos.pt``, and read again when
    training resumes from it.

    Args:
        momos: What a projection is.
        schedule: When to project; after every epoch by default.

    Attributes:
        last: The figures of the last projection.
        history: The figures of all projections of this run, with their step, as plain numbers.
    """

    def __init__(self, momos: MoMos, schedule: Schedule | None = None) -> None:
        self.momos = momos
        self.schedule = schedule or Schedule()
        self.last: ProjectionStats | None = None
        self.history: list[dict[str, Any]] = []
        self._projector: Projector | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Gets hold of the model, and of the state it was saved with."""
        self._projector = Projector(kwargs["model"], self.momos, self.schedule)
        if state.global_step > 0:
            self._projector.load_state_dict(_read_state(args, state.global_step))

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Projects if it is time to, or if this was the last step."""
        assert self._projector is not None
        self._note(state, self._projector.step())
        if state.global_step >= state.max_steps:
            self._note(state, self._projector.finish())

    def on_epoch_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Projects if it is time to."""
        assert self._projector is not None
        self._note(state, self._projector.end_epoch())

    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Makes sure that what training leaves is a mosaic."""
        assert self._projector is not None
        self._note(state, self._projector.finish())

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Writes the state into the checkpoint's folder."""
        assert self._projector is not None
        if state.is_world_process_zero:
            target = _folder(args, state.global_step) / STATE_NAME
            with replacing(target, overwrite=True) as file:
                torch.save(self._projector.state_dict(), file)

    def _note(self, state: TrainerState, stats: ProjectionStats | None) -> None:
        if stats is None:
            return
        self.last = stats
        figures = stats.to_dict()
        del figures["motif_counts"]
        self.history.append({"step": state.global_step, **figures})


def _folder(args: TrainingArguments, step: int) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{step}"


def _read_state(args: TrainingArguments, step: int) -> dict[str, Any]:
    given = args.resume_from_checkpoint
    candidates = [Path(given)] if isinstance(given, str) else []
    candidates.append(_folder(args, step))
    for folder in candidates:
        if (folder / STATE_NAME).is_file():
            state: dict[str, Any] = torch.load(folder / STATE_NAME, weights_only=True)
            return state
    raise InvalidArgumentError(
        f"training resumes at step {step}, but there is no {STATE_NAME} in {candidates[-1]}; set "
        "resume_from_checkpoint in the TrainingArguments to the checkpoint's folder"
    )
