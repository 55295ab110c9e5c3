"""The records of a zip archive written by torch: a folder of pickles and raw storages."""

from __future__ import annotations

import mmap
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np

from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError

from .model import Bytes

__all__ = ["ZipRecords", "is_zip"]

_LOCAL_HEADER_BYTES = 30
_LOCAL_SIGNATURE = b"PK\3\4"
_MAX_DEFLATE_RATIO = 1032  # no deflated byte can stand for more


def is_zip(path: Path) -> bool:
    """Whether a file starts as zip archives do."""
    with path.open("rb") as file:
        return file.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE


class ZipRecords:
    """Read access to the records of one archive, by names within its folder.

    Stored records are views of the mapped file and live as long as they are referenced;
    compressed ones (an archive packed anew by hand) are decompressed.
    """

    def __init__(self, path: Path) -> None:
        """Opens an archive.

        Raises:
            InsufficientDataError: If its end is missing.
            InvalidArgumentError: If it is a zip archive of something else.
            OSError: If it cannot be read.
        """
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise InsufficientDataError(
                f"{path} is truncated or damaged: it starts as a torch file does, "
                "but the directory at its end is missing"
            ) from None
        except (ValueError, OverflowError, NotImplementedError) as error:
            raise CorruptionError(f"{path} has a damaged directory: {error}") from None
        names = self._zip.namelist()
        folders = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")]
        if not folders:
            self._zip.close()
            raise InvalidArgumentError(
                f"{path} is a zip archive but not one of torch: it holds no data.pkl"
            )
        self._folder = min(folders, key=len)
        with path.open("rb") as file:
            self._mapped = np.frombuffer(
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8
            )

    def __enter__(self) -> ZipRecords:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """Names of all records, without the folder."""
        start = len(self._folder)
        return [name[start:] for name in self._zip.namelist() if name.startswith(self._folder)]

    @property
    def compressed(self) -> bool:
        """Whether any record is compressed, so that it cannot be mapped."""
        return any(info.compress_type != zipfile.ZIP_STORED for info in self._zip.infolist())

    def read(self, name: str) -> Bytes:
        """The bytes of a record.

        Raises:
            CorruptionError: If the archive does not hold it, or not whole.
        """
        try:
            info = self._zip.getinfo(self._folder + name)
        except KeyError:
            raise CorruptionError(f"{self._path} lacks its record {name!r}") from None
        if info.compress_type == zipfile.ZIP_STORED:
            return self._stored(info)
        if info.file_size > _MAX_DEFLATE_RATIO * (info.compress_size + 1):
            raise CorruptionError(f"record {name!r} in {self._path} announces an impossible size")
        try:
            return np.frombuffer(self._zip.read(info), dtype=np.uint8)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise CorruptionError(f"record {name!r} in {self._path} is damaged: {error}") from None

    def _stored(self, info: zipfile.ZipInfo) -> Bytes:
        start = info.header_offset
        header = self._mapped[start : start + _LOCAL_HEADER_BYTES].tobytes()
        if start < 0 or header[:4] != _LOCAL_SIGNATURE or len(header) < _LOCAL_HEADER_BYTES:
            raise CorruptionError(
                f"record {info.filename!r} in {self._path} is not where it should"
            )
        start += _LOCAL_HEADER_BYTES
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        stop = start + info.file_size
        if stop > self._mapped.size:
            raise InsufficientDataError(
                f"{self._path} is truncated: record {info.filename!r} reaches beyond its end"
            )
        return self._mapped[start:stop]
