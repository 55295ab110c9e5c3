"""Sections that wait on disk until they can be written."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.runtime.team import Team

from .document import MOTIFS_SECTION, SECTIONS, Kind, StreamRecord

__all__ = ["Spool", "section_digest"]

_BYTES_PER_COPY = 1 << 22

Data = bytes | npt.NDArray[np.uint8]


def section_digest(data: npt.NDArray[np.uint8]) -> str:
    """The digest of bytes in an archive: the first 64 bits of their XXH3-128."""
    return _core.digest(data)[:16]


class Spool:
    """Streams waiting in files without names, of which nothing is left when they are closed or the
    process ends, however it ends.

    Args:
        directory: Where the files go; the system's place for temporary files by default.

    Attributes:
        sizes: Bytes of each section so far.
        streams: The streams so far, in their order.
    """

    def __init__(self, directory: Path | None) -> None:
        self.sizes: dict[str, int] = {}
        self.streams: list[StreamRecord] = []
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def add(self, section: str, *pieces: Data) -> tuple[int, str]:
        """Appends to a section; returns the size and the digest of what was appended."""
        return self._add_all(section, pieces)

    def add_stream(self, kind: Kind, bases: Sequence[int], data: Data) -> None:
        """Appends the stream of some bases to the section of its kind."""
        self.streams.append(StreamRecord(kind, tuple(bases), *self.add(SECTIONS[kind], data)))

    def add_chunks(
        self,
        kind: Kind,
        bases: Sequence[int],
        head: Data,
        chunks: Iterable[tuple[Data, Sequence[int]]],
        *,
        width: int,
        limit: int,
        otherwise: Callable[[], Iterable[Data]],
    ) -> None:
        """Appends a stream that is made piece by piece: a head, the lengths of all chunks but the
        last, and the chunks.

        Args:
            kind: The kind of the stream.
            bases: The bases in it.
            head: What it begins with.
            chunks: Consecutive chunks, and the length of each.
            width: Bytes of a length.
            limit: Another stream takes its place unless it is shorter than this.
            otherwise: Makes the pieces of that other stream.
        """
        lengths: list[int] = []
        with tempfile.TemporaryFile(dir=self._directory) as scratch:
            for payload, some in chunks:
                scratch.write(np.frombuffer(payload, np.uint8).data)
                lengths += some
            table = b"".join(length.to_bytes(width, "little") for length in lengths[:-1])
            size = len(head) + len(table) + sum(lengths)
            scratch.seek(0)
            pieces = (
                _after([head, table], _read_all(scratch, sum(lengths)))
                if size < limit
                else otherwise()
            )
            self.streams.append(
                StreamRecord(kind, tuple(bases), *self._add_all(SECTIONS[kind], pieces))
            )

    def join(self, team: Team) -> None:
        """Gives the first process what all have spooled, in the order of kinds, then of ranks."""
        if team.size == 1:
            return
        sizes = team.join([self.sizes])
        streams = team.join(self.streams)
        # Sections keep the order in which one process would have begun them.
        order = {kind: place for place, kind in enumerate(SECTIONS)}
        self.streams = sorted(streams, key=lambda stream: order[stream.kind])
        for section in SECTIONS.values():
            for rank in range(1, team.size):
                size = sizes[rank].get(section, 0)
                if team.rank == rank and size:
                    self._files[section].seek(0)
                    for piece in _read_all(self._files[section], size):
                        team.send(np.frombuffer(piece, np.uint8), 0)
                elif team.is_first and size:
                    for length in _lengths(size):
                        data = np.empty(length, np.uint8)
                        team.receive(data, rank)
                        self._append(section, data)
        ordered = [name for name in (MOTIFS_SECTION, *SECTIONS.values()) if name in self._files]
        self._files = {name: self._files[name] for name in ordered}
        self.sizes = {name: self.sizes[name] for name in ordered}

    def copy_to(self, target: IO[bytes]) -> None:
        """Appends all sections to a file, in the order in which they were begun."""
        for file in self._files.values():
            file.seek(0)
            shutil.copyfileobj(file, target, _BYTES_PER_COPY)

    def _add_all(self, section: str, pieces: Iterable[Data]) -> tuple[int, str]:
        digest = _core.Digest()
        size = 0
        for piece in pieces:
            view = np.frombuffer(piece, np.uint8)
            self._append(section, view)
            digest.update(view)
            size += view.size
        return size, digest.hexdigest()[:16]

    def _append(self, section: str, data: npt.NDArray[np.uint8]) -> None:
        if section not in self._files:
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - the stack closes it
            self._files[section] = self._stack.enter_context(file)
        self._files[section].write(data.data)
        self.sizes[section] = self.sizes.get(section, 0) + data.size


def _after(first: Iterable[Data], then: Iterable[Data]) -> Iterator[Data]:
    yield from first
    yield from then


def _lengths(size: int) -> Iterator[int]:
    """How that many bytes are cut into pieces."""
    for start in range(0, size, _BYTES_PER_COPY):
        yield min(_BYTES_PER_COPY, size - start)


def _read_all(file: IO[bytes], size: int) -> Iterator[bytes]:
    """So many bytes of a file from where it stands, in pieces."""
    for length in _lengths(size):
        yield file.read(length)
