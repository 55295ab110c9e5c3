"""Finds the weights in whatever a training script has saved.

The rules, applied to the top level and then to what they lead to:

1. A module stands for its ``state_dict()``.
2. A mapping with a usual key (:data:`USUAL_KEYS`, the first in that order) that leads to weights:
   they are the weights. Averaged copies (:data:`AVERAGED_KEYS`) are taken where nothing else is.
3. A mapping of tensors is a state dict. What it holds besides tensors is left out.
4. A mapping of nothing but mappings (a generator and a discriminator) is the union of the state
   dicts it leads to, their names prefixed with the key and a dot; a single one keeps its names.
   Tensors of one element beside them are metrics and left out, as are optimizers and the like.

Whatever is not taken is listed by its path of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from momos_rs.errors import InvalidArgumentError, UnsafeFileError

from .pickle_tree import PickledObject, holds_tensors
from .tensors import as_tensor

__all__ = ["AVERAGED_KEYS", "USUAL_KEYS", "StateDict", "find_state_dict"]

USUAL_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "params",
    "parameters",
    "weights",
)
"""Keys under which training scripts keep the weights, by precedence."""

AVERAGED_KEYS = (
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "params_ema",
    "ema",
)
"""Keys of moving averages of the weights, taken only where no :data:`USUAL_KEYS` has any."""

_TRAINING_STATE = re.compile(r"optim|sched|scaler|rng|random|callback", re.IGNORECASE)
_EXTRA_STATE = "_extra_state"  # torch.nn.Module.get_extra_state: anything at all, but no weights
_MAX_DEPTH = 32
_MAX_NAMES = 300_000  # containers that share others could multiply them without end


@dataclass
class StateDict:
    """The weights found.

    Attributes:
        tensors: Name to tensor, in order.
        left_out: Paths of what is not part of them.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, tensor: torch.Tensor, source: str) -> None:
        """Adds a tensor under a name that must be new."""
        if name in self.tensors:
            raise InvalidArgumentError(f"{source} holds two tensors named {name!r}; rename one")
        self.tensors[name] = tensor
        self._check_size(source)

    def leave_out(self, paths: list[str], source: str) -> None:
        """Lists paths as left out."""
        self.left_out += paths
        self._check_size(source)

    def _check_size(self, source: str) -> None:
        if max(len(self.tensors), len(self.left_out)) > _MAX_NAMES:
            raise InvalidArgumentError(f"{source} holds more than {_MAX_NAMES} names")


def find_state_dict(root: Any, *, source: str) -> StateDict:
    """The named tensors in an object loaded from a file.

    Args:
        root: What the file holds.
        source: Name of the file, for messages.

    Raises:
        UnsafeFileError: If the weights are inside an object of a class that would have to be
            imported.
        InvalidArgumentError: If there are none.
    """
    if isinstance(root, (list, tuple)):
        root = {str(index): each for index, each in enumerate(root) if not _is_tensor(each)}
    finder = _Finder(source)
    found = finder.find(root, "", 0)
    if found is None:
        if finder.needs_code is not None:
            raise finder.needs_code
        raise InvalidArgumentError(f"{source} holds no named tensors; {_describe(root)}")
    return found


def _describe(root: Any) -> str:
    if isinstance(root, Mapping):
        keys = ", ".join(map(repr, list(root)[:8])) or "nothing"
        return f"its top level has {keys}" + (", ..." if len(root) > 8 else "")
    kind = root.kind if isinstance(root, PickledObject) else type(root).__name__
    return f"it is a {kind}; save a state dict"


def _is_tensor(value: object) -> bool:
    return as_tensor(value) is not None


class _Finder:
    def __init__(self, source: str) -> None:
        self._source = source
        # By identity, each container with its result: containers may be shared, or hold each other.
        self._searched: dict[int, tuple[object, StateDict | None]] = {}
        self.needs_code: UnsafeFileError | None = None

    def find(self, value: Any, path: str, depth: int) -> StateDict | None:
        """The weights in a value; None if there are none."""
        if isinstance(value, PickledObject):
            if self.needs_code is None and holds_tensors(value):
                self.needs_code = self._refusal(value, path)
            return None
        if id(value) in self._searched:
            return self._searched[id(value)][1]
        self._searched[id(value)] = (value, None)  # the answer for cycles that lead back here
        mapping = value.state_dict() if isinstance(value, torch.nn.Module) else value
        if not isinstance(mapping, Mapping) or depth > _MAX_DEPTH:
            return None
        if mapping.keys() == {"state", "param_groups"}:  # an optimizer, whatever its key
            return None
        found = self._find_in_mapping(mapping, path, depth)
        self._searched[id(value)] = (value, found)
        return found

    def _find_in_mapping(
        self, mapping: Mapping[Any, Any], path: str, depth: int
    ) -> StateDict | None:
        source = self._source
        for key in (*USUAL_KEYS, *AVERAGED_KEYS):
            if key not in mapping:
                continue
            found = self.find(mapping[key], _join(path, key), depth + 1)
            if found is not None:
                result = StateDict(found.tensors)
                for each in mapping:
                    result.leave_out(found.left_out if each == key else [_join(path, each)], source)
                return result
            if isinstance(mapping[key], PickledObject) and holds_tensors(mapping[key]):
                raise self._refusal(mapping[key], _join(path, key))

        tensors = dict(_named_tensors(mapping))
        nested = dict(self._nested(mapping, path, depth))
        if not tensors and not nested:
            return None
        if nested and all(_is_beside(key, tensor) for key, tensor in tensors.items()):
            tensors = {}
        alone = len(nested) == 1 and not tensors
        result = StateDict()
        for key, value in mapping.items():
            if key in nested:
                for name, tensor in nested[key].tensors.items():
                    result.add(name if alone else f"{key}.{name}", tensor, source)
                result.leave_out(nested[key].left_out, source)
            elif key in tensors:
                result.add(key, tensors[key], source)
            else:
                if tensors:
                    self._check_left_out(value, _join(path, key))
                result.leave_out([_join(path, key)], source)
        return result

    def _nested(
        self, mapping: Mapping[Any, Any], path: str, depth: int
    ) -> Iterator[tuple[str, StateDict]]:
        for key, value in mapping.items():
            if (
                not isinstance(key, str)
                or _TRAINING_STATE.search(key)
                or key.endswith(_EXTRA_STATE)
            ):
                continue
            found = self.find(value, _join(path, key), depth + 1)
            if found is not None:
                yield key, found

    def _check_left_out(self, value: Any, path: str) -> None:
        """Makes sure that what stands among tensors and is not one is not a weight in disguise."""
        if isinstance(value, PickledObject) and holds_tensors(value):
            raise self._refusal(value, path)
        if isinstance(value, tuple) and any(
            isinstance(each, torch.Tensor) and each.is_quantized for each in value
        ):
            raise InvalidArgumentError(
                f"{path!r} in {self._source} holds packed quantised weights, which cannot be "
                "carried; take the model from before its quantisation"
            )

    def _refusal(self, value: PickledObject, path: str) -> UnsafeFileError:
        what = f"{path!r} in {self._source}" if path else self._source
        return UnsafeFileError(
            f"{what} is a pickled {value.kind} and loading it would run its code: save "
            "its state_dict(), or use --allow-pickle (allow_pickle=True) if you trust the source"
        )


def _named_tensors(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in mapping.items():
        tensor = as_tensor(value)
        if tensor is not None and isinstance(key, str):
            yield key, tensor


def _is_beside(key: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor beside nested state dicts is a metric or training state, not a weight."""
    return bool(_TRAINING_STATE.search(key)) or (tensor.numel() == 1 and "." not in key)


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
