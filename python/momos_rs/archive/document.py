"""The archive's document: what its sections mean, as compressed JSON in a section of its own.

Reading is defensive: every field is checked before it is believed, and sizes before anything is
allocated by them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import zstandard

from momos_rs import _core
from momos_rs.checkpoint.model import Entry
from momos_rs.dtypes import DTYPES, MOSAIC_DTYPES
from momos_rs.errors import CorruptionError, UnsupportedVersionError
from momos_rs.limits import (
    DOCUMENT_EXPANSION,
    FREE_DOCUMENT_BYTES,
    MAX_CODE_LENGTHS,
    MAX_DOCUMENT_BYTES,
    MAX_EXPANSION,
    MAX_FREE_BYTES,
    MAX_RANK,
)

__all__ = [
    "DOCUMENT_SECTION",
    "MOTIFS_SECTION",
    "SECTIONS",
    "BaseRecord",
    "Document",
    "GridRecord",
    "MosaicRecord",
    "StreamRecord",
    "check_version",
    "decode_document",
    "encode_document",
]

VERSION = (1, 1)
"""Version of the format this package writes. A reader accepts any minor of its major version,
unless the archive requires a feature it does not know."""

FEATURES: Mapping[str, tuple[int, int]] = {"grid_steps": (1, 1)}
"""Features beyond version 1.0 that this reader knows, and the version that brought them.
``grid_steps``: rows and columns of tensors on grids may have steps of their own."""

DOCUMENT_SECTION = "document"
MOTIFS_SECTION = "motifs"

Kind = Literal["mosaic", "grid", "exact"]

SECTIONS: Mapping[Kind, str] = {"mosaic": "indices", "grid": "grid", "exact": "exact"}
"""The section that holds the streams of each kind."""

IndexCoding = Literal["prefix", "path"]

_LEVEL = 19


@dataclass(frozen=True)
class MosaicRecord:
    """What is said of the mosaic.

    Attributes:
        block_size: Values per block, s.
        motifs: Number of motifs stored: those that represent a block.
        requested_motifs: Number of motifs asked for, k.
        blocks: Number of blocks, m.
        dtype: Type of the motifs.
        index: How indices are numbered and coded: ``"prefix"`` or ``"path"``.
        code_lengths: For ``"prefix"``, number of motifs of each length of the index code, from 0
            bits on; else empty.
        digest: Digest of the motif section.
        exact: Whether the mosaic represents its tensors bit for bit.
        settings: How it was made (method, seed, ...), for people.
    """

    block_size: int
    motifs: int
    requested_motifs: int
    blocks: int
    dtype: str
    index: IndexCoding
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
class StreamRecord:
    """What is said of one stream.

    Attributes:
        kind: ``"mosaic"``, ``"grid"`` or ``"exact"``; the streams of a kind follow each other in
            its section.
        bases: The bases whose elements it codes, one after another.
        nbytes: Bytes of the stream.
        digest: Their digest.
    """

    kind: Kind
    bases: tuple[int, ...]
    nbytes: int
    digest: str


@dataclass(frozen=True)
class BaseRecord:
    """What is said of one base.

    Attributes:
        dtype: Its element type.
        elements: Number of elements.
        copy_of: The earlier base that it equals, if it is stored as a copy.
        error: Relative error of what is stored, ``||w - w'||^2 / ||w||^2``, rounded up; None if it
            is exact or not known.
    """

    dtype: str
    elements: int
    copy_of: int | None = None
    error: float | None = None

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
        streams: Where the bytes are.
        mosaic: The mosaic of free motifs, or None if there is none.
        grid: What is said of tensors on grids, or None if there are none.
        header: The JSON of the header of the safetensors file that the tensors came from, if all
            of them are exact and the file cannot be made again without it; else empty.
        writer: Name and version of the program that wrote it.
        metadata: The string metadata of the source.
        source: Name and format of the source, what was left out of it, and the like; for people.
        version: Version of the format.
        grid: What is said of tensors on grids, or None if there are none.
        versions: What the source says of its modules, by their names.
        requires: Features that a reader must know.
    """

    entries: tuple[Entry, ...]
    bases: tuple[BaseRecord, ...]
    streams: tuple[StreamRecord, ...]
    mosaic: MosaicRecord | None
    writer: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    version: tuple[int, int] = VERSION
    grid: GridRecord | None = None
    versions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    header: str = ""

    @cached_property
    def stream_of(self) -> Mapping[int, int]:
        """The stream of each base that is no copy."""
        return {base: at for at, stream in enumerate(self.streams) for base in stream.bases}

    def stored(self, base: int) -> str:
        """How a base is stored: ``"mosaic"``, ``"grid"``, ``"exact"`` or ``"copy"``."""
        return self.streams[self.stream_of[base]].kind if base in self.stream_of else "copy"

    def members(self, kind: Kind = "mosaic") -> tuple[int, ...]:
        """The bases of the mosaic (or those stored in another way), in the order of its blocks."""
        return tuple(
            base for stream in self.streams if stream.kind == kind for base in stream.bases
        )


def encode_document(document: Document) -> bytes:
    """The document as compressed JSON."""
    mosaic = document.mosaic
    record: dict[str, Any] = {
        "requires": list(document.requires),
        "writer": document.writer,
        "mosaic": None if mosaic is None else _encode_mosaic(mosaic),
        "grid": None if document.grid is None else dataclasses.asdict(document.grid),
        "bases": [_encode_base(base) for base in document.bases],
        "streams": [
            {
                "kind": stream.kind,
                "bases": list(stream.bases),
                "bytes": stream.nbytes,
                "digest": stream.digest,
            }
            for stream in document.streams
        ],
        "tensors": [_encode_entry(entry) for entry in document.entries],
        "metadata": dict(document.metadata),
        "source": dict(document.source),
    }
    if document.versions:
        record["modules"] = {name: dict(each) for name, each in document.versions.items()}
    if document.header:
        record["header"] = document.header
    return zstandard.ZstdCompressor(level=_LEVEL).compress(_to_json(record))


def _to_json(record: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; only where a name holds half a surrogate pair, which UTF-8 does not have, with
    everything beyond ASCII escaped."""

    def dump(*, ascii_only: bool) -> bytes:
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=ascii_only, allow_nan=False)
        return text.encode()

    try:
        return dump(ascii_only=False)
    except UnicodeEncodeError:
        return dump(ascii_only=True)


def _encode_mosaic(mosaic: MosaicRecord) -> dict[str, Any]:
    record = {
        "block_size": mosaic.block_size,
        "motifs": mosaic.motifs,
        "requested_motifs": mosaic.requested_motifs,
        "blocks": mosaic.blocks,
        "dtype": mosaic.dtype,
        "index": mosaic.index,
        "digest": mosaic.digest,
        "exact": mosaic.exact,
        "settings": dict(mosaic.settings),
    }
    if mosaic.index == "prefix":
        record["code_lengths"] = list(mosaic.code_lengths)
    return record


def _encode_base(base: BaseRecord) -> dict[str, Any]:
    record: dict[str, Any] = {"dtype": base.dtype, "elements": base.elements}
    if base.copy_of is not None:
        record["of"] = base.copy_of
    if base.error is not None:
        record["error"] = base.error
    return record


def _encode_entry(entry: Entry) -> dict[str, Any]:
    record: dict[str, Any] = {"name": entry.name, "shape": list(entry.shape), "base": entry.base}
    if entry.strides is not None:
        record["offset"] = entry.offset
        record["strides"] = list(entry.strides)
    return record


def check_version(text: str, source: str) -> tuple[int, int]:
    """Reads a version, ``major.minor``.

    Raises:
        UnsupportedVersionError: If it is of another major version.
        CorruptionError: If it is no version.
    """
    major, dot, minor = text.partition(".")
    if not (dot and _is_number(major) and _is_number(minor)):
        raise CorruptionError(f"{source} is of format version {text!r}, which is none")
    version = int(major), int(minor)
    if version[0] != VERSION[0]:
        raise UnsupportedVersionError(
            f"{source} is of format version {text}; this version of momos reads {VERSION[0]}.x "
            "(upgrade momos_rs to read it)"
            if version[0] > VERSION[0]
            else f"{source} is of format version {text}, which momos no longer reads (it reads "
            f"{VERSION[0]}.x)"
        )
    return version


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def decode_document(
    data: bytes, *, version: tuple[int, int], source: str, file_size: int, max_bytes: int | None
) -> Document:
    """Reads and checks a document.

    Args:
        data: The compressed JSON.
        version: The version of the archive.
        source: Name of the file, for messages.
        file_size: Bytes of the whole file, by which announced sizes are judged.
        max_bytes: Most decoded bytes to accept, or None for the default limits.

    Raises:
        UnsupportedVersionError: If the archive needs a feature this reader does not know.
        CorruptionError: If the document contradicts itself.
    """
    decoder = _Decoder(source, file_size, max_bytes)
    try:
        return decoder.document(json.loads(_decompress(data, decoder)), version)
    except (ValueError, RecursionError) as error:
        raise decoder.fail(str(error)) from None


def _decompress(data: bytes, decoder: _Decoder) -> bytes:
    try:
        size = zstandard.get_frame_parameters(data).content_size
        limit = min(MAX_DOCUMENT_BYTES, FREE_DOCUMENT_BYTES + DOCUMENT_EXPANSION * len(data))
        if size > limit:
            raise decoder.fail(f"it announces {size} bytes, over the {limit} allowed")
        text: bytes = zstandard.ZstdDecompressor().decompress(
            data, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise decoder.fail(str(error)) from None
    if len(text) != size:
        raise decoder.fail("it is not complete")
    return text


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

    def document(self, record: object, version: tuple[int, int]) -> Document:
        requires = self.field(record, "requires", list)
        for feature in requires:
            if not isinstance(feature, str):
                raise self.fail("'requires' holds something that is not text")
            if feature not in FEATURES:
                raise UnsupportedVersionError(
                    f"{self.source} needs the feature {feature!r:.100}, which this momos "
                    "does not have (upgrade momos_rs to read it)"
                )
        mosaic = record["mosaic"] if isinstance(record, dict) and "mosaic" in record else {}
        grid = record["grid"] if isinstance(record, dict) and "grid" in record else {}
        bases = tuple(self.base(base) for base in self.field(record, "bases", list))
        self.check_copies(bases)
        self.check_size(bases)
        streams = tuple(
            self.stream(stream, bases) for stream in self.field(record, "streams", list)
        )
        self.check_streams(streams, bases)
        result = Document(
            entries=self.entries(self.field(record, "tensors", list), bases),
            bases=bases,
            streams=streams,
            mosaic=None if mosaic is None else self.mosaic(mosaic, bases, streams),
            writer=self.field(record, "writer", str),
            metadata=self.field(record, "metadata", dict),
            source=self.field(record, "source", dict),
            version=version,
            grid=None if grid is None else self.grid(grid),
            versions=self.versions(record),
            requires=tuple(requires),
            header=self.field(record, "header", str)
            if isinstance(record, dict) and "header" in record
            else "",
        )
        if not all(isinstance(value, str) for value in result.metadata.values()):
            raise self.fail("'metadata' holds something that is not text")
        if mosaic is None and result.members():
            raise self.fail("tensors are part of a mosaic that is not there")
        if bool(result.members("grid")) != (grid is not None):
            raise self.fail("there is a grid without tensors, or there are tensors without a grid")
        return result

    def versions(self, record: object) -> dict[str, dict[str, Any]]:
        if not isinstance(record, dict) or "modules" not in record:
            return {}
        versions: dict[str, dict[str, Any]] = self.field(record, "modules", dict)
        for said in versions.values():
            if not isinstance(said, dict) or any(
                isinstance(value, (dict, list)) for value in said.values()
            ):
                raise self.fail("'modules' holds something else than what is said of modules")
        return versions

    def base(self, record: object) -> BaseRecord:
        name = self.field(record, "dtype", str)
        if name not in DTYPES:
            raise UnsupportedVersionError(
                f"{self.source} holds elements of type {name!r}, which this version of momos "
                "does not know"
            )
        is_copy = isinstance(record, dict) and "of" in record
        return BaseRecord(
            name,
            self.count(record, "elements"),
            self.count(record, "of") if is_copy else None,
            self.error(record),
        )

    def error(self, record: object) -> float | None:
        if not isinstance(record, dict) or "error" not in record:
            return None
        error = record["error"]
        if type(error) not in (int, float) or not 0 <= error < math.inf:
            raise self.fail("'error' is no error")
        return float(error)

    def stream(self, record: object, bases: tuple[BaseRecord, ...]) -> StreamRecord:
        kind = self.field(record, "kind", str)
        if kind not in SECTIONS:
            raise UnsupportedVersionError(
                f"{self.source} holds a stream of kind {kind!r}, which this version of momos does "
                "not know"
            )
        members = self.counts(record, "bases")
        if any(member >= len(bases) for member in members) or not members:
            raise self.fail("a stream holds a base that is not there")
        types = {bases[member].dtype for member in members}
        if len(types) != 1 or (kind != "exact" and len(members) != 1):
            raise self.fail(f"bases {list(members)} cannot share a stream")
        if kind != "exact" and not types <= set(MOSAIC_DTYPES):
            raise self.fail(f"base {members[0]} of type {types.pop()} is part of the mosaic")
        return StreamRecord(
            kind, members, self.count(record, "bytes"), self.field(record, "digest", str)
        )

    def check_streams(
        self, streams: tuple[StreamRecord, ...], bases: tuple[BaseRecord, ...]
    ) -> None:
        stored = [base for stream in streams for base in stream.bases]
        expected = [index for index, base in enumerate(bases) if base.copy_of is None]
        if sorted(stored) != expected:
            raise self.fail("the bases are not stored once each")

    def check_copies(self, bases: tuple[BaseRecord, ...]) -> None:
        for index, base in enumerate(bases):
            if base.copy_of is None:
                continue
            if base.copy_of >= index:
                raise self.fail(f"base {index} copies base {base.copy_of}, which comes later")
            original = bases[base.copy_of]
            if original.copy_of is not None or (original.dtype, original.elements) != (
                base.dtype,
                base.elements,
            ):
                raise self.fail(f"base {index} cannot be a copy of base {base.copy_of}")

    def check_size(self, bases: tuple[BaseRecord, ...]) -> None:
        self.check_total(base.nbytes for base in bases)

    def check_total(self, sizes: Iterable[int]) -> None:
        total = sum(sizes)
        limit = self.max_bytes
        if limit is None:
            limit = MAX_FREE_BYTES + MAX_EXPANSION * self.file_size
        if total > limit:
            raise CorruptionError(
                f"{self.source} announces {total} bytes of tensors, but its {self.file_size} bytes "
                f"justify {limit} at most (max_bytes= accepts more from a source you trust)"
            )

    def mosaic(
        self, record: object, bases: tuple[BaseRecord, ...], streams: tuple[StreamRecord, ...]
    ) -> MosaicRecord:
        block_size = self.count(record, "block_size")
        name = self.field(record, "dtype", str)
        if name not in MOSAIC_DTYPES:
            raise self.fail(f"motifs of type {name}")
        motifs = self.count(record, "motifs")
        index = self.field(record, "index", str)
        if index not in ("prefix", "path"):
            raise UnsupportedVersionError(
                f"{self.source} codes its indices by {index!r}, which this version of momos does "
                "not know"
            )
        lengths = self.counts(record, "code_lengths") if index == "prefix" else ()
        if len(lengths) > MAX_CODE_LENGTHS:
            raise self.fail(f"a code of {len(lengths) - 1} bits")
        if index == "prefix" and motifs != sum(lengths):
            raise self.fail(f"{motifs} motifs have {sum(lengths)} codes")
        if motifs * block_size * DTYPES[name].itemsize > MAX_EXPANSION * self.file_size:
            raise self.fail(f"{motifs} motifs of {block_size} values do not fit the file")
        blocks = sum(
            _core.block_count(bases[base].elements, block_size)
            for stream in streams
            if stream.kind == "mosaic"
            for base in stream.bases
        )
        if blocks != self.count(record, "blocks"):
            raise self.fail(f"the tensors of the mosaic have {blocks} blocks")
        return MosaicRecord(
            block_size=block_size,
            motifs=motifs,
            requested_motifs=self.count(record, "requested_motifs"),
            blocks=blocks,
            dtype=name,
            index=index,
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
        self.check_total(
            max(bases[entry.base].nbytes, entry.numel * DTYPES[bases[entry.base].dtype].itemsize)
            for entry in entries
            if entry.strides is not None  # which may show an element any number of times
        )
        return entries

    def entry(self, record: object, bases: tuple[BaseRecord, ...]) -> Entry:
        name = self.field(record, "name", str)
        shape = self.counts(record, "shape")
        base = self.count(record, "base")
        if base >= len(bases) or len(shape) > MAX_RANK:
            raise self.fail(f"tensor {name!r:.200} cannot be")
        elements = bases[base].elements
        strides = None
        offset = 0
        if isinstance(record, dict) and "strides" in record:
            offset, strides = self.count(record, "offset"), self.counts(record, "strides")
            reach = sum((size - 1) * step for size, step in zip(shape, strides, strict=False))
            if len(strides) != len(shape) or (0 not in shape and offset + reach >= elements):
                raise self.fail(f"tensor {name!r:.200} reaches beyond its base")
        elif math.prod(shape) != elements:
            raise self.fail(f"tensor {name!r:.200} has not the size of its base")
        return Entry(name, shape, base, offset, strides)


_KIND_NAMES = {
    bool: "true or false",
    dict: "an object",
    int: "an integer",
    list: "a list",
    str: "text",
}
