"""Writing files so that a failed run leaves nothing behind and overwrites nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_target", "replacing"]


def check_target(path: Path, *, overwrite: bool) -> None:
    """Fails early, before any work, if :func:`replacing` would fail.

    Raises:
        FileExistsError: If the target exists and may not be overwritten.
        IsADirectoryError: If the target is a directory.
        FileNotFoundError: If the directory of the target does not exist.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists; use --force (overwrite=True) to replace it")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"the directory {path.parent} does not exist; create it first")


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Opens a temporary sibling of ``path`` that takes its place when the block ends well.

    The sibling is synced to disk and renamed, so that ``path`` is at any moment either what it
    was or complete; if the block raises, the sibling is removed and ``path`` is untouched.

    Args:
        path: The file to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OSError: As :func:`check_target`, and whatever writing raises.
    """
    check_target(path, overwrite=overwrite)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=".partial", dir=path.absolute().parent
    )
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; the result gets the permissions any new file would.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        if overwrite:
            temporary.replace(path)
        else:
            # A link fails if the target appeared meanwhile, which a rename would silently replace.
            _link_or_replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    _sync_directory(path.absolute().parent)


def _link_or_replace(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise FileExistsError(
            f"{path} exists; use --force (overwrite=True) to replace it"
        ) from None
    except OSError:  # a file system without hard links
        check_target(path, overwrite=False)
        temporary.replace(path)


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a directory be synced
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
