"""Reads the state dict of TorchScript archives without running or even loading their code.

``data.pkl`` in such an archive holds the tree of modules as objects with attributes, and
``code/`` the source of their classes. A class lists its parameters and buffers by name::

    class Linear(Module):
      __parameters__ = ["weight", "bias", ]
      __buffers__ = []

so that the state dict follows as ``torch.jit.load(path).state_dict()`` would give it: of each
module its parameters, then its buffers, then its submodules, each in the order of its attributes.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from momos_rs.errors import CorruptionError, InvalidArgumentError, UnsafeFileError

from .file_addresses import FileAddresses
from .model import Checkpoint
from .pickle_tree import Global, PickledObject, Uncarried, holds_tensors
from .state_dict import StateDict
from .tensors import from_tensors
from .torch_pickle import read_zip_pickle
from .zip_records import ZipRecords

__all__ = ["read_torchscript"]

_CLASS = re.compile(r"^class (\w+)\(([\w.]*)\):")
_MEMBERS = re.compile(r"^  (__parameters__|__buffers__) = (\[.*\])\s*$")
_MAX_MODULES = 1_000_000
_MAX_DEPTH = 200


def read_torchscript(path: Path, *, allow_pickle: bool) -> Checkpoint:
    """Reads a TorchScript archive as its state dict.

    Args:
        path: The archive.
        allow_pickle: Whether ``torch.jit.load`` may load the archive, code included, where the
            weights cannot be had otherwise (quantised modules).

    Raises:
        UnsafeFileError: If that would be needed and is not allowed.
        CorruptionError: If the archive is damaged.
        InvalidArgumentError: If it holds no weights, as after ``torch.jit.freeze``.
    """
    addresses: FileAddresses | None = None
    try:
        found, addresses = _read_without_code(path)
    except UnsafeFileError:
        if not allow_pickle:
            raise
        found = _read_with_code(path)
    if not found.tensors:
        raise InvalidArgumentError(
            f"{path} is a TorchScript archive without parameters or buffers; "
            "if it was frozen, use the module from before torch.jit.freeze"
        )
    carried = dataclasses.replace(
        from_tensors(found.tensors.items(), source=str(path)),
        format="torchscript",
        nbytes_on_disk=path.stat().st_size,
        left_out=("code", *found.left_out),
    )
    return carried if addresses is None else addresses.read(carried)


def _read_without_code(path: Path) -> tuple[StateDict, FileAddresses]:
    with ZipRecords(path) as records:
        root, addresses = read_zip_pickle(records, source=str(path))
        classes = _Classes(records)
        found = StateDict()
        if not classes.is_module(root):
            raise CorruptionError(f"{path} is a TorchScript archive whose root is not a module")
        for count, (prefix, module) in enumerate(_walk(root, classes, path)):
            if count > _MAX_MODULES:
                raise InvalidArgumentError(f"{path} holds more than {_MAX_MODULES} modules")
            _collect(module, prefix, classes.of(module.kind), found, path)
    return found, addresses


@dataclass(frozen=True)
class _ClassInfo:
    is_module: bool
    has_own_state: bool
    parameters: frozenset[str]
    buffers: frozenset[str]


class _Classes:
    """What the archive's source says of its classes."""

    def __init__(self, records: ZipRecords) -> None:
        self._records = records
        self._files = set(records.names())
        self._known: dict[str, dict[str, _ClassInfo]] = {}

    def of(self, kind: Global) -> _ClassInfo | None:
        """What is known of a class; None if the archive does not define it."""
        if kind.module not in self._known:
            file = f"code/{kind.module.replace('.', '/')}.py"
            source = ""
            if file in self._files:
                source = self._records.read(file).tobytes().decode("utf-8", "replace")
            self._known[kind.module] = dict(_parse_classes(source))
        return self._known[kind.module].get(kind.name)

    def is_module(self, value: Any) -> bool:
        info = self.of(value.kind) if isinstance(value, PickledObject) else None
        return info is not None and info.is_module


def _parse_classes(source: str) -> Iterator[tuple[str, _ClassInfo]]:
    """Classes with their members; the text in between is not looked at, nor need it be Python."""
    name, base, members, own_state = "", "", dict[str, frozenset[str]](), False

    def finished() -> Iterator[tuple[str, _ClassInfo]]:
        if name:
            none = frozenset[str]()
            parameters = members.get("__parameters__", none)
            buffers = members.get("__buffers__", none)
            yield name, _ClassInfo(base == "Module", own_state, parameters, buffers)

    for line in source.splitlines():
        if match := _CLASS.match(line):
            yield from finished()
            name, base, members, own_state = match[1], match[2], {}, False
        elif match := _MEMBERS.match(line):
            members[match[1]] = frozenset(_string_list(match[2]))
        elif line.startswith("  def __setstate__("):
            own_state = True
    yield from finished()


def _string_list(text: str) -> list[str]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise CorruptionError("a class in the archive lists its parameters illegibly") from None
    return [str(each) for each in value]


def _walk(
    root: PickledObject, classes: _Classes, path: Path
) -> Iterator[tuple[str, PickledObject]]:
    """Every module with its prefix, in the order of the state dict; shared ones once per name."""
    waiting = [("", root, 0)]
    while waiting:
        prefix, module, depth = waiting.pop()
        yield prefix, module
        if depth >= _MAX_DEPTH:
            raise CorruptionError(f"{path} nests its modules more than {_MAX_DEPTH} deep")
        children = [
            (f"{prefix}{name}.", value, depth + 1)
            for name, value in _attributes(module, path).items()
            if classes.is_module(value)
        ]
        waiting += reversed(children)


def _attributes(module: PickledObject, path: Path) -> dict[str, Any]:
    if not isinstance(module.state, dict):
        raise _needs_code(f"its module {module.kind} has a state of its own kind", path)
    if not all(isinstance(name, str) for name in module.state):
        raise CorruptionError(f"{path} has a module with an attribute that has no name")
    return module.state


def _collect(
    module: PickledObject, prefix: str, info: _ClassInfo | None, found: StateDict, path: Path
) -> None:
    assert info is not None
    if info.has_own_state:
        raise _needs_code(f"its module {module.kind} has a state of its own kind", path)
    attributes = _attributes(module, path)
    for members in (info.parameters, info.buffers):
        for name, value in attributes.items():
            if name not in members:
                continue
            if isinstance(value, (torch.Tensor, Uncarried)):
                found.add(prefix + name, value, str(path))
            elif value is not None and holds_tensors(value):
                raise _needs_code(f"its {prefix + name!r} is of a special kind", path)
    for name, value in attributes.items():
        if isinstance(value, torch.Tensor) and name not in info.parameters | info.buffers:
            found.leave_out([prefix + name], str(path))


def _needs_code(why: str, path: Path) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} has to be loaded by torch.jit, which can run its code, because {why}: save its "
        "state_dict() instead, or use --allow-pickle (allow_pickle=True) if you trust the source"
    )


def _read_with_code(path: Path) -> StateDict:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise CorruptionError(f"torch.jit cannot load {path}: {text[:200]}") from error
    return StateDict(dict(module.state_dict()))
