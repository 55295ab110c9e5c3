"""What a model is fed with: the result of calibration, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs.checkpoint.model import Checkpoint
from momos_rs.errors import CorruptionError, InvalidArgumentError
from momos_rs.runtime.atomic_file import replacing

__all__ = ["Calibration", "LayerInputs", "Moments"]

FORMAT = "momos.calibration"
VERSION = 1

Array: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of the inputs of one or more layers.

    Attributes:
        sums: Sums of outer products of inputs, shape (groups, width, width), or only their
            diagonals, shape (groups, width); float64. For an embedding, how often each row was
            used, shape (1, rows).
        count: Number of inputs.
    """

    sums: Array
    count: int

    @property
    def width(self) -> int:
        """Values of one input."""
        return int(self.sums.shape[1])

    @property
    def diagonal(self) -> bool:
        """Whether only the diagonal is known."""
        return self.sums.ndim == 2


@dataclass(frozen=True)
class LayerInputs:
    """What one weight is multiplied with.

    Attributes:
        kind: The kind of layer: ``"Linear"``, ``"Embedding"``, ...
        shape: The weight's shape.
        moments: Names of moments, one for each of equal parts of the weight's rows.
        rows: Whether they are uses of rows, not moments of inputs.
    """

    kind: str
    shape: tuple[int, ...]
    moments: tuple[str, ...]
    rows: bool = False


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the weights of a model are used, on the inputs it was calibrated with.

    Attributes:
        model: The class of the model.
        samples: Number of samples seen.
        layers: By name of a weight, as in the state dict.
        moments: By name; layers with the same input share theirs.
        gradients: By name of a weight, the mean square of the gradient of the model's outputs with
            respect to it, summed over the inputs of each row: float64, one value per row. Empty if
            gradients were not asked for.
        notes: Remarks: what was left out and why.
        ties: Names that stand for one weight; a file may hold it under any of them.
    """

    model: str
    samples: int
    layers: Mapping[str, LayerInputs]
    moments: Mapping[str, Moments]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        """The model, and how much is known of it."""
        return f"Calibration({self.model}, {self.samples} samples, {len(self.layers)} layers)"

    def check(self, model: Checkpoint) -> None:
        """Checks that this is a calibration of a model.

        Args:
            model: The model.

        Raises:
            InvalidArgumentError: If a tensor is missing or has another shape.
        """
        shapes = {entry.name: entry.shape for entry in model.entries}
        for name, layer in self.layers.items():
            if shapes.get(name) == layer.shape:
                continue
            if name not in shapes and (
                self._is_tied(name, shapes) or self._is_optional(name, shapes)
            ):
                continue
            found = f"is of shape {shapes[name]}" if name in shapes else "is not in the model"
            raise InvalidArgumentError(
                f"the calibration is of another model: {name!r} is of shape {layer.shape} in "
                f"{self.model}, but {found} ({model.source}); calibrate this model first"
            )

    def names_of(self, names: Sequence[str]) -> list[str]:
        """Names with all those that stand for the same weight."""
        more = [each for tie in self.ties if set(tie) & set(names) for each in tie]
        return list(dict.fromkeys([*names, *more]))

    def _is_tied(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether a weight is there under another name."""
        return any(shapes.get(each) == self.layers[name].shape for each in self.names_of([name]))

    def _is_optional(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether a tensor need not be there as long as another one of its layer is."""
        stem = name.rpartition("parametrizations.")[0] if "parametrizations." in name else ""
        if not stem:
            stem = name.rpartition(".")[0] + "."
        return any(
            other.startswith(stem) and other != name and shapes.get(other) == layer.shape
            for other, layer in self.layers.items()
            if layer.moments == self.layers[name].moments
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Saves to a safetensors file: names and counts in its metadata, sums as tensors.

        Second moments are symmetric, so only their lower triangles are stored, as float32.

        Args:
            path: The file.
            overwrite: Whether an existing file may be replaced.

        Raises:
            OSError: If the file cannot be written.
        """
        from safetensors.numpy import save

        tensors: dict[str, npt.NDArray[Any]] = {}
        for name, moments in self.moments.items():
            tensors[f"moments/{name}"] = _packed(moments.sums)
        for name, gradient in self.gradients.items():
            tensors[f"gradients/{name}"] = gradient
        document = {
            "version": VERSION,
            "model": self.model,
            "samples": self.samples,
            "notes": list(self.notes),
            "ties": [list(each) for each in self.ties],
            "layers": {
                name: {
                    "kind": layer.kind,
                    "shape": list(layer.shape),
                    "moments": list(layer.moments),
                    "rows": layer.rows,
                }
                for name, layer in self.layers.items()
            },
            "moments": {
                name: {"count": moments.count, "shape": list(moments.sums.shape)}
                for name, moments in self.moments.items()
            },
        }
        data = save(tensors, {FORMAT: json.dumps(document)})
        with replacing(Path(path), overwrite=overwrite) as file:
            file.write(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Loads what :meth:`save` saved.

        Args:
            path: The file.

        Raises:
            OSError: If the file cannot be read.
            CorruptionError: If it is damaged or not a calibration.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        with path.open("rb"):
            pass
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise CorruptionError(f"{path} is damaged or no calibration: {error}") from None
        if FORMAT not in metadata:
            raise CorruptionError(
                f"{path} is not a calibration; momos calibrate and Calibration.save write them"
            )
        try:
            return cls._from_document(json.loads(metadata[FORMAT]), tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptionError(f"{path} is damaged: {error}") from None

    @classmethod
    def _from_document(
        cls, document: dict[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Calibration:
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']} of calibrations is not known")
        moments = {
            name: Moments(
                _unpacked(tensors[f"moments/{name}"], tuple(map(int, each["shape"]))),
                int(each["count"]),
            )
            for name, each in document["moments"].items()
        }
        layers = {
            name: LayerInputs(
                str(each["kind"]),
                tuple(map(int, each["shape"])),
                tuple(map(str, each["moments"])),
                bool(each["rows"]),
            )
            for name, each in document["layers"].items()
        }
        gradients = {
            name.removeprefix("gradients/"): np.asarray(each, np.float64)
            for name, each in tensors.items()
            if name.startswith("gradients/")
        }
        for name, layer in layers.items():
            _check_layer(name, layer, [moments[each] for each in layer.moments])
        for name, each in [*((n, m.sums) for n, m in moments.items()), *gradients.items()]:
            if not np.isfinite(each).all() or (each.ndim < 3 and (each < 0).any()):
                raise ValueError(f"{name!r} holds values that no sums can have")
        return cls(
            str(document["model"]),
            int(document["samples"]),
            layers,
            moments,
            gradients,
            tuple(map(str, document["notes"])),
            tuple(tuple(map(str, each)) for each in document["ties"]),
        )


def _check_layer(name: str, layer: LayerInputs, moments: list[Moments]) -> None:
    """Raises ValueError if moments cannot be those of a layer."""
    rows = layer.shape[0] if layer.shape else 0
    if not moments or not rows or any(each.count < 1 for each in moments):
        raise ValueError(f"{name!r} has no inputs")
    elements = int(np.prod(layer.shape))
    width = rows if layer.rows else elements // rows
    groups = sum(len(each.sums) for each in moments)
    if any(each.width != width for each in moments) or (not layer.rows and rows % groups):
        raise ValueError(f"{name!r} has inputs of another size")


def _packed(sums: Array) -> npt.NDArray[Any]:
    if sums.ndim == 2:
        return np.ascontiguousarray(sums)
    rows, columns = np.tril_indices(sums.shape[1])
    return np.ascontiguousarray(sums[:, rows, columns], np.float32)


def _unpacked(stored: npt.NDArray[Any], shape: tuple[int, ...]) -> Array:
    if len(shape) == 2:
        return np.asarray(stored, np.float64).reshape(shape)
    groups, width, columns = shape
    if width != columns or stored.shape != (groups, width * (width + 1) // 2):
        raise ValueError(f"second moments of shape {shape} are stored as {stored.shape}")
    sums = np.zeros(shape)
    lower = np.tril_indices(width)
    sums[:, lower[0], lower[1]] = stored
    sums[:, lower[1], lower[0]] = stored
    return sums
