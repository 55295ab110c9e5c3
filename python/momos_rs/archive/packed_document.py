"""The document as a section of its own, compressed.

Small models have so few weights per tensor that a plain document would take a good part of the
archive. Then the metadata holds a stub that names the version and the features, so that a reader
that cannot read the rest can say why, and the digest of the section that holds the rest.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from .. import _core
from ..errors import CorruptionError, UnsupportedVersionError
from ..limits import MAX_DOCUMENT_BYTES

__all__ = ["DOCUMENT_SECTION", "PACKED_DOCUMENT", "pack_document", "stub_digest", "unpack_document"]

PACKED_DOCUMENT = "packed-document"
"""The feature an archive with such a section requires."""

DOCUMENT_SECTION = "document"

_ZSTD = 0
_LEVEL = 19


def pack_document(text: str) -> tuple[str, bytes]:
    """Splits a document into its stub and its section.

    Args:
        text: The document, as JSON.

    Returns:
        The stub, as JSON, and the section.
    """
    document = json.loads(text)
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
    section = bytes([_ZSTD]) + compressor.compress(text.encode())
    stub = {
        "version": document["version"],
        "requires": document["requires"],
        "document": _core.digest(np.frombuffer(section, np.uint8)),
    }
    return json.dumps(stub, separators=(",", ":")), section


def stub_digest(text: str) -> str | None:
    """The digest of the section that a stub points to; None if the document is not packed.

    Args:
        text: The document or stub, as JSON; what is wrong with it otherwise is found later.
    """
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and isinstance(record.get("document"), str):
        digest: str = record["document"]
        return digest
    return None


def unpack_document(section: npt.NDArray[np.uint8]) -> str:
    """The document in a section whose digest is right.

    Raises:
        CorruptionError: If the section is damaged.
        UnsupportedVersionError: If its codec is unknown.
    """
    if section[0] != _ZSTD:
        raise UnsupportedVersionError(f"document codec {section[0]} is not known to this version")
    frame = np.ascontiguousarray(section[1:]).data
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if not 0 < size <= MAX_DOCUMENT_BYTES:
            raise CorruptionError(f"a document of {size} bytes is not believable")
        text = zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=size, allow_extra_data=False
        )
        return text.decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise CorruptionError(f"the document cannot be read: {error}") from None
