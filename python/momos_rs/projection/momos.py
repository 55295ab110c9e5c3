"""MoMos: one call that turns a model's weights into a mosaic of motifs, in place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError

from .motifs import assign_blocks, draw_indices, refine, resolve_k
from .parameter_blocks import Blocks
from .random_numbers import seed_of_projection
from .result import ModelMosaic, ProjectionStats
from .shards import Communicator
from .spread import draw_spread
from .targets import Patterns, Target, find_targets

__all__ = ["INITS", "METHODS", "Init", "Method", "MoMos", "Select"]

Method = Literal["random", "spread", "kmeans", "warm"]
METHODS: tuple[Method, ...] = ("random", "spread", "kmeans", "warm")

Init = Literal["spread", "random"]
INITS: tuple[Init, ...] = ("spread", "random")

Select = Callable[[int, int, torch.Generator], Tensor | Sequence[int]]
"""From the number of blocks, the number of motifs to draw and a generator to block indices."""

DEFAULT_ITERATIONS = 5


class MoMos:
    """Projects models onto mosaics: every block of ``s`` weights becomes one of ``k`` motifs.

    Implements the projection of "Mosaic-of-Motifs" (arXiv 2602.14896) with the semantics of its
    reference implementation: all trainable parameters are flattened and cut into blocks of ``s``
    (the last one of each padded with zeros), ``k`` motifs are drawn among all blocks, and every
    block is replaced by the nearest motif in L2, the lowest index on ties.

    The motifs of the ``i``-th projection depend on ``seed`` and ``i`` alone, never on torch's
    global generator, the device, the number of threads or of processes.

    Args:
        s: Block size, 1 to 4096.
        k: Number of motifs; more than there are blocks counts as one for each.
        capacity: Motifs per block, in (0, 1]: ``k = max(1, min(floor(capacity * m), m))``. Give
            either ``k`` or ``capacity``.
        q: Bits of a weight for quantisation-aware training, 2 to 32; :meth:`prepare` attaches the
            fake quantisers if it is under 32. The projection itself takes no notice of it.
        force_zero: Whether the first motif is zero. The others are drawn.
        include: Glob patterns of parameter names; if given, only matching ones are projected.
        exclude: Glob patterns of parameters to leave alone, such as ``"*.bias"``.
        method: ``random`` draws the motifs uniformly (the paper's choice); ``spread`` draws them by
            their distance to those drawn before, so that none is far from its motif; ``kmeans``
            refines drawn motifs by Lloyd's algorithm; ``warm`` does so at first and afterwards
            refines the motifs of the projection before.
        iterations: Lloyd iterations of ``kmeans`` and ``warm``.
        init: How ``kmeans`` and ``warm`` draw the motifs they start from: ``spread`` or
            ``random``.
        seed: Seed of all drawing.
        generator: A CPU generator that gives each projection's seed instead, one 64-bit number a
            projection.
        select: Draws the motifs instead: a callable from ``m``, the number of motifs to draw
            (without the zero motif) and a generator seeded for this projection to block indices.
        motifs: The motifs themselves, (k, s) floating; nothing is drawn and ``force_zero`` does
            nothing.

    Raises:
        InvalidArgumentError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> from momos_rs import MoMos
        >>> model = torch.nn.Linear(64, 32)
        >>> stats = MoMos(s=4, capacity=0.05)(model)
        >>> stats.k, stats.m
        (26, 520)
    """

    def __init__(
        self,
        s: int,
        k: int | None = None,
        capacity: float | None = None,
        q: int = 32,
        force_zero: bool = True,
        *,
        include: Patterns = (),
        exclude: Patterns = (),
        method: Method = "random",
        iterations: int = DEFAULT_ITERATIONS,
        init: Init = "spread",
        seed: int = 0,
        generator: torch.Generator | None = None,
        select: Select | None = None,
        motifs: Tensor | None = None,
    ) -> None:
        self.s = _whole("s", s, 1, 4096)
        self.q = _whole("q", q, 2, 32)
        self.iterations = _whole("iterations", iterations, 0, 10_000)
        self.seed = _whole("seed", seed, 0, (1 << 64) - 1)
        if method not in METHODS:
            raise InvalidArgumentError(
                f"unknown method {method!r}; it is one of {', '.join(METHODS)}"
            )
        if init not in INITS:
            raise InvalidArgumentError(f"unknown init {init!r}; it is one of {', '.join(INITS)}")
        if motifs is None:
            if (k is None) == (capacity is None):
                raise InvalidArgumentError("give either k or capacity, the one or the other")
        elif k is not None or capacity is not None or select is not None:
            raise InvalidArgumentError("motifs= leaves nothing to choose: drop k, capacity, select")
        self.k = None if k is None else _whole("k", k, 1, None)
        self.capacity = None if capacity is None else _check_capacity(capacity)
        self.motifs = None if motifs is None else _check_motifs(motifs, self.s)
        self.force_zero = bool(force_zero)
        self.include = include
        self.exclude = exclude
        self.method: Method = method
        self.init: Init = init
        self.generator = generator
        self.select = select
        self._projections = 0
        self._last_motifs: Tensor | None = None
        self._last_counts: Tensor | None = None

    @property
    def projections(self) -> int:
        """How many projections this object has made."""
        return self._projections

    def prepare(self, model: nn.Module, *, exclude: Sequence[str] = ()) -> int:
        """Attaches fake quantisers to the model's weights if ``q`` is under 32.

        Args:
            model: The model, changed in place.
            exclude: Tokens; modules whose name contains one are left alone.

        Returns:
            The number of quantised modules.
        """
        if self.q >= 32:
            return 0
        from momos_rs.quantize.fake_quantize import attach_quantizers

        return attach_quantizers(model, self.q, exclude=exclude).total

    def __call__(
        self,
        model: nn.Module,
        *,
        k: int | None = None,
        capacity: float | None = None,
        motifs: Tensor | None = None,
    ) -> ProjectionStats:
        """Projects a model in place.

        Parameters keep their identity, memory layout, dtype and device, so optimizers go on with
        their state. Parametrized parameters have their original projected. A model wrapped in
        ``DistributedDataParallel`` or sharded by FSDP2 is projected by all its processes together:
        every one of them makes this call.

        Args:
            model: Any module.
            k: For this projection, instead of the constructor's ``k`` or ``capacity``.
            capacity: For this projection, likewise.
            motifs: For this projection, likewise.

        Returns:
            The figures, and the mosaic.

        Raises:
            InvalidArgumentError: If there is nothing to project, every parameter is smaller than
                a block, a parameter holds NaN or Inf (named), or the motifs do not fit. Every
                weight is then as it was.
        """
        begin = time.perf_counter()
        k, capacity, motifs = self._choices(k, capacity, motifs)
        with torch.no_grad():
            targets, communicator = self.targets_of(model)
            blocks = Blocks(targets, self.s, communicator)
            seed = communicator.agree(self._draw_seed(), blocks.home)
            if motifs is None:
                count = resolve_k(blocks.m, k, capacity)
                table = self._make_motifs(blocks, count, seed, communicator)
            else:
                table = motifs.to(device=blocks.home, dtype=blocks.dtype)
            # What is written is rounded anyway; so the mosaic holds what the weights are.
            table = blocks.rounded(table)
            indices = assign_blocks(blocks, table)
            changes = blocks.replace(table, indices)
        self._projections += 1
        self._last_motifs, self._last_counts = table, changes.counts
        everything = blocks.global_indices(indices)
        return ProjectionStats(
            distortion=changes.distortion,
            num_changed_weights=changes.changed,
            motif_counts=changes.counts,
            k=len(table),
            m=blocks.m,
            n=blocks.n,
            s=self.s,
            q=self.q,
            seed=seed,
            seconds=time.perf_counter() - begin,
            mosaic=None if everything is None else ModelMosaic(table, everything, blocks.spans),
        )

    def targets_of(self, model: nn.Module) -> tuple[list[Target], Communicator]:
        """The parameters of a model that become mosaic, and the processes that share them.

        Raises:
            InvalidArgumentError: If there is none, or none as large as a block.
        """
        targets, communicator = find_targets(model, include=self.include, exclude=self.exclude)
        self._check_block_size(targets)
        return targets, communicator

    def first_motifs(self, blocks: Blocks, communicator: Communicator) -> tuple[Tensor, int]:
        """Motifs to train through: spread over the blocks and refined, whatever the method.

        ``motifs=`` are taken as they are, ``select=`` draws instead.

        Args:
            blocks: All blocks.
            communicator: The processes that share them.

        Returns:
            The motifs, (k, s), and the seed that drew them.
        """
        seed = communicator.agree(self._draw_seed(), blocks.home)
        self._projections += 1
        if self.motifs is not None:
            return self.motifs.to(device=blocks.home, dtype=blocks.dtype).clone(), seed
        k = resolve_k(blocks.m, self.k, self.capacity)
        fixed = int(self.has_zero)
        kept = torch.zeros(fixed, self.s, dtype=blocks.dtype, device=blocks.home)
        if self.select is None:
            drawn = draw_spread(blocks, kept, k - fixed, seed, communicator=communicator)
        else:
            drawn = blocks.take(self._select(blocks, k - fixed, seed))
        motifs = torch.cat([kept, drawn])
        motifs = refine(blocks, motifs, self.iterations, communicator=communicator, fixed=fixed)
        return motifs, seed

    @property
    def has_zero(self) -> bool:
        """Whether the first motif is zero and stays so."""
        return self.force_zero and self.motifs is None

    def state_dict(self) -> dict[str, Any]:
        """What the next projection depends on besides the weights; for checkpoints."""
        return {
            "seed": self.seed,
            "projections": self._projections,
            "motifs": None if self._last_motifs is None else self._last_motifs.cpu(),
            "counts": self._last_counts,
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where the object that gave :meth:`state_dict` was.

        Raises:
            InvalidArgumentError: If the state has a generator and this object has none, or the
                other way round.
        """
        if (state["generator"] is None) != (self.generator is None):
            raise InvalidArgumentError("the state is of a MoMos with another source of randomness")
        self.seed = state["seed"]
        self._projections = state["projections"]
        self._last_motifs = state["motifs"]
        self._last_counts = state["counts"]
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    def __repr__(self) -> str:
        size = f"k={self.k}" if self.k is not None else f"capacity={self.capacity}"
        if self.motifs is not None:
            size = f"motifs={tuple(self.motifs.shape)}"
        return f"MoMos(s={self.s}, {size}, method={self.method!r}, seed={self.seed})"

    def _choices(
        self, k: int | None, capacity: float | None, motifs: Tensor | None
    ) -> tuple[int | None, float | None, Tensor | None]:
        if sum(each is not None for each in (k, capacity, motifs)) > 1:
            raise InvalidArgumentError("give one of k, capacity and motifs")
        if k is not None:
            return _whole("k", k, 1, None), None, None
        if capacity is not None:
            return None, _check_capacity(capacity), None
        if motifs is not None:
            return None, None, _check_motifs(motifs, self.s)
        return self.k, self.capacity, self.motifs

    def _check_block_size(self, targets: list[Target]) -> None:
        largest = max(targets, key=lambda target: target.numel)
        if largest.numel < self.s:
            raise InvalidArgumentError(
                f"s={self.s} is larger than every parameter (the largest, {largest.name!r}, has "
                f"{largest.numel} weights)"
            )

    def _draw_seed(self) -> int:
        if self.generator is None:
            return seed_of_projection(self.seed, self._projections)
        drawn = torch.randint(
            (1 << 63) - 1,
            (),
            dtype=torch.int64,
            generator=self.generator,
            device=self.generator.device,
        )
        return int(drawn)

    def _make_motifs(self, blocks: Blocks, k: int, seed: int, communicator: Communicator) -> Tensor:
        fixed = int(self.force_zero)
        last = self._kept_motifs(blocks, k) if self.method == "warm" else None
        kept = last
        if kept is None:
            kept = torch.zeros(fixed, self.s, dtype=blocks.dtype, device=blocks.home)
        drawn = self._draw(blocks, kept, k - len(kept), seed, communicator, start=last is None)
        motifs = torch.cat([kept, drawn])
        if self.method in ("random", "spread"):
            return motifs
        return refine(blocks, motifs, self.iterations, communicator=communicator, fixed=fixed)

    def _kept_motifs(self, blocks: Blocks, k: int) -> Tensor | None:
        """The last projection's motifs; the most used ones if there are now fewer.

        With ``init="spread"`` those that no block took are left out, to be drawn anew.
        """
        if self._last_motifs is None or self._last_counts is None:
            return None
        weight = self._last_counts.clone()
        if self.force_zero:
            weight[0] = weight.max() + 1
        chosen = torch.argsort(weight, descending=True, stable=True)[:k].sort().values
        if self.init == "spread":
            chosen = chosen[weight[chosen] > 0]
        last = self._last_motifs.to(device=blocks.home, dtype=blocks.dtype)
        return last[chosen.to(blocks.home)]

    def _draw(
        self,
        blocks: Blocks,
        kept: Tensor,
        count: int,
        seed: int,
        communicator: Communicator,
        *,
        start: bool,
    ) -> Tensor:
        """Draws motifs beside those that are kept; ``start`` says that those are no choice."""
        if self.select is not None:
            return blocks.take(self._select(blocks, count, seed))
        if self.method == "random" or (self.method != "spread" and self.init == "random"):
            return blocks.take(draw_indices(blocks.m, count, seed))
        return draw_spread(blocks, kept, count, seed, communicator=communicator, start=start)

    def _select(self, blocks: Blocks, count: int, seed: int) -> Tensor:
        assert self.select is not None
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.as_tensor(self.select(blocks.m, count, generator)).cpu()
        if chosen.shape != (count,) or chosen.dtype.is_floating_point or chosen.is_complex():
            raise InvalidArgumentError(
                f"select must return {count} block indices, not a tensor of shape "
                f"{tuple(chosen.shape)} and {chosen.dtype}"
            )
        if count and (int(chosen.min()) < 0 or int(chosen.max()) >= blocks.m):
            raise InvalidArgumentError(f"select returned block indices outside 0..{blocks.m - 1}")
        return chosen.to(torch.int64)


def _whole(name: str, value: int, least: int, most: int | None) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise InvalidArgumentError(f"{name} must be a whole number, not {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidArgumentError(f"{name} must be {limits}, not {value}")
    return int(value)


def _check_capacity(capacity: float) -> float:
    if not (math.isfinite(capacity) and 0.0 < capacity <= 1.0):
        raise InvalidArgumentError(f"capacity must be over 0 and at most 1, not {capacity}")
    return float(capacity)


def _check_motifs(motifs: Tensor, s: int) -> Tensor:
    if not isinstance(motifs, Tensor) or not motifs.is_floating_point():
        what = motifs.dtype if isinstance(motifs, Tensor) else type(motifs).__name__
        raise InvalidArgumentError(f"motifs must be a floating-point tensor, not {what}")
    if motifs.dim() != 2 or motifs.shape[1] != s or not len(motifs):
        raise InvalidArgumentError(
            f"motifs must be of shape (k, {s}) with k at least 1, not {tuple(motifs.shape)}"
        )
    if not bool(torch.isfinite(motifs).all()):
        raise InvalidArgumentError("motifs hold NaN or Inf")
    return motifs.detach()
