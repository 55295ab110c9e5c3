"""Finds the weights in whatever a training script has saved.

The rules, applied to the top level and then to what they lead to:

1. A module stands for its ``state_dict()``.
2. A mapping of tensors is a state dict. Arrays of numpy count as tensors.
3. What a mapping or a list leads to besides is taken, too. Where that is a single state dict, its
   names stay as they are; several (a generator and a discriminator), or one beside tensors, have
   the key and a dot before their names.
4. What is known to be no weight is left out, by place and type: optimizers, schedulers and other
   state of training (:data:`_TRAINING_STATE`), averaged copies of the weights beside the weights
   (:data:`AVERAGED_KEYS`), tensors of one element beside state dicts (metrics), and what holds no
   tensors.
5. What may be weights and cannot be taken is refused by name: objects of classes that would have
   to be imported, tensors under keys that are no text.

Whatever is not taken is listed by its path of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from momos_rs.errors import CorruptionError, InvalidArgumentError, UnsafeFileError

from .numpy_pickle import array_of
from .pickle_tree import PickledArray, PickledObject, Uncarried, holds_tensors, shorten
from .tensors import as_tensor, module_versions

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
"""Keys under which training scripts keep the weights; a pickled module under one of them may stand
beside its state dict."""

AVERAGED_KEYS = (
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "params_ema",
    "ema",
)
"""Keys of moving averages of the weights, taken only where nothing else has any."""

_TRAINING_STATE = re.compile(r"optim|sched|scaler|rng|random|callback", re.IGNORECASE)
_CONFIGURATION = frozenset(
    {"args", "cfg", "config", "epoch", "hparams", "hyper_parameters", "iteration", "opt", "step"}
)
_EXTRA_STATE = "_extra_state"  # torch.nn.Module.get_extra_state: anything at all, but no weights
_MAX_DEPTH = 32
_MAX_NAMES = 300_000  # containers that share others could multiply them without end

Tensor = torch.Tensor | Uncarried


@dataclass
class StateDict:
    """The weights found.

    Attributes:
        tensors: Name to tensor, in order.
        left_out: Paths of what is not part of them.
        versions: What is said of modules, by their names.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, tensor: Tensor, source: str) -> None:
        """Adds a tensor under a name that must be new."""
        if name in self.tensors:
            raise InvalidArgumentError(
                f"{source} holds two tensors named {name!r:.200}; rename one"
            )
        self.tensors[name] = tensor
        self._check_size(source)

    def leave_out(self, paths: list[str], source: str) -> None:
        """Lists paths as left out."""
        self.left_out += paths
        self._check_size(source)

    def take(self, other: StateDict, prefix: str, source: str) -> None:
        """Adds all of another, its names behind a prefix."""
        for name, tensor in other.tensors.items():
            self.add(prefix + name, tensor, source)
        for name, said in other.versions.items():
            self.versions[prefix + name if name else prefix.removesuffix(".")] = said
        self.leave_out(other.left_out, source)

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
        InvalidArgumentError: If there are none, or some that cannot be named.
        CorruptionError: If an array contradicts itself.
    """
    finder = _Finder(source)
    found = finder.find(root, "", 0)
    if found is None:
        if finder.needs_code is not None:
            raise finder.needs_code
        raise InvalidArgumentError(f"{source} holds no named tensors; {_describe(root)}")
    return found


def _describe(root: Any) -> str:
    if isinstance(root, Mapping):
        keys = ", ".join(shorten(key) for key in list(root)[:8]) or "nothing"
        return f"its top level has {keys}" + (", ..." if len(root) > 8 else "")
    kind = f"{root.kind!s:.100}" if isinstance(root, PickledObject) else type(root).__name__
    return f"it is a {kind}; save a state dict"


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
        if isinstance(mapping, tuple) and any(map(_is_quantised, mapping)):
            raise InvalidArgumentError(
                f"{path!r:.200} in {self._source} holds packed quantised weights, which cannot be "
                "carried; take the model from before its quantisation"
            )
        if isinstance(mapping, (list, tuple)):
            # Tensors in a list have no names.
            mapping = {
                str(index): each
                for index, each in enumerate(mapping)
                if depth or self._tensor(each) is None
            }
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
        tensors = dict(self._named_tensors(mapping))
        nested = dict(self._nested(mapping, path, depth))
        if tensors:
            # Lists of single numbers are the history of something.
            nested = {key: found for key, found in nested.items() if not _is_history(found)}
        if not tensors and not nested:
            return None
        if nested and all(_is_beside(key, tensor) for key, tensor in tensors.items()):
            tensors = {}
        if nested and not tensors:
            nested = _without_company(nested)
        self._check_modules(mapping, path, {*tensors, *nested})
        alone = len(nested) == 1 and not tensors
        result = StateDict(versions=module_versions(mapping))
        for key, value in mapping.items():
            if key in nested:
                result.take(nested[key], "" if alone else f"{key}.", self._source)
            elif isinstance(key, str) and key in tensors:
                result.add(key, tensors[key], self._source)
            else:
                self._check_left_out(key, value, _join(path, key))
                result.leave_out([_join(path, key)], self._source)
        return result

    def _named_tensors(self, mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
        for key, value in mapping.items():
            tensor = self._tensor(value) if isinstance(key, str) else None
            if tensor is not None:
                yield key, tensor

    def _tensor(self, value: Any) -> Tensor | None:
        if isinstance(value, Uncarried):
            return value
        if isinstance(value, PickledArray):
            try:
                value = array_of(value)
            except ValueError as error:
                raise CorruptionError(f"{self._source} is damaged: {error}") from None
        return as_tensor(value)

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

    def _check_modules(self, mapping: Mapping[Any, Any], path: str, taken: set[str]) -> None:
        """Refuses a pickled module where the weights are looked for first, unless another place
        among those has them."""
        if any(key in taken for key in USUAL_KEYS):
            return
        for key in USUAL_KEYS:
            value = mapping.get(key)
            if isinstance(value, PickledObject) and holds_tensors(value):
                raise self._refusal(value, _join(path, key))

    def _check_left_out(self, key: object, value: Any, path: str) -> None:
        """Makes sure that what is left out is not a weight in disguise."""
        if isinstance(key, str) and (_TRAINING_STATE.search(key) or key.endswith(_EXTRA_STATE)):
            return
        if isinstance(value, PickledObject) and holds_tensors(value) and key not in USUAL_KEYS:
            raise self._refusal(value, path)
        tensor = self._tensor(value)
        if not isinstance(key, str) and (
            (tensor is not None and _elements(tensor) != 1)
            or (tensor is None and self.find(value, path, 1) is not None)
        ):
            raise InvalidArgumentError(
                f"{self._source} holds weights under {shorten(key)}, which is no text; "
                "save them under a name"
            )

    def _refusal(self, value: PickledObject, path: str) -> UnsafeFileError:
        what = f"{path!r:.200} in {self._source}" if path else self._source
        return UnsafeFileError(
            f"{what} is a pickled {value.kind!s:.100} and loading it would run its code: "
            "save its state_dict(), or use --allow-pickle (allow_pickle=True) if you trust the "
            "source"
        )


def _without_company(nested: dict[str, StateDict]) -> dict[str, StateDict]:
    """The state dicts without averaged copies and mappings of metrics, if others are left."""
    kept = {key: each for key, each in nested.items() if not _is_metrics(key, each)} or nested
    weights = {key: each for key, each in kept.items() if key not in AVERAGED_KEYS}
    if weights:
        return weights
    first = next(key for key in AVERAGED_KEYS if key in kept)
    return {first: kept[first]}


def _is_metrics(key: str, found: StateDict) -> bool:
    return key not in USUAL_KEYS and all(
        _elements(tensor) == 1 and "." not in name for name, tensor in found.tensors.items()
    )


def _is_history(found: StateDict) -> bool:
    return all(name.isdigit() and _elements(tensor) == 1 for name, tensor in found.tensors.items())


def _is_quantised(value: object) -> bool:
    if isinstance(value, Uncarried):
        return value.reason.startswith("it is quantised")
    return isinstance(value, torch.Tensor) and value.is_quantized


def _elements(tensor: Tensor) -> int:
    return -1 if isinstance(tensor, Uncarried) else tensor.numel()


def _is_beside(key: str, tensor: Tensor) -> bool:
    """Whether a tensor beside nested state dicts is a metric or training state, not a weight."""
    known = _TRAINING_STATE.search(key) or key in _CONFIGURATION
    return bool(known) or (_elements(tensor) == 1 and "." not in key)


def _join(path: str, key: object) -> str:
    text = key if isinstance(key, str) else shorten(key)
    return f"{path}.{text}" if path else text
