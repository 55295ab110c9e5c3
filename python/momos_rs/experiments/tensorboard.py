"""Scalars for TensorBoard, if it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes the numbers of log entries as TensorBoard scalars; without TensorBoard, nothing.

    Args:
        folder: Where the event files go.
        first_epoch: Epochs from this one on that are there already are dropped: a resumed run
            writes them again.
    """

    def __init__(self, folder: Path, first_epoch: int = 0) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1)

    def write(self, entry: dict[str, Any]) -> None:
        """Adds the numbers of an epoch's log entry."""
        if self._writer is None:
            return
        numbers = {**entry, **entry.get("complexity", {})}
        for name, value in numbers.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._writer.add_scalar(name, value, entry["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Ends the event file."""
        if self._writer is not None:
            self._writer.close()
