"""Checking an archive, and comparing it with a model.

This is what ``momos verify`` is a thin layer over.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from momos_rs import _core, checkpoint
from momos_rs.checkpoint import Checkpoint, Entry
from momos_rs.checkpoint.model import Base, Bytes, cuts
from momos_rs.checkpoint.pieces import Pieces
from momos_rs.checkpoint.views import contiguous_range, gather
from momos_rs.dtypes import dtype
from momos_rs.records import Record
from momos_rs.runtime.budget import Shares
from momos_rs.runtime.ordered_map import map_ahead
from momos_rs.runtime.progress import Progress, counted
from momos_rs.runtime.resources import Resources

from .document import BaseRecord
from .parts import PIECES_DECODED
from .reader import Archive, open_archive

__all__ = ["UNKNOWN_ERROR", "TensorVerification", "VerifyReport", "verify_file"]

LARGEST_RATIO = 1e300
"""Stands for the relative error of zeros that decode to something else."""

UNKNOWN_ERROR = 1.0
"""Largest relative error that passes where the archive does not say what it was: what the zero
tensor would have. A model that has nothing to do with the archive is beyond it."""

PathLike: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True)
class TensorVerification(Record):
    """How one tensor of an archive stands against the model.

    Attributes:
        name: Its name.
        exact: Whether it equals the model's bit for bit.
        relative_error: ``||w - w'||^2 / ||w||^2``; None where that cannot be computed.
        problem: What is wrong with it, if anything.
    """

    name: str
    exact: bool
    relative_error: float | None
    problem: str = ""


@dataclass(frozen=True)
class VerifyReport(Record):
    """What verifying found; that it returned says that every section is whole.

    Attributes:
        archive: Path of the archive.
        tensors: Number of tensors.
        tensor_bytes: Bytes of the tensors, decoded.
        codecs: Number of tensors by how they are stored and by which codec.
        against: Path of the model, or None.
        comparison: One entry per tensor, if there is a model.
        matches: Whether the model has the same tensors, up to the errors of the mosaic.
        errors_known: Whether the archive says how far its tensors are from the model's; those from
            before version 1.1 of the format do not, and any relative error up to
            :data:`UNKNOWN_ERROR` passes.
        seconds: Seconds it took.
    """

    archive: str
    tensors: int
    tensor_bytes: int
    codecs: dict[str, int]
    against: str | None
    comparison: tuple[TensorVerification, ...]
    matches: bool
    errors_known: bool
    seconds: float


def verify_file(
    source: PathLike,
    against: PathLike | None = None,
    *,
    allow_pickle: bool = False,
    max_bytes: int | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Checks every digest of an archive and decodes everything, optionally against a model.

    Args:
        source: The archive.
        against: The model it was packed from.
        allow_pickle: Whether the model may run code of its own to be loaded.
        max_bytes: Most bytes of tensors to accept; see :func:`momos_rs.open`.
        memory: Bytes of memory to use beyond what the program takes itself, or a size like
            ``"4G"``; half of what is free by default. The report does not depend on it.
        threads: Number of threads; all cores by default.
        progress: Called with a phase, the bytes done and the bytes in all.

    Raises:
        OSError: If a file cannot be read.
        CorruptionError: If the archive is damaged.
        UnsupportedVersionError: If it needs a newer version of momos.
        InvalidArgumentError: If the memory is too little.
    """
    start = time.perf_counter()
    resources = Resources(memory, threads)
    with open_archive(source, max_bytes=max_bytes) as archive:
        model = None
        if against is not None:
            model = checkpoint.read(against, allow_pickle=allow_pickle)
        shares = _share_out(archive, model, resources, f"verifying {source}")
        archive.threads = shares.threads
        comparison: tuple[TensorVerification, ...] = ()
        if model is None:
            _decode(archive.checkpoint(), shares, progress)
        else:
            comparison = _Comparison(archive, model, shares).run(progress)
        bases = enumerate(archive.document.bases)
        lossy = [base for index, base in bases if _is_mosaic(archive, index)]
        return VerifyReport(
            archive=str(source),
            tensors=len(archive),
            tensor_bytes=sum(base.nbytes for base in archive.document.bases),
            codecs=_count_codecs(archive),
            against=None if against is None else str(against),
            comparison=comparison,
            matches=not any(each.problem for each in comparison),
            errors_known=all(_recorded(archive, base) is not None for base in lossy),
            seconds=time.perf_counter() - start,
        )


def _count_codecs(archive: Archive) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in archive.document.entries:
        stored = archive.document.stored(entry.base)
        what = f"{stored}, {archive.codec(entry.base)}"
        counts[what] = counts.get(what, 0) + 1
    return counts


def _share_out(
    archive: Archive, model: Checkpoint | None, resources: Resources, doing: str
) -> Shares:
    once, per_thread = archive.decoding_memory()
    for each in (archive.checkpoint(), model):
        if each is not None:  # views that skip elements are compared as a whole
            views = ((entry, each.bases[entry.base]) for entry in each.entries)
            once += max(
                (
                    4 * max(base.nbytes, entry.numel * dtype(base.dtype).itemsize)
                    for entry, base in views
                    if contiguous_range(entry, base) is None
                ),
                default=0,
            )
    pieces = PIECES_DECODED + (0 if model is None else 2)
    return resources.share_out(doing=doing, once=once, per_thread=per_thread, pieces=pieces)


def _decode(unpacked: Checkpoint, shares: Shares, progress: Progress | None) -> None:
    """Decodes everything, of which only a piece is kept at a time."""
    pieces = Pieces(
        unpacked,
        shares.piece_bytes,
        threads=shares.threads,
        progress=counted(progress, "verify", unpacked.nbytes),
    )
    for _, decoded in pieces.of(range(len(unpacked.bases))):
        for _ in decoded:
            pass


def _recorded(archive: Archive, base: BaseRecord) -> float | None:
    """The relative error that the archive has noted for a base, or for the one it is a copy of."""
    return (base if base.copy_of is None else archive.document.bases[base.copy_of]).error


@dataclass
class _Parts:
    """What has been found of a base by tensors that are parts of it.

    Attributes:
        elements: Elements compared.
        distortion: Sum of their squared differences.
        energy: Sum of their squares.
    """

    elements: int = 0
    distortion: float = 0.0
    energy: float = 0.0


class _Comparison:
    """Every tensor of an archive against the model's of the same name."""

    def __init__(self, archive: Archive, model: Checkpoint, shares: Shares) -> None:
        self._archive = archive
        self._model = model
        self._shares = shares
        self._unpacked = archive.checkpoint()
        self._ours = {entry.name: entry for entry in self._unpacked.entries}
        self._theirs = {entry.name: entry for entry in model.entries}
        self._done = 0
        self._report: Callable[[int], object] | None = None
        self._lock = threading.Lock()
        self._parts: defaultdict[int, _Parts] = defaultdict(_Parts)

    def run(self, progress: Progress | None) -> tuple[TensorVerification, ...]:
        """The results: names that only the model has, then the archive's in their order."""
        results = [
            TensorVerification(name, False, None, "is not in the archive")
            for name in self._theirs
            if name not in self._ours
        ]
        sizes = [self._unpacked.bases[entry.base].nbytes for entry in self._ours.values()]
        self._report = counted(progress, "verify", sum(sizes))
        compared = map_ahead(self._compare, list(self._ours), sizes, threads=self._shares.threads)
        for size, result in zip(sizes, compared, strict=True):
            results.append(result)
            self._done += size
            if self._report:
                self._report(self._done)
        return (*results, *self._judge_parts())

    def _judge_parts(self) -> Iterator[TensorVerification]:
        """What is wrong with bases of which no tensor is the whole."""
        names = {entry.base: name for name, entry in self._ours.items()}
        for index, parts in self._parts.items():
            base = self._archive.document.bases[index]
            bound = _recorded(self._archive, base)
            if bound is None or parts.elements != base.elements:
                bound = UNKNOWN_ERROR
            relative = _ratio(parts.distortion, parts.energy)
            if relative > bound:
                yield TensorVerification(names[index], False, relative, _beyond(relative, bound))

    def _compare(self, name: str) -> TensorVerification:
        if name not in self._theirs:
            return TensorVerification(name, False, None, "is not in the model")
        ours, theirs = self._ours[name], self._theirs[name]
        base, other = self._unpacked.bases[ours.base], self._model.bases[theirs.base]
        if (ours.shape, base.dtype) != (theirs.shape, other.dtype):
            problem = (
                f"is {base.dtype} {list(ours.shape)} in the archive and "
                f"{other.dtype} {list(theirs.shape)} in the model"
            )
            return TensorVerification(name, False, None, problem)
        is_mosaic = _is_mosaic(self._archive, ours.base)
        exact = True
        difference = None
        compared = 0
        for decoded, original in self._pieces(ours, base, theirs, other):
            exact = exact and np.array_equal(original, decoded)
            if is_mosaic:
                difference = _core.compare_tensors(
                    original, decoded, base.dtype, before=difference, threads=self._shares.threads
                )
            compared += decoded.nbytes
            # Tensors of several pieces have the main thread for themselves.
            if self._report and compared < base.nbytes and base.nbytes > self._shares.piece_bytes:
                self._report(self._done + compared)
        if exact:
            return TensorVerification(name, True, 0.0)
        if difference is None:
            return TensorVerification(name, False, None, "differs, though it is stored exactly")
        if not math.isfinite(difference["distortion"]):
            return TensorVerification(name, False, None, "holds NaN or Inf in the model")
        distortion, energy = difference["distortion"], difference["sum_of_squares"]
        relative = _ratio(distortion, energy)
        if ours.numel != base.numel:
            with self._lock:
                parts = self._parts[ours.base]
                parts.elements += ours.numel
                parts.distortion += distortion
                parts.energy += energy
            return TensorVerification(name, False, relative)
        bound = _recorded(self._archive, self._archive.document.bases[ours.base])
        bound = UNKNOWN_ERROR if bound is None else bound
        problem = _beyond(relative, bound) if relative > bound else ""
        return TensorVerification(name, False, relative, problem)

    def _pieces(
        self, ours: Entry, base: Base, theirs: Entry, other: Base
    ) -> Iterator[tuple[Bytes, Bytes]]:
        """The elements of a tensor of both in C order, piece by piece."""
        here, there = contiguous_range(ours, base), contiguous_range(theirs, other)
        if here is None or there is None:
            yield gather(ours, base, base.read()), gather(theirs, other, other.read())
            return
        itemsize = dtype(base.dtype).itemsize
        for start, stop in cuts(ours.numel, itemsize, self._shares.piece_bytes, chunk=base.chunk):
            yield (
                base.part(here[0] + start, here[0] + stop),
                other.part(there[0] + start, there[0] + stop),
            )


def _ratio(distortion: float, energy: float) -> float:
    if energy:
        return distortion / energy
    return 0.0 if not distortion else LARGEST_RATIO


def _beyond(relative: float, bound: float) -> str:
    return f"has the relative error {relative:.4g}, but {bound:.4g} when it was packed"


def _is_mosaic(archive: Archive, index: int) -> bool:
    copy_of = archive.document.bases[index].copy_of
    stored = archive.document.stored(index if copy_of is None else copy_of)
    return stored == "grid" or (
        stored == "mosaic"
        and not (archive.document.mosaic is not None and archive.document.mosaic.exact)
    )
