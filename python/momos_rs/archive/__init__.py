"""The ``.momos`` archive: a safetensors file whose sections are the streams of a mosaic.

``docs/format.md`` is the normative description.
"""

from .parts import PIECES_DECODED
from .reader import Archive, open_archive
from .writer import ArchiveSummary

__all__ = ["PIECES_DECODED", "Archive", "ArchiveSummary", "open_archive"]
