"""Which parameters of a model a projection concerns, and by which names they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError

from .memory import covers_alike, memory_of, overlap, repeats_itself
from .shards import Communicator, LocalPart, find_communicator, local_part, local_values

__all__ = ["Patterns", "Target", "find_targets", "plain_name"]

Patterns = str | Sequence[str]
"""One or more glob patterns over parameter names, as :func:`fnmatch.fnmatchcase` reads them."""


@dataclass(frozen=True, eq=False)
class Target:
    """A parameter to project.

    Attributes:
        name: Its plain name (see :func:`plain_name`), the first one if it is tied.
        shape: Its whole shape, also if it is sharded.
        dtype: Its element type.
        part: What this process holds of it.
        parameter: The parameter itself.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    part: LocalPart
    parameter: nn.Parameter

    @property
    def numel(self) -> int:
        """Number of elements of the whole parameter."""
        return self.shape.numel()


def plain_name(name: str) -> str:
    """A parameter's name as the bare model has it.

    Wrappers put their own segments into names: ``DistributedDataParallel`` (``module.``),
    ``torch.compile`` (``_orig_mod.``), activation checkpointing, and parametrizations, whose
    original is ``layer.parametrizations.weight.original``.

    >>> plain_name("module._orig_mod.fc.parametrizations.weight.original")
    'fc.weight'
    """
    segments = name.removeprefix("module.").split(".")
    plain = [each for each in segments if each not in ("_orig_mod", "_checkpoint_wrapped_module")]
    # A parametrized parameter may itself be parametrized: the outermost original goes first.
    while len(plain) >= 3 and plain[-3] == "parametrizations" and plain[-1] == "original":
        plain = [*plain[:-3], plain[-2]]
    return ".".join(plain)


def find_targets(
    model: nn.Module, *, include: Patterns = (), exclude: Patterns = ()
) -> tuple[list[Target], Communicator]:
    """The trainable floating-point parameters of a model in the order of ``parameters()``.

    Tied parameters come once, whether they are tied as objects, by sharing the same memory, or as
    a transpose of each other; the first one says how they are cut into blocks. Frozen parameters
    are left out.

    Args:
        model: Any module; parametrized, compiled, data-parallel or sharded by FSDP2.
        include: Patterns; if there are any, only parameters that match one are taken.
        exclude: Patterns of parameters to leave out.

    Returns:
        The targets, and the processes that share them.

    Raises:
        InvalidArgumentError: If nothing is left to project, or a parameter cannot be projected
            (complex, uninitialised, on the meta device, sharded in an unsupported way, or sharing
            a part of its memory with another).
    """
    chosen = [
        (names[0], parameter)
        for names, parameter in _trainable(model)
        if (not include or _matches(names, include)) and not _matches(names, exclude)
    ]
    for name, parameter in chosen:
        _check(name, parameter)
    targets: list[Target] = []
    seen: set[tuple[object, ...]] = set()
    for name, parameter in chosen:
        part = local_part(name, parameter)
        memory = memory_of(part.values)
        if memory in seen:
            continue
        if part.values.numel():
            seen.add(memory)
        if not _is_transpose(part, targets):
            targets.append(Target(name, parameter.shape, parameter.dtype, part, parameter))
    _check_memory(model, targets)
    if not any(target.numel for target in targets):
        narrowed = " that the include and exclude patterns leave" if include or exclude else ""
        raise InvalidArgumentError(f"the model has no trainable parameter{narrowed} to project")
    return targets, find_communicator(model, chosen)


def _is_transpose(part: LocalPart, targets: list[Target]) -> bool:
    return any(
        covers_alike(part.values, target.part.values)
        for target in targets
        if part.values.numel() and not part.sharded
    )


def _check_memory(model: nn.Module, targets: list[Target]) -> None:
    """Refuses parameters whose memory is another's in part: no projection could be both's."""
    of_storage: dict[object, list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, nn.UninitializedParameter) and not parameter.is_meta:
            values = local_values(parameter)
            key = (values.device, values.untyped_storage().data_ptr())
            of_storage.setdefault(key, []).append((plain_name(name), values))
    for target in targets:
        values = target.part.values
        if not values.numel():
            continue
        if repeats_itself(values):
            raise InvalidArgumentError(
                f"parameter {target.name!r} is expanded: several of its weights are one; exclude "
                "it, or give it memory of its own (.clone())"
            )
        for name, other in of_storage[values.device, values.untyped_storage().data_ptr()]:
            if memory_of(other) == memory_of(values) or covers_alike(other, values):
                continue
            if overlap(other, values):
                raise InvalidArgumentError(
                    f"parameters {target.name!r} and {name!r} share a part of their memory; "
                    "exclude both, or give one memory of its own (.clone())"
                )


def _trainable(model: nn.Module) -> list[tuple[list[str], nn.Parameter]]:
    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            names.setdefault(id(parameter), []).append(plain_name(name))
            parameters[id(parameter)] = parameter
    return [(names[key], parameters[key]) for key in parameters]


def _matches(names: list[str], patterns: Patterns) -> bool:
    listed = (patterns,) if isinstance(patterns, str) else patterns
    return any(fnmatchcase(name, pattern) for name in names for pattern in listed)


def _check(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, nn.UninitializedParameter):
        raise InvalidArgumentError(
            f"parameter {name!r} has no shape yet; run the model once before projecting it"
        )
    if parameter.is_meta:
        raise InvalidArgumentError(f"parameter {name!r} is on the meta device and has no values")
    if parameter.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise InvalidArgumentError(
            f"parameter {name!r} is {str(parameter.dtype).removeprefix('torch.')}; a projection "
            "takes float16, bfloat16, float32 and float64, exclude it"
        )
