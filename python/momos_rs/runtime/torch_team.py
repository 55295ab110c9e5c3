"""Teams of several processes, by torch.distributed.

Arrays travel as the bytes they are, and nothing is summed that depends on an order, so what comes
out does not depend on the number of processes. gloo carries arrays in main memory; nccl carries
them over GPUs, where there is a faster network between those.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from momos_rs.errors import InvalidArgumentError, MomosError

from .team import SOLO, Team

__all__ = ["BACKENDS", "Backend", "ProcessTeam", "TeamError", "joined"]

Item = TypeVar("Item")
Array = TypeVar("Array", bound="npt.NDArray[Any]")

Backend = Literal["gloo", "nccl"]
BACKENDS: tuple[Backend, ...] = ("gloo", "nccl")

_START_TIMEOUT = datetime.timedelta(minutes=5)
"""For all processes to arrive."""

_TIMEOUT = datetime.timedelta(hours=12)
"""For one process to wait for another. A process that dies closes its connections, which the others
notice at once; this is for a machine that vanishes without a word. The longest wait of a healthy
run is for others to finish a search, of hours for the largest models."""

_BYTES_PER_MESSAGE = 1 << 28

_NOTE_TIMEOUT = datetime.timedelta(seconds=10)


class OtherProcessError(MomosError):
    """Another process of the team does not answer."""


class TeamError(MomosError):
    """The team has failed.

    Attributes:
        told: Whether another process is the one to say so.
    """

    def __init__(self, text: str, *, told: bool) -> None:
        super().__init__(text)
        self.told = told


class ProcessTeam(Team):
    """The processes of the default group of torch.distributed.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_size: Number of those on this machine, as torchrun says.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(self.size)))
        nccl = dist.get_backend() == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if nccl else None

    def join(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order of the ranks, on every one of them."""
        everywhere: list[Any] = [None] * self.size
        with _watched():
            dist.all_gather_object(everywhere, list(items))
        return [item for some in everywhere for item in some]

    def concatenate(self, rows: Array) -> Array:
        """The rows of all processes, in the order of the ranks, on every one of them."""
        counts = self.join([len(rows)])
        together = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        start = 0
        for rank, count in enumerate(counts):
            part = together[start : start + count]
            if rank == self.rank:
                part[...] = rows
            self._broadcast(part, rank)
            start += count
        return together  # type: ignore[return-value]

    def sum_counts(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sums integers over all processes; every process gets the sums."""
        sums = torch.from_numpy(counts.copy())
        if self._device is not None:
            sums = sums.to(self._device)
        with _watched():
            dist.all_reduce(sums, dist.ReduceOp.SUM)
        summed: npt.NDArray[np.int64] = sums.cpu().numpy()
        return summed

    def from_last(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The arrays of the last process, on every one; all pass arrays of that shape and type."""
        copies = [np.array(array, order="C") for array in arrays]
        for copy in copies:
            self._broadcast(copy, self.size - 1)
        return copies

    def from_first(self, item: Item) -> Item:
        """What the first process passes, on every one of them."""
        box = [item]
        with _watched():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def receive(self, array: npt.NDArray[Any], source: int) -> None:
        """Fills an array with what another process sends by :meth:`send`."""
        for message in _messages(array):
            tensor = message if self._device is None else message.to(self._device)
            with _watched():
                dist.recv(tensor, src=source)
            if tensor is not message:
                message.copy_(tensor)

    def send(self, array: npt.NDArray[Any], target: int) -> None:
        """Sends an array to another process, which waits for one of that shape and type."""
        for message in _messages(array):
            tensor = message if self._device is None else message.to(self._device)
            with _watched():
                dist.send(tensor, dst=target)

    def _broadcast(self, array: npt.NDArray[Any], source: int) -> None:
        for message in _messages(array):
            tensor = message if self._device is None else message.to(self._device)
            with _watched():
                dist.broadcast(tensor, src=source)
            if tensor is not message:
                message.copy_(tensor)


@contextlib.contextmanager
def joined(backend: Backend = "gloo") -> Iterator[Team]:
    """The team of the processes that torchrun has started, until the block ends.

    If the block raises in one process, it raises :class:`TeamError` in the others, whatever they
    wait for.

    Args:
        backend: What carries the messages.

    Yields:
        The team; that of a process on its own if torchrun has not started this one.

    Raises:
        InvalidArgumentError: If there is no such backend here.
        TeamError: If another process has failed or has not arrived, or has said already why this
            one fails.
    """
    if "RANK" not in os.environ:
        yield SOLO
        return
    if backend == "nccl":
        if not (torch.cuda.is_available() and dist.is_nccl_available()):
            raise InvalidArgumentError("nccl needs CUDA, which is not available; use gloo")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    with _watched():
        dist.init_process_group(backend, timeout=_TIMEOUT)
    notes = _Notes()
    try:
        with _watched():
            if backend == "gloo":
                dist.monitored_barrier(timeout=_START_TIMEOUT)
            else:
                dist.barrier()
        yield ProcessTeam()
    except OtherProcessError as error:
        raise TeamError(notes.cause(), told=not notes.may_tell()) from error
    except BaseException as error:
        if isinstance(error, (Exception, KeyboardInterrupt, SystemExit)):
            notes.leave(error)
            if notes.may_tell():
                raise
            raise TeamError(notes.cause(), told=True) from error
        # This process is told to stop, most likely because another one has.
        raise TeamError(notes.cause(), told=not notes.may_tell()) from error
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


class _Notes:
    """What processes tell each other when they can no longer talk."""

    def __init__(self) -> None:
        self._rank = dist.get_rank()
        self._store: Any = dist.distributed_c10d._get_default_store()
        with contextlib.suppress(RuntimeError):
            self._store.set_timeout(_NOTE_TIMEOUT)

    def leave(self, error: BaseException) -> None:
        """Says why this process fails, unless another one has said why it does."""
        text = " ".join(str(error).split()) or type(error).__name__
        with contextlib.suppress(RuntimeError):
            self._store.compare_set("momos/failure", "", f"process {self._rank}: {text}")

    def cause(self) -> str:
        """What the first process to fail said."""
        with contextlib.suppress(RuntimeError):
            if self._store.check(["momos/failure"]):
                return bytes(self._store.get("momos/failure")).decode()
        return "the run was stopped, or one of its processes was killed or lost"

    def may_tell(self) -> bool:
        """Whether no process has asked this before."""
        try:
            return int(self._store.add("momos/told", 1)) == 1
        except RuntimeError:  # the process that kept the notes is gone
            return True


def _messages(array: npt.NDArray[Any]) -> Iterator[torch.Tensor]:
    """The bytes of a contiguous array, as tensors over its memory."""
    data = array.reshape(-1).view(np.uint8)
    for start in range(0, data.size, _BYTES_PER_MESSAGE):
        with warnings.catch_warnings():
            # torch warns that it could write to a read-only array; what is sent is only read.
            warnings.simplefilter("ignore", UserWarning)
            yield torch.from_numpy(data[start : start + _BYTES_PER_MESSAGE])


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Turns the errors of torch.distributed into one that says what they mean."""
    try:
        yield
    except RuntimeError as error:
        raise OtherProcessError(
            f"another process has failed: {' '.join(str(error).split())[:200]}"
        ) from error
