"""The archive's document: what its sections mean, as JSON in the safetensors metadata.

Reading is defensive: every field is checked before it is believed, and sizes before anything is
allocated by them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .. import _core
from ..checkpoint.model import Entry
from ..dtypes import DTYPES, MOSAIC_DTYPES
from ..errors import CorruptionError, UnsupportedVersionError
from ..limits import MAX_EXPANSION, MAX_FREE_BYTES, MAX_RANK
from .packed_document import PACKED_DOCUMENT

__all__ = [
    "BaseRecord",
    "Document",
    "GridRecord",
    "MosaicRecord",
    "check_readable",
    "decode_document",
    "encode_document",
    "section_name",
]

VERSION = (1, 0)
"""Version of the format this package writes. A reader accepts any minor of its major version,
unless the archive requires a feature it does not know."""

GRID_VERSION = (1, 1)
"""Version of archives with tensors on grids."""

GRID = "grid"
"""The feature that archives with tensors on grids require."""

FEATURES: frozenset[str] = frozenset({GRID, PACKED_DOCUMENT})
"""Features beyond version 1.0 that this reader knows."""

MOTIFS_SECTION = "motifs"
GRID_SECTION = "grid"

Stored = Literal["mosaic", "exact", "copy", "grid"]


@dataclass(frozen=True)
class MosaicRecord:
    """What is said of the mosaic.

    Attributes:
        block_size: Values per block, s.
        motifs: Number of motifs stored: those that represent a block.
        requested_motifs: Number of motifs asked for, k.
        blocks: Number of blocks, m.
        dtype: Type of the motifs.
        code_lengths: Number of motifs of each length of the index code, from 0 bits on.
        digest: Digest of the motif section.
        exact: Whether the mosaic represents its tensors bit for bit.
        settings: How it was made (method, seed, ...), for people.
    """

    block_size: int
    motifs: int
    requested_motifs: int
    blocks: int
    dtype: str
    code_lengths: tuple[int, ...]
    digest: str
    exact: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class GridRecord:
    """What is said of tensors on grids, for people: reading them needs none of it.

    Attributes:
        block_size: Values per block, s, with which the mosaic was described.
        motifs: Number of distinct blocks, k.
        blocks: Number of blocks, m.
        dtype: Type of the motifs.
        settings: How the points of the grids were chosen.
    """

    block_size: int
    motifs: int
    blocks: int
    dtype: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class BaseRecord:
    """What is said of one base.

    Attributes:
        dtype: Its element type.
        elements: Number of elements.
        stored: ``"mosaic"``, ``"grid"``, ``"exact"``, or ``"copy"`` of an earlier base.
        digest: Digest of its section, or of its part of the section of all grids; empty for a
            copy.
        copy_of: The earlier base that a copy equals.
        stream_bytes: Bytes of its part of the section of all grids, for ``"grid"``.
    """

    dtype: str
    elements: int
    stored: Stored
    digest: str = ""
    copy_of: int | None = None
    stream_bytes: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.elements * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Document:
    """The whole document.

    Attributes:
        entries: The named tensors, in order.
        bases: What their bytes are.
        mosaic: The mosaic, or None if everything is exact.
        writer: Name and version of the program that wrote it.
        metadata: The string metadata of the source.
        source: Name and format of the source, what was left out of it, and the like; for people.
        version: Version of the format.
    """

    entries: tuple[Entry, ...]
    bases: tuple[BaseRecord, ...]
    mosaic: MosaicRecord | None
    writer: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    version: tuple[int, int] = VERSION
    grid: GridRecord | None = None


def section_name(index: int, stored: Stored) -> str:
    """Name of the section of a base; tensors on grids share one."""
    if stored == "grid":
        return GRID_SECTION
    return f"{'indices' if stored == 'mosaic' else 'exact'}/{index}"


def encode_document(document: Document) -> str:
    """The document as JSON."""
    mosaic = document.mosaic
    return json.dumps(
        {
            "version": list(document.version),
            "requires": [GRID, PACKED_DOCUMENT] if document.grid else [],
            "writer": document.writer,
            "mosaic": mosaic
            and {
                "block_size": mosaic.block_size,
                "motifs": mosaic.motifs,
                "requested_motifs": mosaic.requested_motifs,
                "blocks": mosaic.blocks,
                "dtype": mosaic.dtype,
                "code_lengths": list(mosaic.code_lengths),
                "digest": mosaic.digest,
                "exact": mosaic.exact,
                "settings": dict(mosaic.settings),
            },
            **({"grid": dataclasses.asdict(document.grid)} if document.grid else {}),
            "bases": [_encode_base(base) for base in document.bases],
            "tensors": [_encode_entry(entry) for entry in document.entries],
            "metadata": dict(document.metadata),
            "source": dict(document.source),
        },
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def _encode_base(base: BaseRecord) -> dict[str, Any]:
    record: dict[str, Any] = {
        "dtype": base.dtype,
        "elements": base.elements,
        "stored": base.stored,
    }
    if base.stored == "copy":
        record["of"] = base.copy_of
    else:
        record["digest"] = base.digest
    if base.stream_bytes is not None:
        record["bytes"] = base.stream_bytes
    return record


def _encode_entry(entry: Entry) -> dict[str, Any]:
    record: dict[str, Any] = {"name": entry.name, "shape": list(entry.shape), "base": entry.base}
    if entry.strides is not None:
        record["offset"] = entry.offset
        record["strides"] = list(entry.strides)
    return record


def decode_document(text: str, *, source: str, file_size: int, max_bytes: int | None) -> Document:
    """Reads and checks a document.

    Args:
        text: The JSON.
        source: Name of the file, for messages.
        file_size: Bytes of the whole file, by which announced sizes are judged.
        max_bytes: Most decoded bytes to accept, or None for the default limits.

    Raises:
        UnsupportedVersionError: If the archive is of another major version or needs a feature
            this reader does not know.
        CorruptionError: If the document contradicts itself.
    """
    try:
        return _Decoder(source, file_size, max_bytes).document(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{source}: the archive's document is not valid: {error}") from None


def check_readable(text: str, *, source: str) -> None:
    """Checks the version and the required features of a document or its stub.

    Args:
        text: The JSON.
        source: Name of the file, for messages.

    Raises:
        UnsupportedVersionError: If the archive is of another major version or needs a feature
            this reader does not know.
        CorruptionError: If the text is no document.
    """
    try:
        _Decoder(source, 0, None).check_readable(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"{source}: the archive's document is not valid: {error}") from None


class _Decoder:
    """Checks one document, field by field."""

    def __init__(self, source: str, file_size: int, max_bytes: int | None) -> None:
        self.source = source
        self.file_size = file_size
        self.max_bytes = max_bytes

    def fail(self, what: str) -> CorruptionError:
        return CorruptionError(f"{self.source}: the archive's document is not valid: {what}")

    def field(self, record: object, name: str, kind: type) -> Any:
        if not isinstance(record, dict) or name not in record:
            raise self.fail(f"{name!r} is missing")
        value = record[name]
        if type(value) is not kind:
            raise self.fail(f"{name!r} is not {_KIND_NAMES[kind]}")
        return value

    def count(self, record: object, name: str) -> int:
        value: int = self.field(record, name, int)
        if not 0 <= value < 1 << 63:
            raise self.fail(f"{name!r} is {value}")
        return value

    def counts(self, record: object, name: str) -> tuple[int, ...]:
        values = self.field(record, name, list)
        if not all(type(value) is int and 0 <= value < 1 << 63 for value in values):
            raise self.fail(f"{name!r} is not a list of sizes")
        return tuple(values)

    def check_readable(self, record: object) -> tuple[int, int]:
        version = self.counts(record, "version")
        if len(version) != 2:
            raise self.fail("'version' is not a major and a minor number")
        if version[0] != VERSION[0]:
            raise UnsupportedVersionError(
                f"{self.source} is of format version {version[0]}.{version[1]}; this version of "
                f"momos reads {VERSION[0]}.x (upgrade momos_rs to read it)"
                if version[0] > VERSION[0]
                else f"{self.source} is of format version {version[0]}.{version[1]}, which momos "
                f"no longer reads (it reads {VERSION[0]}.x)"
            )
        for feature in self.field(record, "requires", list):
            if feature not in FEATURES:
                raise UnsupportedVersionError(
                    f"{self.source} needs the feature {feature!r}, which this version of momos "
                    "does not have (upgrade momos_rs to read it)"
                )
        return version[0], version[1]

    def document(self, record: object) -> Document:
        version = self.check_readable(record)
        mosaic = record["mosaic"] if isinstance(record, dict) and "mosaic" in record else {}
        bases = tuple(
            self.base(index, base) for index, base in enumerate(self.field(record, "bases", list))
        )
        self.check_copies(bases)
        self.check_size(bases)
        grid = record["grid"] if isinstance(record, dict) and "grid" in record else None
        result = Document(
            entries=self.entries(self.field(record, "tensors", list), bases),
            bases=bases,
            mosaic=None if mosaic is None else self.mosaic(mosaic, bases),
            writer=self.field(record, "writer", str),
            metadata=self.field(record, "metadata", dict),
            source=self.field(record, "source", dict),
            version=version,
            grid=None if grid is None else self.grid(grid),
        )
        if not all(isinstance(value, str) for value in result.metadata.values()):
            raise self.fail("'metadata' holds something that is not text")
        if mosaic is None and any(base.stored == "mosaic" for base in bases):
            raise self.fail("tensors are part of a mosaic that is not there")
        if any(base.stored == "grid" for base in bases) != (grid is not None):
            raise self.fail("there is a grid without tensors, or there are tensors without a grid")
        return result

    def base(self, index: int, record: object) -> BaseRecord:
        name = self.field(record, "dtype", str)
        stored = self.field(record, "stored", str)
        elements = self.count(record, "elements")
        if name not in DTYPES:
            raise UnsupportedVersionError(
                f"{self.source} holds elements of type {name!r}, which this version of momos "
                "does not know"
            )
        if stored == "copy":
            return BaseRecord(name, elements, "copy", copy_of=self.count(record, "of"))
        if stored not in ("mosaic", "exact", "grid"):
            raise UnsupportedVersionError(
                f"{self.source} stores base {index} as {stored!r}, which this version of momos "
                "does not know"
            )
        if stored != "exact" and name not in MOSAIC_DTYPES:
            raise self.fail(f"base {index} of type {name} is part of the mosaic")
        digest = self.field(record, "digest", str)
        if stored == "grid":
            nbytes = self.count(record, "bytes")
            return BaseRecord(name, elements, "grid", digest, stream_bytes=nbytes)
        return BaseRecord(name, elements, stored, digest)

    def check_copies(self, bases: tuple[BaseRecord, ...]) -> None:
        for index, base in enumerate(bases):
            if base.stored != "copy":
                continue
            assert base.copy_of is not None
            if base.copy_of >= index:
                raise self.fail(f"base {index} copies base {base.copy_of}, which comes later")
            original = bases[base.copy_of]
            if original.stored == "copy" or (original.dtype, original.elements) != (
                base.dtype,
                base.elements,
            ):
                raise self.fail(f"base {index} cannot be a copy of base {base.copy_of}")

    def check_size(self, bases: tuple[BaseRecord, ...]) -> None:
        total = sum(base.nbytes for base in bases)
        limit = self.max_bytes
        if limit is None:
            limit = MAX_FREE_BYTES + MAX_EXPANSION * self.file_size
        if total > limit:
            raise CorruptionError(
                f"{self.source} announces {total} bytes of tensors, but its {self.file_size} bytes "
                f"justify {limit} at most (max_bytes= accepts more from a source you trust)"
            )

    def mosaic(self, record: object, bases: tuple[BaseRecord, ...]) -> MosaicRecord:
        block_size = self.count(record, "block_size")
        name = self.field(record, "dtype", str)
        lengths = self.counts(record, "code_lengths")
        if name not in MOSAIC_DTYPES:
            raise self.fail(f"motifs of type {name}")
        motifs = self.count(record, "motifs")
        if motifs != sum(lengths):
            raise self.fail(f"{motifs} motifs have {sum(lengths)} codes")
        if motifs * block_size * DTYPES[name].itemsize > MAX_EXPANSION * self.file_size:
            raise self.fail(f"{motifs} motifs of {block_size} values do not fit the file")
        blocks = sum(
            _core.block_count(base.elements, block_size)
            for base in bases
            if base.stored == "mosaic"
        )
        if blocks != self.count(record, "blocks"):
            raise self.fail(f"the tensors of the mosaic have {blocks} blocks")
        return MosaicRecord(
            block_size=block_size,
            motifs=motifs,
            requested_motifs=self.count(record, "requested_motifs"),
            blocks=blocks,
            dtype=name,
            code_lengths=lengths,
            digest=self.field(record, "digest", str),
            exact=self.field(record, "exact", bool),
            settings=self.field(record, "settings", dict),
        )

    def grid(self, record: object) -> GridRecord:
        return GridRecord(
            block_size=self.count(record, "block_size"),
            motifs=self.count(record, "motifs"),
            blocks=self.count(record, "blocks"),
            dtype=self.field(record, "dtype", str),
            settings=self.field(record, "settings", dict),
        )

    def entries(self, records: list[object], bases: tuple[BaseRecord, ...]) -> tuple[Entry, ...]:
        entries = tuple(self.entry(record, bases) for record in records)
        if len({entry.name for entry in entries}) != len(entries):
            raise self.fail("two tensors have one name")
        if {entry.base for entry in entries} != set(range(len(bases))):
            raise self.fail("a base belongs to no tensor")
        return entries

    def entry(self, record: object, bases: tuple[BaseRecord, ...]) -> Entry:
        name = self.field(record, "name", str)
        shape = self.counts(record, "shape")
        base = self.count(record, "base")
        if base >= len(bases) or len(shape) > MAX_RANK:
            raise self.fail(f"tensor {name!r} cannot be")
        elements = bases[base].elements
        strides = None
        offset = 0
        if isinstance(record, dict) and "strides" in record:
            offset, strides = self.count(record, "offset"), self.counts(record, "strides")
            reach = sum((size - 1) * step for size, step in zip(shape, strides, strict=False))
            if len(strides) != len(shape) or (0 not in shape and offset + reach >= elements):
                raise self.fail(f"tensor {name!r} reaches beyond its base")
        elif math.prod(shape) != elements:
            raise self.fail(f"tensor {name!r} has not the size of its base")
        return Entry(name, shape, base, offset, strides)


_KIND_NAMES = {
    bool: "true or false",
    dict: "an object",
    int: "an integer",
    list: "a list",
    str: "text",
}
