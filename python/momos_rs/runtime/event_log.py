"""The log of a run: one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from momos_rs.errors import CorruptionError

__all__ = ["JsonLines", "read_log"]


class JsonLines:
    """Appends events to a file, each on disk before the next begins.

    Args:
        path: The file.
        keep: Bytes of it to keep: a resumed run drops what came after its last checkpoint.
    """

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        self._file = path.open("r+b" if keep else "w+b")
        self._file.truncate(keep)
        self._file.seek(keep)

    def write(self, event: str, **figures: Any) -> None:
        """Appends one event."""
        line = json.dumps({"event": event, **figures}, allow_nan=True)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def close(self) -> None:
        """Ends the log."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a log.

    A last line without its end, as a killed run may leave it, is left out.

    Raises:
        CorruptionError: If another line is not a JSON object.
        OSError: If the file cannot be read.
    """
    events = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = json.loads(line)
        except ValueError:
            raise CorruptionError(f"{path}, line {number}: not JSON") from None
        if not isinstance(event, dict) or "event" not in event:
            raise CorruptionError(f"{path}, line {number}: not an event of a run")
        events.append(event)
    return events
