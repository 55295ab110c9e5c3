"""The files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from momos_rs.errors import CorruptionError, InvalidArgumentError
from momos_rs.runtime.atomic_file import replacing
from momos_rs.runtime.event_log import JsonLines

from .tensorboard import TensorBoard

__all__ = ["LOG_NAME", "RUN_FILES", "RunFolder", "settings_of"]

LOG_NAME = "log.jsonl"
RUN_FILES = (LOG_NAME, "init.pt", "best.pt", "final.pt", "final.momos", "last.pt")
"""What a run writes, besides TensorBoard's files."""


class RunFolder:
    """A folder with the log and the checkpoints of one run.

    Every checkpoint is written to a temporary sibling and renamed, so that a killed run leaves the
    one before.

    Args:
        path: The folder; made if it does not exist.
        resume: Whether a run that is there may be gone on with.
        overwrite: Whether a run that is there may be replaced.

    Raises:
        FileExistsError: If there is a run and neither is allowed.
        NotADirectoryError: If the path is a file.
    """

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file; name a folder")
        if (path / LOG_NAME).exists() and not (resume or overwrite):
            raise FileExistsError(
                f"{path} holds a run; use --resume to go on with it or --force to replace it"
            )
        path.mkdir(parents=True, exist_ok=True)
        self._resume = resume
        self._log: JsonLines | None = None
        self._tensorboard: TensorBoard | None = None

    @property
    def log(self) -> JsonLines:
        """The open log."""
        if self._log is None:
            raise InvalidArgumentError("the run has not begun")
        return self._log

    @property
    def tensorboard(self) -> TensorBoard:
        """The open TensorBoard events."""
        if self._tensorboard is None:
            raise InvalidArgumentError("the run has not begun")
        return self._tensorboard

    def begin(self, **figures: Any) -> None:
        """Starts a new run with the first event of its log."""
        for name in (*RUN_FILES, "epoch-*.pt"):
            for file in self.path.glob(name):
                file.unlink()
        self._log = JsonLines(self.path / LOG_NAME)
        self._log.write("start", **figures)
        self._tensorboard = TensorBoard(self.path / "tensorboard")

    def load_last(self) -> dict[str, Any] | None:
        """What :meth:`save` wrote as ``last.pt``, if the run is to be resumed and has one."""
        last = self.path / "last.pt"
        if not self._resume or not last.exists():
            return None
        return cast("dict[str, Any]", torch.load(last, map_location="cpu", weights_only=True))

    def reopen(self, keep: int, epoch: int) -> None:
        """Goes on after the first ``keep`` bytes of the log, which tell of that many epochs.

        Raises:
            CorruptionError: If the log is shorter than that.
        """
        log = self.path / LOG_NAME
        if not log.is_file() or log.stat().st_size < keep:
            raise CorruptionError(
                f"{log} lacks epochs that last.pt tells of; --force begins the run anew"
            )
        self._log = JsonLines(log, keep=keep)
        self._tensorboard = TensorBoard(self.path / "tensorboard", epoch)

    def save(self, name: str, content: dict[str, Any]) -> Path:
        """Writes a checkpoint."""
        target = self.path / name
        with replacing(target, overwrite=True) as file:
            torch.save(content, file)
        return target

    def close(self) -> None:
        """Ends the log."""
        if self._log is not None:
            self._log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def settings_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings of a run from its log: those of its start, or of its last extension."""
    settings: dict[str, Any] = {}
    for event in events:
        settings = event["config"] if event["event"] in ("start", "extend") else settings
    return settings
