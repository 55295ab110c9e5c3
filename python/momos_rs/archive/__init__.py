"""The ``.momos`` archive: a safetensors file whose sections are the streams of a mosaic.

``docs/format.md`` is the normative description.
"""

from .description import ArchiveInfo, describe
from .parts import PIECES_DECODED
from .reader import Archive, open_archive
from .verification import VerifyReport, verify_file
from .writer import ArchiveSummary

__all__ = [
    "PIECES_DECODED",
    "Archive",
    "ArchiveInfo",
    "ArchiveSummary",
    "VerifyReport",
    "describe",
    "open_archive",
    "verify_file",
]
