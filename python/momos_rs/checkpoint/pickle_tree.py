"""Reads a pickle as data: nothing it names is ever imported or called.

A pickle is a program for a small stack machine. This module runs that machine with every
instruction that would reach for code replaced: a global stays a name, a call becomes a
:class:`PickledObject` that records what would have been called with what. What remains is a tree
of built-in containers, numbers and strings.

The opcodes are those of :mod:`pickletools` in the standard library, protocols 0 to 5.
"""

from __future__ import annotations

import pickletools
import re
import reprlib
import struct
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from momos_rs.errors import CorruptionError, InsufficientDataError

__all__ = [
    "Global",
    "PickledArray",
    "PickledMapping",
    "PickledObject",
    "StorageReference",
    "Uncarried",
    "holds_tensors",
    "read_pickle",
    "shorten",
]

_MOST_MESSAGE = 200  # characters of an error of the standard library that are repeated
_KEY_NODES = 1000  # values in a key of a dictionary, itself included
_KEY_DEPTH = 16  # levels of tuples in one; hashing is recursive and knows no limit of its own
_LARGEST_INTEGER = 1 << 60  # those beyond can be made to have equal hashes
_LARGE_INTEGER_KEYS = 4096  # so that there may be only so many, which compare in no time
_FREE_CONTAINERS = 1 << 19  # containers that a pickle of any size may make
_BYTES_PER_CONTAINER = 8  # and one more for so many bytes of it: one opcode of a byte makes one
_FREE_COPIES = 1 << 20  # items that calls of built-in containers may copy, whatever the size


@dataclass(frozen=True)
class Global:
    """The name of something importable."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class PickledObject:
    """What a pickle would have made by calling ``kind`` with ``arguments``."""

    kind: Global
    arguments: tuple[Any, ...]
    state: Any = None
    contents: list[Any] = field(default_factory=list)


class PickledMapping(dict[Any, Any]):
    """An ``OrderedDict``, with what the pickle makes attributes of it: a state dict has
    ``_metadata``, the versions of its modules."""

    attributes: dict[Any, Any] | None = None


@dataclass(eq=False)
class PickledArray:
    """A numpy array in the making.

    Attributes:
        state: What the pickle says of it: version, shape, type, order and data.
    """

    state: Any = None


@dataclass(frozen=True, eq=False)
class Uncarried:
    """A tensor of a kind that cannot be carried.

    Attributes:
        reason: Why, and the way out.
    """

    reason: str


@dataclass(frozen=True, eq=False)
class StorageReference:
    """A reference to something that the pickle keeps outside of itself (a storage)."""

    key: Any


# How the standard library words that a pickle ends before what it announces.
_ENDS_EARLY = re.compile(r"exhausted before|not enough data|only \d+ remain")

Construct = Callable[[Global, tuple[Any, ...]], Any]
Refer = Callable[[StorageReference], None]


class Readable(Protocol):
    """A file that a pickle is read from, where it stands."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes."""

    def readline(self) -> bytes:
        """The bytes to the end of the line."""

    def tell(self) -> int:
        """Where it stands."""


_PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": PickledMapping,
    "torch.Size": tuple,
    # Protocols before 3 name the built-ins as Python 2 did.
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("builtins", "__builtin__")
        for kind in (complex, dict, frozenset, list, set, tuple)
    },
}


def read_pickle(
    data: bytes | Readable,
    *,
    source: str,
    construct: Construct | None = None,
    refer: Refer | None = None,
) -> Any:
    """The value a pickle describes.

    Args:
        data: The pickle, or a file that is read from where it stands to the pickle's end; it
            allocates no more than it has, whatever is asked of it.
        source: What to call the pickle in messages.
        construct: Makes a value of a call that the caller understands; it returns
            ``NotImplemented`` for all others, which become :class:`PickledObject`.
        refer: Is told of every reference to a storage.

    Raises:
        CorruptionError: If it is not a well-formed pickle; :class:`InsufficientDataError` if it
            ends early.
    """
    try:
        return _Machine(construct, refer).run(data)
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        MemoryError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        message = " ".join(str(error)[:_MOST_MESSAGE].split())
        if _ENDS_EARLY.search(message):
            raise InsufficientDataError(f"{source} is truncated: {message}") from None
        raise CorruptionError(f"{source} holds a damaged pickle: {message}") from None


def holds_tensors(value: Any) -> bool:
    """Whether a tensor's data is anywhere inside an object or container."""
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, (StorageReference, Uncarried)) or hasattr(each, "untyped_storage"):
            return True
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, PickledObject):
            waiting += (each.arguments, each.state, each.contents)
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, (list, tuple, set, frozenset)):
            waiting += each
    return False


def shorten(value: object) -> str:
    """A rendering of something from a pickle, bounded however long or deep it is."""
    return _RENDERING.repr(value)


_RENDERING = reprlib.Repr()
_RENDERING.maxlevel = 2
_RENDERING.maxstring = _RENDERING.maxother = 100


class _Machine:
    """The stack machine."""

    def __init__(self, construct: Construct | None, refer: Refer | None) -> None:
        self._construct = construct
        self._refer = refer
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what each open mark has set aside
        self._memo: dict[Hashable, Any] = {}
        self._copied = 0
        self._containers = 0
        self._large_keys = 0
        self._position = 0

    def run(self, data: bytes | Readable) -> Any:
        for opcode, argument, at in pickletools.genops(cast("Any", data)):
            position = at or 0
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _MAKE_CONTAINERS:
                self._containers += 1
                if self._containers > _FREE_CONTAINERS + position // _BYTES_PER_CONTAINER:
                    raise ValueError("it makes too many containers for its size")
            self._step(opcode.name, argument)
            self._position = position
        raise ValueError("it does not end")

    def _check_keys(self, keys: Iterable[Any]) -> None:
        """Refuses what takes for ever to hash, or the process with it.

        Raises:
            ValueError: If a key is a tuple too deep or too large, or too many are large integers.
        """
        for key in keys:
            if type(key) is str:
                continue
            nodes = 0
            waiting = [(key, 1)]
            while waiting:
                value, depth = waiting.pop()
                nodes += 1
                if isinstance(value, (tuple, frozenset)):
                    if depth > _KEY_DEPTH or nodes + len(value) > _KEY_NODES:
                        raise ValueError("a key is nested too deeply")
                    waiting += [(each, depth + 1) for each in value]
                elif type(value) is int and abs(value) > _LARGEST_INTEGER:
                    self._large_keys += 1
                    if self._large_keys > _LARGE_INTEGER_KEYS:
                        raise ValueError("too many of its keys are large numbers")

    def _charge(self, arguments: Iterable[Any]) -> None:
        """Counts what a call copies, of which a few bytes could make it copy any amount."""
        for each in arguments:
            if isinstance(each, (list, tuple, dict, set, frozenset, str)):
                self._copied += len(each)
        if self._copied > _FREE_COPIES + 8 * self._position:
            raise ValueError("it copies more than its size explains")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _PYTHON_2_STRINGS:
            self._stack.append(argument.encode("latin-1").decode("utf-8", "surrogateescape"))
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLE_SIZES:
            size = _TUPLE_SIZES[name]
            self._stack.append(tuple(self._pop_several(size)))
        elif name in _FROM_MARK:
            items = self._pop_to_mark()  # first: it brings back the stack to append to
            if name == "FROZENSET":
                self._check_keys(items)
            elif name == "DICT":
                self._check_keys(items[::2])
            self._stack.append(_FROM_MARK[name](items))
        else:
            handler = getattr(self, "_do_" + name.lower(), None)
            if handler is None:
                raise ValueError(f"the opcode {name} is not supported")
            handler(argument)

    def _pop_several(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise IndexError("its stack is empty")
        start = len(self._stack) - count
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._below.pop()
        return items

    def _do_proto(self, _: Any) -> None:
        pass

    def _do_frame(self, _: Any) -> None:
        pass

    def _do_mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _do_pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_to_mark()

    def _do_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_put(self, key: Any) -> None:
        if not 0 <= key < 1 << 32:
            raise ValueError("it remembers something under too large a number")
        self._memo[key] = self._stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_get(self, key: Any) -> None:
        self._stack.append(self._memo[key])

    _do_binget = _do_long_binget = _do_get

    def _do_append(self, _: Any) -> None:
        self._extend(self._pop_several(1))

    def _do_appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, PickledObject):
            target = target.contents
        if not isinstance(target, list):
            raise TypeError("it appends to something that is not a list")
        target.extend(items)

    def _do_additems(self, _: Any) -> None:
        items = self._pop_to_mark()
        target = self._stack[-1]
        if isinstance(target, PickledObject):
            target.contents.extend(items)
        elif isinstance(target, set):
            self._check_keys(items)
            target.update(items)
        else:
            raise TypeError("it adds to something that is not a set")

    def _do_setitem(self, _: Any) -> None:
        self._set_items(self._pop_several(2))

    def _do_setitems(self, _: Any) -> None:
        self._set_items(self._pop_to_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, PickledObject):
            target.contents.extend(items)
        elif isinstance(target, dict):
            self._check_keys(items[::2])
            target.update(_pairs(items))
        else:
            raise TypeError("it sets items of something that is not a dictionary")

    def _do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Global(module, name))

    def _do_stack_global(self, _: Any) -> None:
        module, name = self._pop_several(2)
        if type(module) is not str or type(name) is not str:
            raise TypeError("it names something by what is no text")
        self._stack.append(Global(module, name))

    def _do_persid(self, key: Any) -> None:
        if isinstance(key, tuple) and key[:1] == ("module",) and isinstance(key[1], Global):
            self._stack.append(key[1])  # the older format refers to classes of modules so
            return
        reference = StorageReference(key)
        if self._refer is not None:
            self._refer(reference)
        self._stack.append(reference)

    def _do_binpersid(self, _: Any) -> None:
        self._do_persid(self._stack.pop())

    def _do_reduce(self, _: Any) -> None:
        self._call(*self._pop_several(2))

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        kind, arguments, keywords = self._pop_several(3)
        self._call(kind, (*arguments, keywords))

    def _do_obj(self, _: Any) -> None:
        kind, *arguments = self._pop_to_mark()
        self._call(kind, tuple(arguments))

    def _do_inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._call(Global(module, name), tuple(self._pop_to_mark()))

    def _call(self, kind: Any, arguments: Any) -> None:
        if not isinstance(kind, Global) or not isinstance(arguments, tuple):
            raise TypeError("it calls something that is not a named function or class")
        plain = _PLAIN_CALLS.get(str(kind))
        if plain is not None:
            self._charge(arguments)
            if plain in (set, frozenset):
                for each in arguments:
                    self._check_keys(each)
            elif plain in (dict, PickledMapping):
                for each in arguments:
                    self._check_keys(
                        pair[0] for pair in (each.items() if type(each) is dict else each)
                    )
            self._stack.append(plain(*arguments))
            return
        value = NotImplemented if self._construct is None else self._construct(kind, arguments)
        self._stack.append(PickledObject(kind, arguments) if value is NotImplemented else value)

    def _do_build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, (PickledObject, PickledArray)):
            target.state = state
        elif isinstance(target, PickledMapping) and isinstance(state, dict):
            target.attributes = state
        # Attributes of other plain data have no place to go.


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _encode(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("it encodes text in an unusual way")
    return text.encode("latin-1")


_PLAIN_CALLS["_codecs.encode"] = _encode


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FROM_MARK: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": _pairs,
    "FROZENSET": frozenset,
}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)

_PYTHON_2_STRINGS = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
"""Bytes, by which Python 2 wrote names; torch reads them as UTF-8, too."""

_MAKE_CONTAINERS = frozenset(
    {*_EMPTY, *_TUPLE_SIZES, *_FROM_MARK, "MARK", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"}
)
