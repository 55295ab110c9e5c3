"""Reads checkpoints in several files, as Hugging Face libraries write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from momos_rs.errors import CorruptionError, InvalidArgumentError

from .model import Base, Checkpoint, Entry

__all__ = ["find_in_folder", "is_index", "read_sharded"]

_INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")  # a variant may stand in between

_USUAL_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_TRAINING_FILES = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
_MAX_INDEX_BYTES = 100_000_000


def find_in_folder(folder: Path) -> Path:
    """The file that stands for a folder: one of the usual names, or the only one of weights.

    Raises:
        InvalidArgumentError: If there is none, or no telling which.
    """
    for name in _USUAL_FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(each for each in folder.iterdir() if each.is_file())
    indices = [each for each in files if is_index(each.name)]
    weights = [
        each
        for each in files
        if each.suffix.lower() in _SUFFIXES and not each.name.startswith(_TRAINING_FILES)
    ]
    candidates = indices or weights
    if not candidates:
        raise InvalidArgumentError(
            f"{folder} is a folder without weights; a file ending in one of "
            f"{', '.join(_SUFFIXES)} or .index.json is expected"
        )
    if len(candidates) > 1:
        names = ", ".join(each.name for each in candidates[:5])
        more = ", ..." if len(candidates) > 5 else ""
        raise InvalidArgumentError(
            f"{folder} holds {len(candidates)} files of weights ({names}{more}); name one of them"
        )
    return candidates[0]


def is_index(name: str) -> bool:
    """Whether a file of that name lists shards: ``*.index.json``, or with the name of a variant,
    ``*.index.fp16.json``."""
    return _INDEX.search(name) is not None


def read_sharded(index: Path, read_shard: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Reads the shards that an index lists.

    Args:
        index: The ``*.index.json`` file; its ``weight_map`` gives the file of each tensor, in
            the order of the result. Tensors that it does not list are left out.
        read_shard: Reads one file.

    Raises:
        CorruptionError: If the index is not as it should be, or a tensor is not in its shard.
        FileNotFoundError: If a shard is missing.
    """
    weight_map = _read_index(index)
    shards: dict[str, Checkpoint] = {}
    for name, file in weight_map.items():
        if file not in shards:
            path = index.parent / _confined(file, index)
            if not _is_file(path):
                raise FileNotFoundError(
                    f"{path!s:.400} is missing, which {index} lists for {name!r:.100}"
                )
            shards[file] = read_shard(path)

    by_name = {
        file: {entry.name: entry for entry in shard.entries} for file, shard in shards.items()
    }
    numbers: dict[tuple[str, int], int] = {}
    entries: list[Entry] = []
    bases: list[Base] = []
    for name, file in weight_map.items():
        entry = by_name[file].pop(name, None)
        if entry is None:
            raise CorruptionError(
                f"{index.parent / file} lacks tensor {name!r}, which {index} lists"
            )
        key = (file, entry.base)
        if key not in numbers:
            numbers[key] = len(bases)
            bases.append(shards[file].bases[entry.base])
        entries.append(Entry(name, entry.shape, numbers[key], entry.offset, entry.strides))

    left_out = [f"{file}: {path}" for file, shard in shards.items() for path in shard.left_out]
    left_out += [f"{file}: {name}" for file, rest in by_name.items() for name in rest]
    metadata: dict[str, str] = {}
    versions: dict[str, dict[str, Any]] = {}
    for shard in reversed(shards.values()):
        metadata |= shard.metadata
        versions |= shard.versions
    formats = sorted({shard.format for shard in shards.values()})
    return Checkpoint(
        tuple(entries),
        tuple(bases),
        source=str(index),
        format="+".join(formats) or "safetensors",
        nbytes_on_disk=sum(shard.nbytes_on_disk or 0 for shard in shards.values()),
        left_out=tuple(left_out),
        metadata=metadata,
        versions=versions,
    )


def _read_index(index: Path) -> dict[str, str]:
    size = index.stat().st_size
    if size > _MAX_INDEX_BYTES:
        raise CorruptionError(f"{index} has {size} bytes, too many for an index")
    try:
        document = json.loads(index.read_bytes(), object_pairs_hook=_unique_pairs)
    except RecursionError:
        raise CorruptionError(f"{index} is nested too deeply") from None
    except ValueError as error:
        raise CorruptionError(f"{index} is not valid JSON: {error}") from None
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise CorruptionError(f"{index} has no weight_map of tensor names to file names")
    return weight_map


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file system has
        return False


def _confined(file: str, index: Path) -> Path:
    """The relative path of a shard, which may not leave the index's folder."""
    for path in (PurePosixPath(file), PureWindowsPath(file)):
        if path.is_absolute() or path.anchor or ".." in path.parts or "\0" in file:
            raise CorruptionError(f"{index} lists {file!r}, which is outside its folder")
    return Path(file)
