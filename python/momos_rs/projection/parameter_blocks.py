"""The blocks of a model's parameters: cut out of them, and written back as motifs.

Block ``b`` of a parameter is its elements ``b*s ... b*s + s - 1`` in logical (C) order, whatever
the memory layout; the last block of every parameter is padded with zeros, which no statistic
counts. All blocks of the model are numbered in the order of its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError

from .exact_sum import ExactSum
from .result import Span
from .shards import Communicator
from .targets import Target

__all__ = ["Blocks", "Changes", "row_sums"]

# Statistics widen slices of this many values to float64 at a time.
_SLICE_VALUES = 1 << 22


@dataclass(frozen=True, eq=False)
class _Piece:
    """The blocks of one parameter that this process owns, as rows of its device's matrix."""

    target: Target
    span: Span
    first_owned: int  # within the parameter
    rows: slice
    start: int  # range of elements this process holds
    stop: int
    real: int  # elements of the owned blocks that are not padding
    counted: bool  # whether sums over processes take this process's word for it

    @property
    def owned(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def first_global(self) -> int:
        return self.span.first_block + self.first_owned

    @property
    def device(self) -> torch.device:
        return self.target.part.values.device


@dataclass(frozen=True)
class Changes:
    """What replacing blocks by motifs changes.

    Attributes:
        distortion: Sum of squared changes of the real entries.
        changed: Number of real entries with another value.
        counts: Blocks per motif, (k,) int64 on the CPU.
    """

    distortion: float
    changed: int
    counts: Tensor


class Blocks:
    """A copy of the parameters' values as blocks, (m, s) per device.

    Values are held in float32, or float64 if any parameter is float64, which represents all of
    them exactly.

    Args:
        targets: The parameters.
        s: Block size.
        communicator: The processes that share them.

    Attributes:
        spans: The blocks of every parameter.
        m: Number of blocks in all, over all processes.
        n: Number of weights in all.
        dtype: Type of the blocks, and of motifs.
        common_dtype: Type of all parameters, None if they differ.
        home: The device on which motifs are made.
    """

    def __init__(self, targets: Sequence[Target], s: int, communicator: Communicator) -> None:
        self.s = s
        self.spans = _spans(targets, s)
        self.m = sum(span.blocks for span in self.spans)
        self.n = sum(target.numel for target in targets)
        wide = any(target.dtype == torch.float64 for target in targets)
        self.dtype = torch.float64 if wide else torch.float32
        types = {target.dtype for target in targets}
        self.common_dtype = types.pop() if len(types) == 1 else None
        self.home = next(target.part.values.device for target in targets if target.numel)
        self._communicator = communicator
        self._pieces = self._plan(targets)
        self._matrices = self._copy()
        self._touched: list[_Piece] = []
        self._check_finite()

    def _plan(self, targets: Sequence[Target]) -> list[_Piece]:
        rank = self._communicator.rank
        rows: dict[torch.device, int] = {}
        pieces = []
        for target, span in zip(targets, self.spans, strict=True):
            part = target.part
            start, stop = part.bounds[rank if part.sharded else 0]
            first, last = _owned(start, stop, self.s)
            begin = rows.get(part.values.device, 0)
            rows[part.values.device] = begin + last - first
            counted = part.sharded or rank == 0
            window = slice(begin, begin + last - first)
            real = max(0, min((last - first) * self.s, target.numel - first * self.s))
            pieces.append(_Piece(target, span, first, window, start, stop, real, counted))
        self._rows = rows
        return pieces

    def _copy(self) -> dict[torch.device, Tensor]:
        matrices = {
            device: torch.zeros(rows, self.s, dtype=self.dtype, device=device)
            for device, rows in self._rows.items()
        }
        heads = self._exchange(self._own_heads())
        for position, piece in enumerate(self._pieces):
            flat = matrices[piece.device][piece.rows].view(-1)
            values = piece.target.part.values
            if not piece.target.part.sharded:
                flat[: values.numel()].view(values.shape).copy_(values)
                continue
            own = values.reshape(-1)[self._head_length(piece) :]
            flat[: own.numel()].copy_(own)
            filled = own.numel()
            end = min(flat.numel(), piece.target.numel - piece.first_owned * self.s)
            # Elements of the last owned block that the following processes hold.
            for other in range(self._communicator.rank + 1, self._communicator.size):
                if filled >= end:
                    break
                length = self._head_length_of(piece.target, other)
                flat[filled : filled + length].copy_(heads[other, position, :length])
                filled += length
        return matrices

    def _head_length_of(self, target: Target, rank: int) -> int:
        start, stop = target.part.bounds[rank]
        return min(-(-start // self.s) * self.s, stop) - start

    def _head_length(self, piece: _Piece) -> int:
        """Leading elements held here that belong to a block owned by an earlier process."""
        if not piece.target.part.sharded:
            return 0
        return self._head_length_of(piece.target, self._communicator.rank)

    def _own_heads(self) -> list[Tensor]:
        return [
            piece.target.part.values.reshape(-1)[: self._head_length(piece)]
            for piece in self._pieces
        ]

    def _exchange(self, fragments: list[Tensor]) -> Tensor:
        """Gives every process the fragments (under s values per parameter) of all processes.

        Returns them as (processes, parameters, s - 1).
        """
        own = torch.zeros(len(fragments), self.s - 1, dtype=self.dtype, device=self.home)
        if self._communicator.size == 1:
            return own.unsqueeze(0)
        for position, fragment in enumerate(fragments):
            own[position, : fragment.numel()].copy_(fragment)
        return self._communicator.gather(own)

    def _check_finite(self) -> None:
        bad = torch.zeros(len(self._pieces), dtype=torch.int64, device=self.home)
        for position, piece in enumerate(self._pieces):
            bad[position] = (~torch.isfinite(self._rows_of(piece))).sum()
        for piece, count in zip(self._pieces, self._communicator.max_(bad).tolist(), strict=True):
            if count:
                raise InvalidArgumentError(
                    f"parameter {piece.span.name!r} holds NaN or Inf; nothing was projected"
                )

    def _rows_of(self, piece: _Piece) -> Tensor:
        return self._matrices[piece.device][piece.rows]

    @property
    def matrices(self) -> dict[torch.device, Tensor]:
        """This process's blocks by device, each (rows, s)."""
        return self._matrices

    def counted_rows(self) -> list[tuple[torch.device, slice]]:
        """Rows of :attr:`matrices` that sums over processes take from this process."""
        joined: dict[torch.device, list[slice]] = {}
        for piece in self._pieces:
            if not piece.counted or not piece.owned:
                continue
            runs = joined.setdefault(piece.device, [])
            if runs and runs[-1].stop == piece.rows.start:
                runs[-1] = slice(runs[-1].start, piece.rows.stop)
            else:
                runs.append(piece.rows)
        return [(device, rows) for device, runs in joined.items() for rows in runs]

    def numbers(self) -> dict[torch.device, Tensor]:
        """The global number of every row of :attr:`matrices`, (rows,) int64 by device."""
        numbers = {
            device: torch.empty(rows, dtype=torch.int64, device=device)
            for device, rows in self._rows.items()
        }
        for piece in self._pieces:
            end = piece.first_global + piece.owned
            rows = numbers[piece.device][piece.rows]
            torch.arange(piece.first_global, end, out=rows, device=piece.device)
        return numbers

    def take(self, indices: Tensor) -> Tensor:
        """Blocks by their global index.

        Args:
            indices: (n,) int64 on the CPU.

        Returns:
            (n, s) on the home device, the same on every process.
        """
        taken = torch.zeros(len(indices), self.s, dtype=self.dtype, device=self.home)
        for device, chosen, rows in self._locate(indices):
            taken[chosen.to(self.home)] = self._matrices[device][rows.to(device)].to(self.home)
        if self._communicator.size > 1:
            # One process has the block, the others have zero bits: the sum of the patterns is it.
            bits = torch.int64 if self.dtype == torch.float64 else torch.int32
            taken = self._communicator.sum_(taken.view(bits)).view(self.dtype)
        return taken

    def _locate(self, indices: Tensor) -> list[tuple[torch.device, Tensor, Tensor]]:
        """Which of the blocks are counted here: by device, their positions and their rows."""
        counted = [piece for piece in self._pieces if piece.counted and piece.owned]
        if not counted:
            return []
        firsts = torch.tensor([piece.first_global for piece in counted], device="cpu")
        owned = torch.tensor([piece.owned for piece in counted], device="cpu")
        rows = torch.tensor([piece.rows.start for piece in counted], device="cpu")
        at = (torch.searchsorted(firsts, indices, right=True) - 1).clamp(min=0)
        local = indices - firsts[at]
        here = (local >= 0) & (local < owned[at])
        found = []
        for device in self._matrices:
            places = [piece.device == device for piece in counted]
            on_device = torch.tensor(places, device="cpu")
            (chosen,) = (here & on_device[at]).nonzero(as_tuple=True)
            found.append((device, chosen, rows[at[chosen]] + local[chosen]))
        return found

    def largest_magnitude(self) -> float:
        """The largest absolute value of any weight."""
        largest = torch.zeros(1, dtype=self.dtype, device=self.home)
        for matrix in self._matrices.values():
            if matrix.numel():
                low, high = torch.aminmax(matrix)
                largest = torch.maximum(largest, torch.maximum(-low, high).to(self.home))
        return float(self._communicator.max_(largest).item())

    def global_indices(self, indices: dict[torch.device, Tensor]) -> Tensor | None:
        """Motif indices of all blocks in global order on the home device.

        Args:
            indices: Motif indices by device, matching :attr:`matrices`.

        Returns:
            (m,) int64, or None if blocks are spread over processes.
        """
        if self._communicator.size > 1:
            return None
        return torch.cat([indices[p.device][p.rows].to(self.home) for p in self._pieces])

    def everywhere(self, indices: dict[torch.device, Tensor]) -> Tensor:
        """As :meth:`global_indices`, also of blocks that are spread over processes."""
        whole = torch.zeros(self.m, dtype=torch.int64, device=self.home)
        numbers = self.numbers()
        for device, rows in self.counted_rows():
            whole[numbers[device][rows].to(self.home)] = indices[device][rows].to(self.home)
        return self._communicator.sum_(whole)

    def rounded(self, motifs: Tensor) -> Tensor:
        """Motifs as the parameters will hold them, if these are all of one dtype."""
        return motifs if self.common_dtype is None else motifs.to(self.common_dtype).to(self.dtype)

    def replace(self, motifs: Tensor, indices: dict[torch.device, Tensor]) -> Changes:
        """Writes motifs over the parameters and says what that changed.

        A value is rounded to its parameter's dtype, and the statistics are of what was written.
        If writing fails halfway, the parameters get their values back.

        Args:
            motifs: (k, s), in the blocks' dtype, on the home device.
            indices: Motif indices by device, matching :attr:`matrices`.
        """
        try:
            self.write(motifs, indices)
            return self.changes(motifs, indices)
        except BaseException:
            for piece in self._touched:
                self._restore(piece)
            raise

    def write(self, motifs: Tensor, indices: dict[torch.device, Tensor]) -> None:
        """As :meth:`replace`, without figures and without a way back."""
        new = self._new_values(motifs, indices)
        tails = self._exchange(self._own_tails(new))
        self._touched.clear()
        for position, piece in enumerate(self._pieces):
            self._touched.append(piece)
            own = new[piece.device][piece.rows].view(-1)[: piece.real]
            self._write(piece, own, self._new_head(piece, tails[:, position]))

    def changes(self, motifs: Tensor, indices: dict[torch.device, Tensor]) -> Changes:
        """What replacing the blocks by motifs changes; arguments as in :meth:`replace`."""
        return self._changes(self._new_values(motifs, indices), indices, len(motifs))

    def _new_values(
        self, motifs: Tensor, indices: dict[torch.device, Tensor]
    ) -> dict[torch.device, Tensor]:
        """What the blocks become: rounded to their parameter's dtype, zero where padded."""
        new = {device: motifs.to(device)[each] for device, each in indices.items()}
        for piece in self._pieces:
            rows = new[piece.device][piece.rows]
            if piece.target.dtype != self.dtype:
                rows.copy_(rows.to(piece.target.dtype))
            rows.view(-1)[piece.real :] = 0
        return new

    def _changes(
        self, new: dict[torch.device, Tensor], indices: dict[torch.device, Tensor], k: int
    ) -> Changes:
        distortion = ExactSum(self.home)
        figures = torch.zeros(1 + k, dtype=torch.int64, device=self.home)
        step = max(1, _SLICE_VALUES // self.s)
        for device, rows in self.counted_rows():
            local = ExactSum(device)
            for begin in range(rows.start, rows.stop, step):
                window = slice(begin, min(begin + step, rows.stop))
                # Exact for float32, and rounded once for float64.
                difference = (
                    self._matrices[device][window].to(torch.float64).sub_(new[device][window])
                )
                figures[0] += torch.count_nonzero(difference).to(self.home)
                local.add(row_sums(difference.mul_(difference)))
            figures[1:] += torch.bincount(indices[device][rows], minlength=k).to(self.home)
            distortion.merge(local)
        distortion.reduce(self._communicator)
        figures = self._communicator.sum_(figures).cpu()
        return Changes(distortion.value(), int(figures[0]), figures[1:].clone())

    def _own_tails(self, new: dict[torch.device, Tensor]) -> list[Tensor]:
        """New values of elements that are owned here but held by following processes."""
        tails = []
        for piece in self._pieces:
            end = piece.first_owned * self.s + piece.real
            shared = piece.target.part.sharded and piece.owned
            held = max(0, end - piece.stop) if shared else 0
            own = new[piece.device][piece.rows].view(-1)
            tails.append(own[piece.real - held : piece.real])
        return tails

    def _new_head(self, piece: _Piece, tails: Tensor) -> Tensor:
        """New values of the elements held here whose block belongs to an earlier process.

        Args:
            piece: The parameter's piece.
            tails: What every process sent for this parameter, (processes, s - 1).
        """
        length = self._head_length(piece)
        if not length:
            return tails[0, :0]
        bounds = piece.target.part.bounds
        owner = next(
            rank
            for rank in range(self._communicator.rank - 1, -1, -1)
            if _owned(*bounds[rank], self.s)[0] < _owned(*bounds[rank], self.s)[1]
        )
        offset = piece.start - bounds[owner][1]
        return tails[owner, offset : offset + length]

    def _write(self, piece: _Piece, own: Tensor, head: Tensor) -> None:
        values = piece.target.part.values
        if not piece.target.part.sharded:
            values.copy_(own.view(values.shape))
            return
        head_length = self._head_length(piece)
        body = own[: values.numel() - head_length]
        new = torch.cat([head.to(device=values.device, dtype=values.dtype), body])
        values.copy_(new.view(values.shape))

    def _restore(self, piece: _Piece) -> None:
        """Puts back the old values of the owned elements."""
        values = piece.target.part.values
        old = self._rows_of(piece).reshape(-1)
        if not piece.target.part.sharded:
            values.copy_(old[: values.numel()].view(values.shape))
            return
        head_length = self._head_length(piece)
        kept = values.reshape(-1)[:head_length].clone()
        body = old[: values.numel() - head_length].to(values.dtype)
        values.copy_(torch.cat([kept, body]).view(values.shape))


def _spans(targets: Sequence[Target], s: int) -> tuple[Span, ...]:
    spans = []
    first = 0
    for target in targets:
        blocks = -(-target.numel // s)
        spans.append(Span(target.name, tuple(target.shape), first, blocks))
        first += blocks
    return tuple(spans)


def _owned(start: int, stop: int, s: int) -> tuple[int, int]:
    """First and one-past-last block whose first element lies in the range of elements."""
    return -(-start // s), -(-stop // s)


def row_sums(rows: Tensor) -> Tensor:
    """Sums over the last dimension by halving, so that only element-wise additions happen.

    Library reductions choose their order by device, vector width and threads; element-wise
    additions are rounded alike everywhere.
    """
    width = rows.shape[-1]
    while width > 1:
        half = width // 2
        folded = rows[..., :half] + rows[..., half : 2 * half]
        if width % 2:
            folded = torch.cat([folded, rows[..., 2 * half :]], dim=-1)
        rows = folded
        width = rows.shape[-1]
    return rows[..., 0]
