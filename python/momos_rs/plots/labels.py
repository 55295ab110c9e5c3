"""Names short enough for the margin of a picture, and still told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

__all__ = ["LABEL_LENGTH", "model_labels", "shortened", "tensor_labels"]

LABEL_LENGTH = 26
"""Characters that leave most of a column's width to the data."""

WEIGHT = ".weight"

COMMON_NAMES = ("best", "checkpoint", "final", "init", "last", "model", "pytorch_model")
"""Of files that only their folder tells apart."""


def tensor_labels(names: Sequence[str]) -> list[str]:
    """Labels of the tensors of a model.

    What all names begin with is left out, and so is the ``.weight`` that most of them end in,
    unless nothing but a number would remain.

    >>> tensor_labels(["net.0.weight", "net.1.conv.weight"])
    ['0.weight', '1.conv']
    """
    parts = [name.split(".") for name in names]
    common = _common(parts)
    whole = [".".join(each[common:]) for each in parts]
    bare = [each.removesuffix(WEIGHT) for each in whole]
    bare = [name if short.isdigit() else short for name, short in zip(whole, bare, strict=True)]
    return [shortened(each) for each in (bare if len(set(bare)) == len(bare) else whole)]


def model_labels(sources: Sequence[str]) -> list[str]:
    """Labels of models: paths without the folders and the suffix that do not tell them apart.

    >>> model_labels(["runs/a/final.pt", "runs/b/final.pt"])
    ['a/final', 'b/final']
    """
    paths = [PurePath(source) for source in sources]
    common = _common([path.parts for path in paths])
    if len(paths) == 1:
        common = max(len(paths[0].parts) - (2 if paths[0].stem in COMMON_NAMES else 1), 0)
    whole = [PurePath(*path.parts[common:]) if path.parts else path for path in paths]
    bare = [str(path.with_suffix("") if _has_suffix(path) else path) for path in whole]
    chosen = bare if len(set(bare)) == len(bare) else [str(path) for path in whole]
    return [shortened(each) for each in chosen]


def _has_suffix(path: PurePath) -> bool:
    from momos_rs.complexity.collection import MODEL_SUFFIXES

    return path.suffix in MODEL_SUFFIXES


def _common(parts: Sequence[Sequence[str]]) -> int:
    """How many parts all of several have in common at the start, the last one not counted."""
    if len(parts) < 2:
        return 0
    common = 0
    while all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    return common


def shortened(name: str, length: int = LABEL_LENGTH) -> str:
    """A name of at most ``length`` characters.

    Words between dots are cut to their first letter, from the left, as far as need be: numbers and
    the last word tell tensors apart. What is still too long loses its middle.

    >>> shortened("encoder.layer.10.attention.self.query")
    'e.l.10.a.self.query'
    """
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= length:
            break
        if part.isidentifier():
            parts[index] = part[0]
    name = ".".join(parts)
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"
