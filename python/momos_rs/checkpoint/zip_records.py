"""The records of a zip archive written by torch: a folder of pickles and raw storages.

What the directory says is believed only once it has been checked: a record lies where its own
header is, under its own name, apart from all others, and has the length and the checksum that it
should.
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np

from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError
from momos_rs.limits import MAX_INFLATED_BYTES, MAX_INFLATION

from .mapped_file import MappedFile
from .model import Bytes

__all__ = ["Record", "ZipRecords"]

_LOCAL_HEADER_BYTES = 30
_LOCAL_SIGNATURE = b"PK\3\4"
_MAX_DEFLATE_RATIO = 1032  # no deflated byte can stand for more
_ENCRYPTED = 1  # in the flags of a record
_PIECE = 1 << 22


class Record:
    """Where a stored record lies.

    Attributes:
        start: Its first byte in the file.
        nbytes: Its bytes.
    """

    def __init__(self, file: MappedFile, start: int, nbytes: int, crc: int, what: str) -> None:
        self.start = start
        self.nbytes = nbytes
        self._file = file
        self._crc = crc  # 0 where torch was told to compute none
        self._what = what
        self._whole = crc == 0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Checks the checksum, once.

        Raises:
            CorruptionError: If it is another.
        """
        with self._lock:
            if self._whole:
                return
            found = 0
            for first in range(0, self.nbytes, _PIECE):
                piece = self._file.read(self.start + first, min(_PIECE, self.nbytes - first))
                found = zlib.crc32(piece.data, found)
            if found != self._crc:
                raise CorruptionError(f"{self._what} is damaged: its checksum does not match")
            self._whole = True


class ZipRecords:
    """Read access to the records of one archive, by names within its folder."""

    def __init__(self, path: Path) -> None:
        """Opens an archive.

        Raises:
            InsufficientDataError: If its end is missing.
            CorruptionError: If its directory contradicts the file.
            InvalidArgumentError: If it is a zip archive of something else.
            OSError: If it cannot be read.
        """
        self._path = path
        self.file = MappedFile(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise InsufficientDataError(
                f"{path} is truncated or damaged: it starts as a torch file does, "
                "but the directory at its end is missing"
            ) from None
        except (ValueError, OverflowError, NotImplementedError) as error:
            raise CorruptionError(f"{path} has a damaged directory: {error}") from None
        try:
            self._infos = self._check_directory()
            folders = [
                name[: -len("data.pkl")] for name in self._infos if name.endswith("/data.pkl")
            ]
            if not folders:
                raise InvalidArgumentError(
                    f"{path} is a zip archive but not one of torch: it holds no data.pkl"
                )
            self._folder = min(folders, key=len)
            self._check_inflation()
        except BaseException:
            self._zip.close()
            raise
        self._places: dict[str, Record] = {}

    def __enter__(self) -> ZipRecords:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def _check_directory(self) -> dict[str, zipfile.ZipInfo]:
        """The records by name, none of which lies within another."""
        infos: dict[str, zipfile.ZipInfo] = {}
        end = 0
        for info in sorted(self._zip.infolist(), key=lambda each: each.header_offset):
            if info.filename in infos:
                raise CorruptionError(f"{self._path} holds {info.filename!r:.100} twice")
            if info.header_offset < end:
                raise CorruptionError(
                    f"record {info.filename!r:.100} in {self._path} overlaps the one before it"
                )
            end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size
            infos[info.filename] = info
        if end > self._zip.start_dir:
            raise CorruptionError(f"the last record in {self._path} overlaps the directory")
        return {info.filename: infos[info.filename] for info in self._zip.infolist()}

    def _check_inflation(self) -> None:
        infos = self._infos.values()
        total = sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED)
        limit = MAX_INFLATED_BYTES + MAX_INFLATION * self.file.size
        if total > limit:
            raise CorruptionError(
                f"{self._path} announces {total} bytes of compressed records, but its "
                f"{self.file.size} bytes justify {limit} at most; unzip it and zip it again "
                "without compression if you trust the source"
            )

    def names(self) -> list[str]:
        """Names of all records, without the folder."""
        start = len(self._folder)
        return [name[start:] for name in self._infos if name.startswith(self._folder)]

    def read(self, name: str) -> Bytes:
        """The bytes of a record, its checksum checked.

        Raises:
            CorruptionError: If the archive does not hold it, or not whole.
        """
        info = self._info(name)
        if info.compress_type == zipfile.ZIP_STORED:
            record = self.place(name)
            record.check()
            return self.file.read(record.start, record.nbytes)
        what = f"record {name!r:.100} in {self._path}"
        if info.compress_type != zipfile.ZIP_DEFLATED or info.flag_bits & _ENCRYPTED:
            raise CorruptionError(f"{what} is compressed or encrypted in a way torch never writes")
        if info.file_size > _MAX_DEFLATE_RATIO * (info.compress_size + 1):
            raise CorruptionError(f"{what} announces an impossible size")
        try:
            return np.frombuffer(self._zip.read(info), dtype=np.uint8)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            RuntimeError,
            ValueError,
            NotImplementedError,
        ) as error:
            raise CorruptionError(f"{what} is damaged: {error}") from None

    def stored(self, name: str) -> bool:
        """Whether a record is stored as it is, so that it has a :meth:`place`.

        Raises:
            CorruptionError: If the archive does not hold it.
        """
        return self._info(name).compress_type == zipfile.ZIP_STORED

    def place(self, name: str) -> Record:
        """Where a stored record lies.

        Raises:
            CorruptionError: If it is not where the directory says.
        """
        if name not in self._places:
            self._places[name] = self._find(self._info(name))
        return self._places[name]

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = self._infos.get(self._folder + name)
        if info is None:
            raise CorruptionError(f"{self._path} lacks its record {name!r:.100}")
        return info

    def _find(self, info: zipfile.ZipInfo) -> Record:
        what = f"record {info.filename!r:.100} in {self._path}"
        misplaced = CorruptionError(f"{what} is not where it should")
        start = info.header_offset
        if not 0 <= start <= self.file.size - _LOCAL_HEADER_BYTES:
            raise misplaced
        header = self.file.read(start, _LOCAL_HEADER_BYTES).tobytes()
        if not header.startswith(_LOCAL_SIGNATURE):
            raise misplaced
        name_bytes = int.from_bytes(header[26:28], "little")
        start += _LOCAL_HEADER_BYTES
        stop = start + name_bytes + int.from_bytes(header[28:30], "little")
        if stop + info.file_size > self._end_of(info):
            raise InsufficientDataError(f"{what} is truncated: it reaches beyond its end")
        name = self.file.read(start, name_bytes).tobytes()
        if name != getattr(info, "orig_filename", info.filename).encode(
            "utf-8" if info.flag_bits & 0x800 else "cp437", "replace"
        ):
            raise misplaced
        if info.flag_bits & _ENCRYPTED or info.compress_size != info.file_size:
            raise CorruptionError(f"{what} has two lengths")
        return Record(self.file, stop, info.file_size, info.CRC, what)

    def _end_of(self, info: zipfile.ZipInfo) -> int:
        """Where the next record, or the directory, begins."""
        if not hasattr(self, "_ends"):
            offsets = sorted(each.header_offset for each in self._infos.values())
            self._ends = dict(zip(offsets, [*offsets[1:], self._zip.start_dir], strict=True))
        return self._ends[info.header_offset]
