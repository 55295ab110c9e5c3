"""Data-parallel and sharded models: the projection equals that of one process, bit for bit."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.nn import mosaic_aware
from momos_rs.projection import MoMos, ProjectionStats
from momos_rs.projection.shards import Communicator

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch has no gloo"
)

Check = Callable[[int, int], None]


def spread_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Rows that do not divide by the processes, fewer rows than processes, odd row lengths, a tie,
    a frozen weight."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 7), nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False),
        nn.Linear(7, 1), nn.Linear(1, 33),
    )  # fmt: skip
    model.get_submodule("2").weight = model.get_submodule("1").weight
    for parameter in model.parameters():
        parameter.data.normal_()
    model.get_parameter("4.bias").requires_grad_(False)
    return model.to(dtype)


def shard(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model, mesh=mesh)
    return model


def whole(parameter: nn.Parameter) -> Tensor:
    full: Any = parameter
    sharded = hasattr(full, "full_tensor")
    return (full.full_tensor() if sharded else full).detach()  # type: ignore[no-any-return]


def move(model: nn.Module) -> None:
    """The same small change of every weight, as a training step between projections makes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1).add_(0.01)


def assert_equal(model: nn.Module, single: nn.Module) -> None:
    for (name, got), expected in zip(model.named_parameters(), single.parameters(), strict=True):
        assert torch.equal(whole(got), expected.detach()), name


def assert_same_stats(got: ProjectionStats, expected: ProjectionStats) -> None:
    assert got.distortion == expected.distortion
    assert got.num_changed_weights == expected.num_changed_weights
    assert torch.equal(got.motif_counts, expected.motif_counts)
    assert (got.k, got.m, got.n, got.seed) == (
        expected.k, expected.m, expected.n, expected.seed,
    )  # fmt: skip


def fsdp_equals_one_process(rank: int, world: int) -> None:
    from torch.distributed.tensor import DTensor

    cases = [(torch.float32, "random", s) for s in (1, 3, 4, 16, 49)]
    cases += [(torch.float32, "kmeans", 4), (torch.float32, "warm", 3)]
    cases += [(torch.float32, "spread", 1), (torch.float32, "spread", 5)]
    cases += [(torch.bfloat16, "warm", 4), (torch.float64, "kmeans", 4)]
    for dtype, method, s in cases:
        single = spread_model(dtype)
        model = shard(copy.deepcopy(single))
        assert isinstance(next(model.parameters()), DTensor)
        here = MoMos(s, capacity=0.4, method=method)  # type: ignore[arg-type]
        there = MoMos(s, capacity=0.4, method=method)  # type: ignore[arg-type]
        for _ in range(2):
            expected, got = there(single), here(model)
            assert_same_stats(got, expected)
            assert_equal(model, single)
            assert got.mosaic is None
            move(single)
            move(model)


def fsdp_training_goes_on(rank: int, world: int) -> None:
    model = shard(spread_model())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    momos = MoMos(4, k=3)
    for _ in range(3):
        model(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        momos(model)
    rows = torch.cat([whole(p).flatten()[: p.numel() // 4 * 4].view(-1, 4)
                      for p in model.parameters() if p.requires_grad])  # fmt: skip
    assert len(torch.unique(rows, dim=0)) <= 3


def fsdp_never_gathers_the_model(rank: int, world: int) -> None:
    from torch.distributed.tensor import DTensor

    torch.manual_seed(0)
    model = shard(nn.Sequential(nn.Linear(128, 128), nn.Linear(128, 64)))
    sent = 0
    changed: Any = Communicator
    arrays: Any = DTensor
    gather, add = changed.gather, changed.sum_
    kept = arrays.full_tensor, arrays.redistribute

    def counting(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(self: Communicator, values: Tensor) -> Tensor:
            nonlocal sent
            sent += values.numel()
            return original(self, values)

        return call

    def forbidden(*arguments: Any, **options: Any) -> Tensor:
        raise AssertionError("a parameter was gathered")

    changed.gather, changed.sum_ = counting(gather), counting(add)
    arrays.full_tensor = arrays.redistribute = forbidden
    try:
        stats = MoMos(4, k=50)(model)
    finally:
        changed.gather, changed.sum_ = gather, add
        arrays.full_tensor, arrays.redistribute = kept
    accumulators = 2 * 2200
    assert sent <= stats.k * 4 + stats.k + 1 + 2 * 4 * 3 + accumulators
    assert stats.n == 128 * 128 + 128 + 128 * 64 + 64


def fsdp_names_the_bad_parameter_everywhere(rank: int, world: int) -> None:
    model = shard(spread_model())
    if rank == world - 1:
        local: Any = dict(model.named_parameters())["1.weight"].data
        local.to_local()[0, 0] = float("nan")
    before = [whole(each).clone() for each in model.parameters()]
    with pytest.raises(InvalidArgumentError, match=r"'1\.weight' holds NaN"):
        MoMos(4, k=3)(model)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(7.0), whole(new).nan_to_num(7.0))


def other_placements_are_refused(rank: int, world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    model = nn.Linear(6, 6, bias=False)
    weight = model.weight.detach()
    dist.broadcast(weight, src=0)
    model.weight = nn.Parameter(distribute_tensor(weight, mesh, [Shard(1)]))
    with pytest.raises(InvalidArgumentError, match="'weight' has placements"):
        MoMos(4, k=3)(model)
    model.weight = nn.Parameter(distribute_tensor(weight, mesh, [Replicate()]))
    single = nn.Linear(6, 6, bias=False)
    single.weight.data.copy_(weight)
    expected, got = MoMos(4, k=3)(single), MoMos(4, k=3)(model)
    assert_same_stats(got, expected)
    assert_equal(model, single)


def ddp_equals_one_process(rank: int, world: int) -> None:
    for method in ("random", "spread", "warm"):
        single = spread_model()
        model = nn.parallel.DistributedDataParallel(copy.deepcopy(single))
        options: dict[str, Any] = {"capacity": 0.4, "method": method}
        here, there = MoMos(4, seed=7 + rank, **options), MoMos(4, seed=7, **options)
        for _ in range(2):
            expected, got = there(single), here(model)
            assert_same_stats(got, expected)
            assert_equal(model, single)
            assert got.mosaic is not None
            assert expected.mosaic is not None
            assert torch.equal(got.mosaic.indices, expected.mosaic.indices)
            assert got.mosaic.spans == expected.mosaic.spans
            move(single)
            move(model)


def ddp_draws_from_the_first_process_generator(rank: int, world: int) -> None:
    model = nn.parallel.DistributedDataParallel(spread_model())
    generator = torch.Generator().manual_seed(100 + rank)
    stats = MoMos(4, k=5, generator=generator)(model)
    single = spread_model()
    expected = MoMos(4, k=5, generator=torch.Generator().manual_seed(100))(single)
    assert_same_stats(stats, expected)
    assert_equal(model, single)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step by gradients that are a function of the weights, alike in any number of processes."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = parameter.detach() * 0.3 + 0.05
    optimizer.step()


def mosaic_aware_equals_one_process(rank: int, world: int) -> None:
    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)

    for wrap in (shard, nn.parallel.DistributedDataParallel):
        single = spread_model()
        model = wrap(copy.deepcopy(single))
        pairs = [(each, sgd(each)) for each in (single, model)]
        trainings = [
            mosaic_aware(each, MoMos(4, capacity=0.4, seed=5), optimizer, every=2)
            for each, optimizer in pairs
        ]
        for turn in range(5):
            for each, optimizer in pairs:
                step(each, optimizer)
            assert_equal(model, single)
            if turn == 2:
                # Taken up by another model from there.
                state = trainings[1].state_dict()
                other = wrap(spread_model())
                rest = sgd(other)
                rest.load_state_dict(copy.deepcopy(pairs[1][1].state_dict()))
                resumed = mosaic_aware(other, MoMos(4, capacity=0.4), rest, every=2)
                resumed.load_state_dict(state)
                assert_equal(other, single)
            elif turn > 2:
                step(other, rest)
                assert_equal(other, single)
        expected, got = (training.finish() for training in trainings)
        assert_same_stats(got, expected)
        assert_equal(model, single)


CHECKS: list[Check] = [
    fsdp_equals_one_process, fsdp_training_goes_on, fsdp_never_gathers_the_model,
    fsdp_names_the_bad_parameter_everywhere, other_placements_are_refused,
    ddp_equals_one_process, ddp_draws_from_the_first_process_generator,
    mosaic_aware_equals_one_process,
]  # fmt: skip


def run_checks(rank: int, world: int, store: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        for check in CHECKS:
            try:
                check(rank, world)
            except BaseException as error:
                raise AssertionError(f"{check.__name__} on process {rank}: {error}") from error
            dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_equal_one(world: int, tmp_path: Path) -> None:
    mp.spawn(run_checks, args=(world, str(tmp_path / "store")), nprocs=world)  # type: ignore[attr-defined]
