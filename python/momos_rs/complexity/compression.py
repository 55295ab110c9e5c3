"""How far general-purpose compressors get with a stream of bytes.

Only sizes are kept. A stream is cut into segments that are compressed side by side, in the way the
parallel versions of the programs do it, which costs less than a thousandth of the size: gzip primes
every segment with the 32 KiB before it (as pigz), bzip2's blocks are independent anyway, xz's and
zstd's segments are longer than the window of their default level.
"""

from __future__ import annotations

import bz2
import lzma
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

from momos_rs.errors import InvalidArgumentError
from momos_rs.records import Record

__all__ = [
    "COMPRESSORS",
    "SLOW_COMPRESSORS",
    "Compression",
    "StreamCompressor",
    "Workers",
    "compression_memory",
]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

COMPRESSORS = ("gzip", "bz2", "lzma", "zstd")
SLOW_COMPRESSORS = ("bz2", "lzma")
"""Those that do not reach 10 MB/s on weights; they may be given a sample only."""

_GZIP_WINDOW = 1 << 15
_GZIP_FRAME = 18
"""Bytes of gzip's header and trailer."""

_SEGMENT = {"gzip": 1 << 20, "bz2": 900_000, "lzma": 24 << 20, "zstd": 16 << 20}
_SAMPLE_SEGMENT = {"bz2": 900_000, "lzma": 4 << 20}
_ENCODER = {"gzip": 1 << 20, "bz2": 8 << 20, "lzma": 95 << 20, "zstd": 16 << 20}
"""Bytes that each takes for itself (their manuals)."""

_SLICE = 1 << 18
"""Bytes between two looks at whether to stop."""


@dataclass(frozen=True)
class Compression(Record):
    """What a compressor made of a stream.

    Attributes:
        name: gzip (zlib, level 9), bz2 (level 9), lzma (xz, preset 6) or zstd (level 3).
        of: ``"weights"`` (their bytes) or ``"signs"`` (their bits w > 0, packed).
        bytes_in: Bytes it was given.
        bytes_out: Bytes it made of them.
        ratio: ``bytes_out / bytes_in``; below 1 where it found something.
        sampled: Whether it was given an evenly spaced sample of the stream instead of all of it.
    """

    name: str
    of: str
    bytes_in: int
    bytes_out: int
    ratio: float
    sampled: bool


class Workers:
    """Threads that compress segments, for any number of streams.

    Use it as a context manager; leaving it early stops the work.
    """

    def __init__(self, threads: int) -> None:
        """Starts the threads."""
        self.stop = threading.Event()
        self._slots = threading.Semaphore(2 * threads)
        self._executor = ThreadPoolExecutor(threads)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop.set()
        self._executor.shutdown(cancel_futures=True)

    def submit(self, name: str, segment: _Segment) -> Future[int]:
        """Compresses a segment once a thread is free; waits while twice as many are waiting."""
        self._slots.acquire()
        future = self._executor.submit(_SIZES[name], segment, self.stop)
        future.add_done_callback(lambda _: self._slots.release())
        return future


class StreamCompressor:
    """Compresses one stream with several compressors at once, in threads."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        of: str,
        total: int,
        sample: int | None = None,
        workers: Workers,
    ) -> None:
        """A compressor of a stream.

        Args:
            names: Which of :data:`COMPRESSORS`.
            of: What the stream is, for :attr:`Compression.of`.
            total: Bytes that will be fed.
            sample: Most bytes for the slow compressors; None for no limit.
            workers: The threads.

        Raises:
            InvalidArgumentError: If a name is not one of them.
        """
        self._of = of
        self._workers = workers
        self._lanes = []
        for name in names:
            if name not in COMPRESSORS:
                raise InvalidArgumentError(
                    f"no compressor {name!r}; there are {', '.join(COMPRESSORS)}"
                )
            limit = sample if name in SLOW_COMPRESSORS else None
            self._lanes.append(_Lane(name, total, limit))

    def feed(self, data: Bytes) -> None:
        """Appends bytes to the stream."""
        for lane in self._lanes:
            for segment in lane.cut(data):
                lane.futures.append(self._workers.submit(lane.name, segment))

    def finish(self) -> tuple[Compression, ...]:
        """What became of the stream, once all of it was fed."""
        return tuple(lane.result(self._of) for lane in self._lanes)


@dataclass(frozen=True)
class _Segment:
    data: bytes
    before: bytes
    last: bool


def compression_memory(names: Sequence[str], sample: int | None) -> tuple[int, int]:
    """About the bytes that compressing two streams takes: once, and for each thread.

    Args:
        names: Which of :data:`COMPRESSORS`.
        sample: Most bytes for the slow compressors; None for no limit.
    """
    segments = [
        _SAMPLE_SEGMENT[name] if sample is not None and name in SLOW_COMPRESSORS else _SEGMENT[name]
        for name in names
    ]
    if not segments:
        return 0, 0
    # Segments in the making, of which one is just handed over; one at work and one that waits.
    once = 2 * sum(segments) + max(segments)
    return once, 2 * max(segments) + max(_ENCODER[name] for name in names)


class _Lane:
    """One compressor's way through the stream."""

    def __init__(self, name: str, total: int, limit: int | None) -> None:
        self.name = name
        self.futures: list[Future[int]] = []
        self.sampled = limit is not None and total > limit
        if self.sampled:
            assert limit is not None
            self._bounds = _spread(total, _SAMPLE_SEGMENT[name], limit)
        else:
            self._bounds = _whole(total, _SEGMENT[name])
        self._total = total
        self._position = 0
        self._next = 0
        self._pending = bytearray()
        self._before = b""

    def cut(self, data: Bytes) -> Iterable[_Segment]:
        """The segments that these bytes complete."""
        view = memoryview(data)  # type: ignore[arg-type]
        start = self._position
        self._position += len(view)
        while self._next < len(self._bounds):
            first, last = self._bounds[self._next]
            begin = first + len(self._pending)
            if begin >= self._position:
                return
            end = min(last, self._position)
            self._pending += view[begin - start : end - start]
            if end < last:
                return
            segment = _Segment(bytes(self._pending), self._before, last == self._total)
            self._before = segment.data[-_GZIP_WINDOW:]
            self._pending.clear()
            self._next += 1
            yield segment

    def result(self, of: str) -> Compression:
        """Sums up the segments."""
        bytes_in = sum(last - first for first, last in self._bounds)
        bytes_out = sum(future.result() for future in self.futures)
        if self.name == "gzip":
            bytes_out += _GZIP_FRAME
        ratio = bytes_out / bytes_in if bytes_in else 1.0
        return Compression(self.name, of, bytes_in, bytes_out, ratio, self.sampled)


def _whole(total: int, segment: int) -> list[tuple[int, int]]:
    return [(start, min(start + segment, total)) for start in range(0, total, segment)]


def _spread(total: int, segment: int, limit: int) -> list[tuple[int, int]]:
    """Evenly spaced segments of at most ``limit`` bytes in all, the first at the start."""
    segment = min(segment, limit)
    count = limit // segment
    step = (total - segment) / max(count - 1, 1)
    starts = [int(index * step) for index in range(count)]
    return [(start, start + segment) for start in starts]


def _gzip_size(segment: _Segment, stop: threading.Event) -> int:
    arguments: dict[str, Any] = {"zdict": segment.before} if segment.before else {}
    compressor = zlib.compressobj(9, wbits=-15, **arguments)
    ending = zlib.Z_FINISH if segment.last else zlib.Z_SYNC_FLUSH
    return _size(segment, compressor.compress, lambda: compressor.flush(ending), stop)


def _bz2_size(segment: _Segment, stop: threading.Event) -> int:
    compressor = bz2.BZ2Compressor(9)
    return _size(segment, compressor.compress, compressor.flush, stop)


def _lzma_size(segment: _Segment, stop: threading.Event) -> int:
    compressor = lzma.LZMACompressor(preset=6)
    return _size(segment, compressor.compress, compressor.flush, stop)


def _zstd_size(segment: _Segment, stop: threading.Event) -> int:
    compressor = zstandard.ZstdCompressor(level=3).compressobj(size=len(segment.data))
    return _size(segment, compressor.compress, compressor.flush, stop)


_SIZES: dict[str, Callable[[_Segment, threading.Event], int]] = {
    "gzip": _gzip_size,
    "bz2": _bz2_size,
    "lzma": _lzma_size,
    "zstd": _zstd_size,
}


def _size(
    segment: _Segment,
    compress: Callable[[memoryview], bytes],
    finish: Callable[[], bytes],
    stop: threading.Event,
) -> int:
    view = memoryview(segment.data)
    size = 0
    for start in range(0, len(view), _SLICE):
        if stop.is_set():
            return 0
        size += len(compress(view[start : start + _SLICE]))
    return size + len(finish())
