"""Writing files so that a failed run leaves nothing behind and overwrites nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_target", "replacing"]

_NAME_PART = 40  # characters of the target's name in the temporary one, well below NAME_MAX


def check_target(path: Path, *, overwrite: bool) -> None:
    """Fails early, before any work, if :func:`replacing` would fail.

    Raises:
        FileExistsError: If the target exists and may not be overwritten.
        IsADirectoryError: If the target is a directory.
        OSError: If the target is a device, a pipe or a socket.
        FileNotFoundError: If the directory of the target does not exist.
        PermissionError: If that directory may not be written to.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file and cannot be replaced; name another")
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    folder = _resolved(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the directory {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"there is no permission to write to the directory {folder}")


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Opens a temporary sibling of ``path`` that takes its place when the block ends well.

    The sibling is synced to disk and renamed, so that ``path`` is at any moment either what it
    was or complete; if the block raises, the sibling is removed and ``path`` is untouched. A
    symbolic link stays one, what it points to is replaced. A replaced file keeps its permissions,
    a new one gets what the umask leaves.

    Args:
        path: The file to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OSError: As :func:`check_target`, and whatever writing raises.
    """
    check_target(path, overwrite=overwrite)
    target = _resolved(path)
    permissions = _permissions(target)
    # While it is written, nobody may read what the file it replaces kept from them. The mode of a
    # new file goes through the umask, which cannot be asked for without setting it.
    mode = 0o666 if permissions is None else 0o600
    temporary = target.with_name(f".{target.name[:_NAME_PART]}.{secrets.token_hex(8)}.partial")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:  # before the file is there, since a signal may come right behind
        descriptor = os.open(temporary, flags, mode)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if permissions is not None:
            temporary.chmod(permissions)
        if overwrite:
            temporary.replace(target)
        else:
            _place_anew(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    _sync_directory(target.parent)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"{path} exists; use --force (overwrite=True) to replace it")


def _resolved(path: Path) -> Path:
    """The file itself: the target of a symbolic link, existing or not."""
    return Path(os.path.realpath(path))


def _permissions(target: Path) -> int | None:
    try:
        return stat.S_IMODE(target.stat().st_mode) & 0o777
    except FileNotFoundError:
        return None


def _place_anew(temporary: Path, target: Path) -> None:
    """Gives a finished file its name, unless something has taken the name meanwhile."""
    try:
        os.link(temporary, target)  # unlike a rename, it fails if the target exists
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without hard links
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise _exists(target) from None
        try:
            temporary.replace(target)  # only over the empty file that holds the place
        except BaseException:
            target.unlink()
            raise


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a directory be synced
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
