"""Reading the bases of a checkpoint within a budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from momos_rs.runtime.budget import LARGEST_PIECE
from momos_rs.runtime.ordered_map import map_ahead

from .model import Base, Bytes, Checkpoint

__all__ = ["Pieces"]

Progress: TypeAlias = "Callable[[int], object]"


class Pieces:
    """Reads bases one after another, small ones whole and ahead of their turn, large ones cut."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        nbytes: int = LARGEST_PIECE,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """A reader.

        Args:
            checkpoint: What to read.
            nbytes: Most bytes of a piece.
            threads: Bases read at once; all cores by default.
            progress: Called with the bytes read so far.
        """
        self._checkpoint = checkpoint
        self._nbytes = nbytes
        self._threads = threads
        self._progress = progress
        self._done = 0

    def of(self, order: Sequence[int]) -> Iterator[tuple[int, Iterator[Bytes]]]:
        """Bases by their indices, each with its pieces, which must be used up before the next."""
        bases = [self._checkpoint.bases[index] for index in order]
        sizes = [base.nbytes if base.nbytes <= self._nbytes else 0 for base in bases]
        whole: Iterable[Bytes | None]
        if any(base.decodes for base in bases):
            whole = map_ahead(self._read_small, bases, sizes, threads=self._threads)
        else:
            whole = map(self._read_small, bases)
        for index, base, data in zip(order, bases, whole, strict=True):
            pieces = base.pieces(self._nbytes) if data is None else iter((data,))
            del data
            yield index, self._counted(pieces)

    def _read_small(self, base: Base) -> Bytes | None:
        return base.read() if base.nbytes <= self._nbytes else None

    def _counted(self, pieces: Iterator[Bytes]) -> Iterator[Bytes]:
        for piece in pieces:
            nbytes = piece.nbytes
            yield piece
            del piece
            self._done += nbytes
            if self._progress is not None:
                self._progress(self._done)
