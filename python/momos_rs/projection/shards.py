"""Projecting a model whose parameters are spread over processes.

No process ever holds the whole model. A block belongs to the process that holds its first
element; what the processes tell each other is

* the elements of blocks that straddle a shard boundary (fewer than ``s`` per parameter and
  process, before the search and again after it),
* the drawn motifs (``k * s`` values, each contributed by the owner of its block),
* integers: motif counts, changed weights, the exact accumulators of sums.

Values travel as bit patterns and sums as integers, so that the outcome does not depend on how many
processes there are: it is the projection that one process would have made.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "Communicator",
    "LocalPart",
    "as_parameter",
    "find_communicator",
    "local_part",
    "local_values",
]


class Communicator:
    """The collectives a projection needs; without groups it is a process on its own.

    Args:
        shards: The group over which parameters are sharded, None if none is.
        agreeing: Groups along which all processes must act alike (shards and replicas).
    """

    def __init__(
        self, shards: ProcessGroup | None = None, agreeing: tuple[ProcessGroup, ...] = ()
    ) -> None:
        self._shards = shards
        self._agreeing = agreeing
        self.rank = 0 if shards is None else dist.get_rank(shards)
        self.size = 1 if shards is None else dist.get_world_size(shards)

    def agree(self, number: int, device: torch.device) -> int:
        """The value that the first process of every group has for a 64-bit integer."""
        if not self._agreeing:
            return number
        shared = torch.tensor([number], dtype=torch.int64, device=device)
        for group in self._agreeing:
            dist.broadcast(shared, src=dist.get_global_rank(group, 0), group=group)
        return int(shared.item())

    def sum_(self, integers: Tensor) -> Tensor:
        """Sums an integer tensor over the shards, in place; the same on every process."""
        if self._shards is not None:
            dist.all_reduce(integers, op=dist.ReduceOp.SUM, group=self._shards)
        return integers

    def max_(self, values: Tensor) -> Tensor:
        """The largest of every entry over the shards, in place."""
        if self._shards is not None:
            dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._shards)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Equally shaped tensors of all shards, stacked by rank."""
        if self._shards is None:
            return values.unsqueeze(0)
        pieces = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(pieces, values.contiguous(), group=self._shards)
        return torch.stack(pieces)


@dataclass(frozen=True, eq=False)
class LocalPart:
    """The contiguous range of a parameter that this process holds.

    Attributes:
        values: The local values; writing to them changes the parameter.
        bounds: First and one-past-last element of every shard, in flat (C) order of the whole
            parameter; a single entry if the parameter is not sharded.
        sharded: Whether other processes hold other parts.
    """

    values: Tensor
    bounds: tuple[tuple[int, int], ...]
    sharded: bool


def local_part(name: str, parameter: nn.Parameter) -> LocalPart:
    """What this process holds of a parameter.

    Args:
        name: The parameter's name, for messages.
        parameter: A plain parameter, or a DTensor sharded over its first dimension and otherwise
            replicated, as FSDP2's ``fully_shard`` makes them.

    Raises:
        InvalidArgumentError: For any other placement.
    """
    local = local_values(parameter)
    if not _is_dtensor(parameter):
        return LocalPart(local, ((0, parameter.numel()),), sharded=False)
    dimension = _sharded_mesh_dimension(name, parameter)
    if dimension is None:
        return LocalPart(local, ((0, parameter.numel()),), sharded=False)
    mesh = parameter.device_mesh  # type: ignore[attr-defined]
    bounds = _bounds_of_chunks(parameter.shape, mesh.size(dimension))
    start, stop = bounds[mesh.get_local_rank(dimension)]
    if local.numel() != stop - start:
        raise InvalidArgumentError(
            f"parameter {name!r}: its shard has {local.numel()} elements where an even split over "
            f"the first dimension gives {stop - start}; exclude it from the projection"
        )
    return LocalPart(local, bounds, sharded=True)


def local_values(parameter: Tensor) -> Tensor:
    """The values of a parameter that this process holds; writing to them changes the parameter."""
    values = parameter.detach()
    return values.to_local() if _is_dtensor(parameter) else values  # type: ignore[attr-defined]


def as_parameter(local: Tensor, parameter: Tensor) -> Tensor:
    """Local values as a tensor that is sharded as a parameter is; itself if that is not."""
    if not _is_dtensor(parameter):
        return local
    from torch.distributed.tensor import DTensor

    sharded: Any = parameter
    return DTensor.from_local(
        local, sharded.device_mesh, sharded.placements,
        run_check=False, shape=parameter.shape, stride=parameter.stride(),
    )  # fmt: skip


def find_communicator(model: nn.Module, parameters: list[tuple[str, nn.Parameter]]) -> Communicator:
    """The processes that must project together with this one.

    Sharded parameters name their group themselves (their device mesh); a
    ``DistributedDataParallel`` model names the group of its replicas. A model that is neither is
    projected by this process alone.

    Raises:
        InvalidArgumentError: If parameters are sharded over different groups.
    """
    shards: ProcessGroup | None = None
    agreeing: dict[tuple[int, ...], ProcessGroup] = {}
    for name, parameter in parameters:
        if not _is_dtensor(parameter):
            continue
        mesh = parameter.device_mesh  # type: ignore[attr-defined]
        for each in range(mesh.ndim):
            group = mesh.get_group(each)
            agreeing.setdefault(tuple(dist.get_process_group_ranks(group)), group)
        dimension = _sharded_mesh_dimension(name, parameter)
        if dimension is None:
            continue
        group = mesh.get_group(dimension)
        if shards is None:
            shards = group
        elif dist.get_process_group_ranks(group) != dist.get_process_group_ranks(shards):
            raise InvalidArgumentError(
                f"parameter {name!r} is sharded over other processes than the ones before it; "
                "project the parameters of each mesh apart (include=, exclude=)"
            )
    if not agreeing and isinstance(model, nn.parallel.DistributedDataParallel):
        group = model.process_group
        agreeing[tuple(dist.get_process_group_ranks(group))] = group
    return Communicator(shards, tuple(agreeing.values()))


def _is_dtensor(parameter: Tensor) -> bool:
    if type(parameter) in (nn.Parameter, Tensor) or not dist.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(parameter, DTensor)


def _sharded_mesh_dimension(name: str, parameter: nn.Parameter) -> int | None:
    from torch.distributed.tensor import Replicate, Shard

    placements = parameter.placements  # type: ignore[attr-defined]
    sharded = [at for at, each in enumerate(placements) if not isinstance(each, Replicate)]
    if not sharded:
        return None
    # Subclasses of Shard (strided shards) do not hold a contiguous range.
    if len(sharded) > 1 or type(placements[sharded[0]]) is not Shard or placements[sharded[0]].dim:
        raise InvalidArgumentError(
            f"parameter {name!r} has placements {tuple(placements)}; a projection takes parameters "
            "sharded over their first dimension only, exclude this one"
        )
    return sharded[0]


def _bounds_of_chunks(shape: torch.Size, shards: int) -> tuple[tuple[int, int], ...]:
    """Element ranges of the shards: rows as ``torch.chunk`` deals them out."""
    rows = shape[0]
    width = shape.numel() // rows if rows else 0
    step = -(-rows // shards)
    edges = [min(shard * step, rows) * width for shard in range(shards + 1)]
    return tuple(pairwise(edges))
