"""Callbacks for Hugging Face's ``Trainer`` that train a model as a mosaic."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from momos_rs.nn import MosaicAware, mosaic_aware
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

__all__ = ["STATE_NAME", "MoMosTrainerCallback", "MosaicAwareTrainerCallback"]

STATE_NAME = "momos.pt"
"""The callback's file in every checkpoint folder."""


class _StateInCheckpoints(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Keeps a callback's state beside the weights of every checkpoint, as ``momos.pt``."""

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Writes the state into the checkpoint's folder."""
        # Sharded training gathers here, so every process takes part.
        content = self._state()
        if state.is_world_process_zero:
            target = _checkpoint_folder(args, state.global_step) / STATE_NAME
            with replacing(target, overwrite=True) as file:
                torch.save(content, file)

    def _state(self) -> dict[str, Any]:
        raise NotImplementedError


class MoMosTrainerCallback(_StateInCheckpoints):
    """Projects the model on schedule, and after the last step in any case.

    A projection comes before the evaluation and the checkpoint of the same step or epoch. The
    state is written beside the weights of every checkpoint, as ``momos.pt``, and read again when
    training resumes from it; a checkpoint made without the callback has none, and projections
    then begin with it. Every trial of a hyper-parameter search starts afresh.

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
        self._first = momos.state_dict()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Gets hold of the model, and of the state it was saved with."""
        self.momos.load_state_dict(self._first)
        self.history = []
        self._projector = Projector(kwargs["model"], self.momos, self.schedule)
        saved = _read_state(args, state.global_step)
        if saved is not None:
            self._projector.load_state_dict(saved)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Projects if it is time to, or if this was the last step."""
        assert self._projector is not None
        self._note(state, self._projector.step())
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._note(state, self._projector.finish())

    def on_epoch_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Projects if it is time to, or if training stops here."""
        assert self._projector is not None
        self._note(state, self._projector.end_epoch())
        if control.should_training_stop:
            self._note(state, self._projector.finish())

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

    def _state(self) -> dict[str, Any]:
        assert self._projector is not None
        return self._projector.state_dict()

    def _note(self, state: TrainerState, stats: ProjectionStats | None) -> None:
        if stats is None:
            return
        self.last = stats
        figures = stats.to_dict()
        del figures["motif_counts"]
        self.history.append({"step": state.global_step, **figures})


class MosaicAwareTrainerCallback(_StateInCheckpoints):
    """Trains the model through its mosaic: see :func:`momos_rs.nn.mosaic_aware`.

    After ``warmup`` steps evaluation and every checkpoint are of the mosaic; the dense weights are
    in ``momos.pt`` beside it, from which a resumed run goes on as if it had not been interrupted.

    Args:
        momos: What the mosaic is.
        every: Optimizer steps from one search for the nearest motifs to the next.
        warmup: Optimizer steps before the mosaic.

    Attributes:
        last: The figures of the mosaic at the end of training.
    """

    def __init__(self, momos: MoMos, *, every: int = 1, warmup: int = 0) -> None:
        self.momos = momos
        self.every = every
        self.warmup = warmup
        self.last: ProjectionStats | None = None
        self._training: MosaicAware | None = None
        self._first = momos.state_dict()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Gets hold of the model and its optimizer, and of the state it was saved with."""
        if self._training is not None:
            # Left by a run that has failed.
            self._training.detach()
        self.momos.load_state_dict(self._first)
        self._training = mosaic_aware(
            kwargs["model"], self.momos, kwargs["optimizer"], every=self.every, warmup=self.warmup
        )
        saved = _read_state(args, state.global_step)
        if saved is not None:
            self._training.load_state_dict(saved)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Makes a mosaic before the last checkpoint if warm-up took all steps."""
        assert self._training is not None
        if state.global_step >= state.max_steps or control.should_training_stop:
            self._training.begin()

    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Ends the training through the mosaic, which the model stays."""
        assert self._training is not None
        self.last = self._training.finish()
        self._training = None

    def _state(self) -> dict[str, Any]:
        return {} if self._training is None else self._training.state_dict()


def _checkpoint_folder(args: TrainingArguments, step: int) -> Path:
    """Where the trainer has just written its checkpoint.

    Trials of a hyper-parameter search have folders of their own within the output folder.
    """
    output = Path(str(args.output_dir))
    name = f"checkpoint-{step}"
    found = [each for each in (output / name, *output.glob(f"*/{name}")) if each.is_dir()]
    if not found:
        return output / name
    return max(found, key=lambda folder: folder.stat().st_mtime_ns)


def _read_state(args: TrainingArguments, step: int) -> dict[str, Any] | None:
    """The state that was saved with the checkpoint training resumes from, if there is one."""
    if step == 0:
        return None
    given = args.resume_from_checkpoint
    folder = Path(given) if isinstance(given, str) else _checkpoint_folder(args, step)
    if not (folder / STATE_NAME).is_file():
        warnings.warn(
            f"training resumes at step {step}, but there is no {STATE_NAME} in {folder}, so the "
            "mosaic begins anew; if the checkpoint was made with momos, set "
            "resume_from_checkpoint in the TrainingArguments to its folder",
            stacklevel=2,
        )
        return None
    state: dict[str, Any] = torch.load(folder / STATE_NAME, weights_only=True)
    return state or None
