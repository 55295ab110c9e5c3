"""How much the errors of weights matter: read from a file, by name of a tensor or of a weight."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from momos_rs import checkpoint
from momos_rs.checkpoint.model import Checkpoint
from momos_rs.errors import CorruptionError, InvalidArgumentError

from .methods import Sensitivity

__all__ = ["by_base", "read_sensitivity"]


def read_sensitivity(path: str | os.PathLike[str]) -> dict[str, Sensitivity]:
    """Reads importances from a file.

    Args:
        path: A JSON object of names and numbers, or any checkpoint that momos reads whose tensors
            are the importance of each element of the tensor of the same name, or one number for
            all of it.

    Returns:
        By name, a number or as many as the tensor has elements (float32).

    Raises:
        OSError: If the file cannot be read.
        CorruptionError: If it is damaged.
        InvalidArgumentError: If it holds something else than numbers of at least 0.
    """
    path = Path(path)
    values = _from_json(path) if path.suffix == ".json" else _from_checkpoint(path)
    for name, value in values.items():
        if not (np.all(np.isfinite(value)) and np.all(np.asarray(value) >= 0)):
            raise InvalidArgumentError(
                f"{path}: the sensitivity of {name!r} is not a number of at least 0 everywhere"
            )
    return values


def by_base(
    model: Checkpoint, members: Sequence[int], sensitivity: Mapping[str, Sensitivity]
) -> dict[int, Sensitivity]:
    """The importances of some bases of a model.

    Args:
        model: The model.
        members: The bases in question.
        sensitivity: By name of a tensor.

    Raises:
        InvalidArgumentError: If a base has none, or its number of values is wrong.
    """
    result: dict[int, Sensitivity] = {}
    for index in members:
        names = [
            entry.name for entry in model.entries if entry.base == index and entry.strides is None
        ]
        name = next((name for name in names if name in sensitivity), None)
        if name is None:
            raise InvalidArgumentError(
                f"the sensitivity names no value for {names[0] if names else 'a view'!r}"
            )
        value = sensitivity[name]
        elements = model.bases[index].numel
        if not isinstance(value, (int, float)) and np.asarray(value).size != elements:
            raise InvalidArgumentError(
                f"the sensitivity of {name!r} has {np.asarray(value).size} values for "
                f"{elements} weights"
            )
        result[index] = value
    return result


def _from_json(path: Path) -> dict[str, Sensitivity]:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptionError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(record, dict) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in record.values()
    ):
        raise InvalidArgumentError(f"{path} is not an object of names and numbers")
    return {name: float(value) for name, value in record.items()}


def _from_checkpoint(path: Path) -> dict[str, Sensitivity]:
    from momos_rs.checkpoint import to_state_dict

    model = checkpoint.read(path)
    tensors = to_state_dict(model)
    result: dict[str, Sensitivity] = {}
    for name, tensor in tensors.items():
        values: npt.NDArray[np.float32] = tensor.detach().float().cpu().numpy().reshape(-1)
        result[name] = float(values[0]) if values.size == 1 else values
    return result
