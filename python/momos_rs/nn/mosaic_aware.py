"""Mosaic-aware training: a model is trained through the mosaic that it will be.

As in quantisation-aware training, the forward and the backward pass see the simplified weights, and
the gradient is applied to the dense ones as if they had been used (straight-through, Bengio et al.,
2013). Between two steps of the optimizer the parameters *are* the mosaic; so evaluation,
checkpoints and packing find one at any time. Only while the optimizer steps do they hold the dense
weights, to which its state belongs. After the step every block gets its nearest motif and every
motif moves to the mean of its blocks, a Lloyd iteration a step, so motifs follow the weights.

Nothing is put into the model or the optimizer but the optimizer's own step hooks; parameters keep
their identity. Models whose layers cache weights (recurrent ones) need no special care.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import ModelMosaic, MoMos, ProjectionStats
from momos_rs.projection.motifs import Assignment, assign_blocks, move_to_means
from momos_rs.projection.parameter_blocks import Blocks
from momos_rs.projection.shards import Communicator, as_parameter, local_values
from momos_rs.projection.targets import Target

__all__ = ["MosaicAware", "mosaic_aware", "training_of"]

_RUNNING: weakref.WeakKeyDictionary[nn.Module, weakref.ref[MosaicAware]] = (
    weakref.WeakKeyDictionary()
)


def mosaic_aware(
    model: nn.Module,
    momos: MoMos,
    *optimizers: torch.optim.Optimizer,
    every: int = 1,
    warmup: int = 0,
) -> MosaicAware:
    """Trains a model through its mosaic from now on.

    The loop stays as it is. After the last step call :meth:`MosaicAware.finish`, or
    :func:`momos_rs.nn.materialize` on the model: it stays the exact mosaic it was trained as.

    Args:
        model: Any module; wrapped in ``DistributedDataParallel``, compiled, or sharded by FSDP2.
        momos: Block size, number of motifs and choice of parameters. Its ``method`` does not
            matter: motifs start spread (or as ``select=`` or ``motifs=`` say), are refined by its
            ``iterations``, and move with the blocks from then on.
        optimizers: What trains the model. More can be attached later.
        every: Steps from one search for the nearest motifs to the next. In between, blocks keep
            their motifs, which move all the same.
        warmup: Steps before the mosaic, in which the model is trained densely.

    Returns:
        The training, whose state belongs into checkpoints.

    Raises:
        InvalidArgumentError: If the model is trained through a mosaic already, or a number is out
            of its range.

    Example:
        >>> import torch
        >>> from momos_rs import MoMos
        >>> from momos_rs.nn import mosaic_aware
        >>> model = torch.nn.Linear(64, 32)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> training = mosaic_aware(model, MoMos(s=4, capacity=0.05), optimizer)
        >>> for _ in range(3):
        ...     loss = model(torch.randn(8, 64)).square().mean()
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> stats = training.finish()
        >>> stats.k, stats.m
        (26, 520)
    """
    training = MosaicAware(model, momos, every=every, warmup=warmup)
    for optimizer in optimizers:
        training.attach(optimizer)
    return training


def training_of(model: nn.Module) -> MosaicAware | None:
    """The mosaic-aware training that a model is in, None if it is in none."""
    running = _RUNNING.get(_bare(model))
    return None if running is None else running()


class MosaicAware:
    """The training of a model through its mosaic; see :func:`mosaic_aware`.

    Args:
        model: The model.
        momos: What the mosaic is.
        every: Steps from one search to the next.
        warmup: Steps before the mosaic.

    Attributes:
        steps: Optimizer steps so far.
    """

    def __init__(self, model: nn.Module, momos: MoMos, *, every: int = 1, warmup: int = 0) -> None:
        if every < 1 or warmup < 0:
            raise InvalidArgumentError(
                f"every must be at least 1 and warmup at least 0, not {every}, {warmup}"
            )
        if training_of(model) is not None:
            raise InvalidArgumentError("the model is trained through a mosaic already")
        self.model = model
        self.momos = momos
        self.every = every
        self.warmup = warmup
        self.steps = 0
        self._motifs: Tensor | None = None
        self._indices: Assignment = {}
        # The dense weights while the parameters are the mosaic, one tensor a target.
        self._dense: list[Tensor] | None = None
        self._seed = 0
        self._hooks: list[Any] = []
        _RUNNING[_bare(model)] = weakref.ref(self)

    @property
    def started(self) -> bool:
        """Whether the parameters are a mosaic by now."""
        return self._motifs is not None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes an optimizer step on the dense weights. Wrappers of optimizers are looked into."""
        inner: Any = optimizer
        while hasattr(inner, "optimizer"):
            inner = inner.optimizer
        self._hooks.append(inner.register_step_pre_hook(self._before_step))
        self._hooks.append(inner.register_step_post_hook(self._after_step))

    def begin(self) -> ProjectionStats:
        """Makes the parameters a mosaic if they are not one yet, and gives its figures."""
        if self._dense is None:
            self._show_mosaic(renew=False)
        return self.stats()

    def finish(self) -> ProjectionStats:
        """Ends the training: the parameters stay the mosaic, the optimizers step plainly.

        Returns:
            The figures and the mosaic; the distortion is that between it and the dense weights.
        """
        stats = self.begin()
        self.detach()
        return stats

    def detach(self) -> None:
        """Ends the training without figures, whatever the parameters are."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._dense = None
        if training_of(self.model) is self:
            del _RUNNING[_bare(self.model)]

    @contextmanager
    def dense(self) -> Iterator[None]:
        """Within the context the parameters hold the dense weights."""
        shown = self._dense is not None
        self._show_dense()
        try:
            yield
        finally:
            if shown:
                self._show_mosaic(renew=False)

    def stats(self) -> ProjectionStats:
        """The figures of the mosaic as it is, and the mosaic.

        Raises:
            InvalidArgumentError: If training has not begun, or is over.
        """
        if self._motifs is None or self._dense is None:
            raise InvalidArgumentError("the model is not trained through a mosaic at the moment")
        with torch.no_grad():
            targets, communicator = self.momos.targets_of(self.model)
            kept = [
                replace(target, part=replace(target.part, values=values))
                for target, values in zip(targets, self._dense, strict=True)
            ]
            blocks = Blocks(kept, self.momos.s, communicator)
            table = blocks.rounded(self._motifs)
            changes = blocks.changes(table, self._indices)
            everything = blocks.global_indices(self._indices)
        return ProjectionStats(
            distortion=changes.distortion,
            num_changed_weights=changes.changed,
            motif_counts=changes.counts,
            k=len(table), m=blocks.m, n=blocks.n, s=self.momos.s, q=self.momos.q,
            seed=self._seed,
            seconds=0.0,
            mosaic=None if everything is None else ModelMosaic(table, everything, blocks.spans),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on besides the model and the optimizer; for checkpoints.

        Every process calls it if the model is sharded; its dense weights are then sharded alike.
        """
        state: dict[str, Any] = {
            "steps": self.steps, "seed": self._seed, "momos": self.momos.state_dict(),
            "motifs": None, "indices": None, "dense": {},
        }  # fmt: skip
        if self._motifs is None or self._dense is None:
            return state
        targets, communicator = self.momos.targets_of(self.model)
        blocks = Blocks(targets, self.momos.s, communicator)
        state["motifs"] = self._motifs.cpu()
        state["indices"] = blocks.everywhere(self._indices).to(torch.int32).cpu()
        state["dense"] = {
            target.name: as_parameter(values.clone(), target.parameter)
            for target, values in zip(targets, self._dense, strict=True)
        }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where the training that gave :meth:`state_dict` was.

        The parameters become the mosaic of that moment; so it does not matter whether the model's
        own state is loaded before or after.

        Raises:
            InvalidArgumentError: If the state is of other parameters.
        """
        self.steps, self._seed = state["steps"], state["seed"]
        self.momos.load_state_dict(state["momos"])
        if state["motifs"] is None:
            self._motifs, self._indices, self._dense = None, {}, None
            return
        with torch.no_grad():
            targets, communicator = self.momos.targets_of(self.model)
            if [target.name for target in targets] != list(state["dense"]):
                raise InvalidArgumentError("the state is of a training of other parameters")
            for target in targets:
                target.part.values.copy_(local_values(state["dense"][target.name]))
            blocks = Blocks(targets, self.momos.s, communicator)
            self._motifs = state["motifs"].to(device=blocks.home, dtype=blocks.dtype)
            self._indices = {
                device: state["indices"].to(device=device, dtype=torch.int64)[numbers]
                for device, numbers in blocks.numbers().items()
            }
            self._write(blocks, targets)

    def _before_step(
        self,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # The optimizer itself is the first of the arguments.
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._show_dense()
            return None
        # The optimizer computes gradients itself, by a closure that must see the mosaic.
        wrapped = self._through_mosaic(closure)
        if len(args) > 1:
            return (args[0], wrapped, *args[2:]), kwargs
        return args, {**kwargs, "closure": wrapped}

    def _after_step(self, *_: Any) -> None:
        self.steps += 1
        if self._dense is None and self.steps > self.warmup:
            self._show_mosaic(renew=True)

    def _through_mosaic(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            if self.started and self._dense is None:
                self._show_mosaic(renew=False)
            try:
                return closure()
            finally:
                self._show_dense()

        return call

    @torch.no_grad()
    def _show_dense(self) -> None:
        """Puts the dense weights into the parameters."""
        if self._dense is None:
            return
        targets, _ = self.momos.targets_of(self.model)
        for target, values in zip(targets, self._dense, strict=True):
            target.part.values.copy_(values)
        self._dense = None

    @torch.no_grad()
    def _show_mosaic(self, *, renew: bool) -> None:
        """Puts the mosaic into the parameters, which hold the dense weights."""
        targets, communicator = self.momos.targets_of(self.model)
        blocks = Blocks(targets, self.momos.s, communicator)
        if self._motifs is None:
            self._motifs, self._seed = self.momos.first_motifs(blocks, communicator)
            self._indices = assign_blocks(blocks, self._motifs)
        elif renew:
            self._renew(blocks, communicator)
        self._write(blocks, targets)

    def _renew(self, blocks: Blocks, communicator: Communicator) -> None:
        assert self._motifs is not None
        if self.steps % self.every == 0:
            self._indices = assign_blocks(blocks, self._motifs)
        fixed = int(self.momos.has_zero)
        self._motifs = move_to_means(
            blocks, self._motifs, self._indices, communicator=communicator, fixed=fixed
        )

    def _write(self, blocks: Blocks, targets: list[Target]) -> None:
        assert self._motifs is not None
        dense = [target.part.values.clone() for target in targets]
        blocks.write(blocks.rounded(self._motifs), self._indices)
        self._dense = dense


def _bare(model: nn.Module) -> nn.Module:
    """The module within the wrappers of data parallelism and compilation."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
