"""Which models a list of paths stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from momos_rs.errors import InvalidArgumentError

__all__ = ["MODEL_SUFFIXES", "expand_models", "natural_order", "short_names"]

MODEL_SUFFIXES = (".bin", ".ckpt", ".momos", ".pt", ".pth", ".safetensors", ".ts")
INDEX_SUFFIX = ".index.json"


def expand_models(paths: Sequence[Path]) -> list[Path]:
    """The models at these paths: files as they are, folders as the models in them.

    A folder with a ``*.index.json``, or with files that share a single model (one file, or the
    shards of an index), is one model; in other folders every file with the suffix of a checkpoint
    or archive is one, and every folder within is looked into, in natural order.

    Raises:
        FileNotFoundError: If a path does not exist.
        InvalidArgumentError: If a folder holds no model.
    """
    models = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not path.is_dir():
            models.append(path)
            continue
        found = _in_folder(path)
        if not found:
            raise InvalidArgumentError(
                f"{path} holds no model; its files end in none of {', '.join(MODEL_SUFFIXES)}"
            )
        models += found
    return models


def _in_folder(folder: Path) -> list[Path]:
    children = sorted(folder.iterdir(), key=lambda path: natural_order(path.name))
    if any(child.name.endswith(INDEX_SUFFIX) for child in children):
        return [folder]
    models = []
    for child in children:
        if child.is_dir():
            models += _in_folder(child)
        elif child.suffix in MODEL_SUFFIXES:
            models.append(child)
    return models


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A key that sorts ``epoch-9`` before ``epoch-10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell paths apart: without what all of them have in common at the start."""
    if len(paths) == 1:
        return [str(paths[0])]
    parts = [path.parts for path in paths]
    common = 0
    while all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    return [str(Path(*each[common:])) for each in parts]
