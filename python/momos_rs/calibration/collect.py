"""Collecting what a model is fed with, batch after batch."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.calibration import Calibration, LayerInputs, Moments
from momos_rs.runtime.budget import default_budget, parse_size

from .gradients import GradientSquares, outputs_of
from .layers import KINDS, Fed, fed_to, parameter_name
from .sums import MomentSums, RowUses

__all__ = ["calibrate", "evaluating", "run_forward", "to_device"]

GRADIENT_SAMPLES = 64
"""Samples whose gradients are taken by default, so many of the first as are reached with whole
batches."""

Forward = Callable[[nn.Module, Any], Any]


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    forward: Forward | None = None,
    memory: int | str | None = None,
    gradient_samples: int = GRADIENT_SAMPLES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """Collects second moments of the inputs of a model's layers, for ``pack(calibration=...)``.

    The model runs in evaluation mode, without gradients but for some samples, and is left in the
    mode it was in. Linear and convolutional layers, embeddings, LSTMs, GRUs and their cells, and
    ``MultiheadAttention`` are known; the weights of other layers are packed without calibration.
    Where a batch is a mapping with an ``attention_mask``, tokens that are masked do not count.

    Args:
        model: The model.
        batches: Any iterable of batches, such as a DataLoader: a tensor, or a tuple or list of
            positional arguments, or a mapping of named ones.
        device: Where the model runs; it is moved there. Where it is by default.
        dtype: If given, layers run in this type where autocast allows it.
        forward: Called with the model and a batch (on its device) instead of the model. What it
            returns is what errors are measured in: return what matters, such as logits.
        memory: Most bytes of sums, or a size like ``"4G"``; half of what is free by default. Layers
            whose moments do not fit keep only the diagonal.
        gradient_samples: Number of samples whose gradients say how much errors of each layer
            matter for the outputs; 0 for none, then all layers count alike.
        seed: Of the random projections of the outputs.
        progress: Called with ``"calibrate"``, the number of batches so far and their number in all
            (0 if unknown).

    Returns:
        The calibration.

    Raises:
        InvalidArgumentError: If there is no batch, no layer that is known, or a layer's inputs
            hold NaN or infinite values.
    """
    gradients = GradientSquares(model, seed) if gradient_samples > 0 else None
    if device is not None:
        model.to(device)
    place = next((each.device for each in model.parameters()), torch.device("cpu"))
    collector = _Collector(model, _budget(memory), place)
    total = len(batches) if isinstance(batches, Sized) else 0
    number = 0
    with evaluating(model), collector:
        for batch in batches:
            batch = to_device(batch, place)
            collector.start(number, attention_mask(batch))
            wanted = gradients is not None and gradients.samples < gradient_samples
            with torch.set_grad_enabled(wanted), _autocast(place, dtype):
                if wanted:
                    assert gradients is not None
                    samples = gradients.add(
                        functools.partial(run_forward, model, batch, forward), collector.mask
                    )
                else:
                    samples = _samples(run_forward(model, batch, forward))
            collector.samples += samples
            number += 1
            if progress:
                progress("calibrate", number, total)
    if number == 0:
        raise InvalidArgumentError("there are no batches to calibrate with; give at least one")
    return collector.result({} if gradients is None else gradients.means())


def attention_mask(batch: Any) -> Tensor | None:
    """Which tokens of a batch count; None if all do."""
    if not isinstance(batch, Mapping):
        return None
    mask = batch.get("attention_mask")
    return mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None


def run_forward(model: nn.Module, batch: Any, forward: Forward | None) -> Any:
    """The outputs of a model for a batch, see :func:`calibrate`."""
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: to_device(each, device) for name, each in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(each, device) for each in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(each, device) for each in batch)
    return batch


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without fused paths that skip layers; modes are restored afterwards."""
    training = [each for each in model.modules() if each.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for each in training:
            each.training = True


def _autocast(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager[Any]:
    if dtype is None or dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def _samples(outputs: Any) -> int:
    found = outputs_of(outputs)
    return len(found) if found is not None and found.dim() else 1


def _budget(memory: int | str | None) -> int:
    if memory is None:
        return default_budget()
    return parse_size(memory) if isinstance(memory, str) else memory


class _Collector:
    """Hooks on the layers of a model, and the sums they add to."""

    def __init__(self, model: nn.Module, budget: int, device: torch.device) -> None:
        self.model = model
        self.budget = budget
        self.device = device
        self.mask: Tensor | None = None
        self.samples = 0
        self._batch = 0
        self._sums: dict[str, MomentSums | RowUses] = {}
        # By weight and part of its rows, the name of its sums.
        self._used: dict[tuple[str, tuple[int, int]], str] = {}
        self._kinds: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._reduced: list[str] = []
        # The inputs of this batch whose sums are made, by name of the sums.
        self._seen: list[tuple[weakref.ref[Tensor], int, tuple[Any, ...], str]] = []
        self._handles: list[Any] = []

    def __enter__(self) -> _Collector:
        for path, module in self.model.named_modules():
            if isinstance(module, KINDS):
                hook = self._hook(path, module)
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        if not self._handles:
            raise InvalidArgumentError(
                f"{type(self.model).__name__} has no layer that can be calibrated (linear, "
                "convolution, embedding, LSTM, GRU or MultiheadAttention)"
            )
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def start(self, batch: int, mask: Tensor | None) -> None:
        """Before each batch."""
        self._batch = batch
        self.mask = mask
        self._seen = []

    def _hook(self, path: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                for fed in fed_to(module, arguments, named, self.mask):
                    self._take(path, module, fed)

        return hook

    def _take(self, path: str, module: nn.Module, fed: Fed) -> None:
        prefix = f"{path}." if path else ""
        first = f"{prefix}{fed.parameters[0]}"
        own = first if fed.part == (0, 1) else f"{first}[{fed.part[0]}]"
        sums_name = self._used.get((first, fed.part))
        shared = self._shared(fed)
        if shared is not None and sums_name in (None, shared):
            self._use(prefix, module, fed, shared)
            return
        # A layer that shared another's inputs and no longer does begins anew.
        self._use(prefix, module, fed, own)
        try:
            self._add(own, fed)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"{first} (batch {self._batch}): {error}; calibrate with inputs that the model "
                "can take in this precision"
            ) from None
        if fed.source is not None:
            self._seen.append((weakref.ref(fed.source), _version(fed.source), fed.form, own))

    def _shared(self, fed: Fed) -> str | None:
        """The sums to which the same vectors were added in this batch."""
        if fed.source is None:
            return None
        for reference, version, form, name in self._seen:
            if reference() is fed.source and version == _version(fed.source) and form == fed.form:
                return name
        return None

    def _use(self, prefix: str, module: nn.Module, fed: Fed, sums_name: str) -> None:
        for parameter in fed.parameters:
            owner, _, leaf = parameter.rpartition(".")
            holder = module.get_submodule(owner) if owner else module
            shape = tuple(getattr(holder, leaf).shape)
            for name in parameter_name(holder, leaf):
                full = prefix + (f"{owner}." if owner else "") + name
                self._used[full, fed.part] = sums_name
                self._shapes[full] = shape
                self._kinds[full] = type(module).__name__

    def _add(self, name: str, fed: Fed) -> None:
        for piece in fed.pieces:
            sums = self._sums.get(name)
            if sums is None:
                sums = self._sums[name] = self._new_sums(name, piece, fed.rows)
            sums.add(piece)

    def _new_sums(self, name: str, piece: Tensor, rows: int | None) -> MomentSums | RowUses:
        if rows is not None:
            return RowUses(rows, piece.device)
        groups, width = piece.shape[1:]
        taken = sum(
            MomentSums.nbytes(each.groups, each.width, diagonal=each.diagonal)
            for each in self._sums.values()
            if isinstance(each, MomentSums)
        )
        diagonal = taken + MomentSums.nbytes(groups, width) > self.budget
        if diagonal:
            self._reduced.append(name)
        return MomentSums(groups, width, diagonal, piece.device)

    def result(self, gradients: Mapping[str, Tensor]) -> Calibration:
        """What was collected."""
        layers = {}
        for full, shape in self._shapes.items():
            parts = sorted(
                (part, name) for (used, part), name in self._used.items() if used == full
            )
            names = tuple(name for _, name in parts)
            if any(name not in self._sums or not self._sums[name].count for name in names):
                continue
            rows = isinstance(self._sums[names[0]], RowUses)
            layers[full] = LayerInputs(self._kinds[full], shape, names, rows)
        if not layers:
            raise InvalidArgumentError("no layer was given any input; check the batches")
        used = {name for layer in layers.values() for name in layer.moments}
        return Calibration(
            type(self.model).__name__,
            self.samples,
            layers,
            {name: _moments(sums) for name, sums in self._sums.items() if name in used},
            {name: each.cpu().numpy() for name, each in gradients.items()},
            tuple(self._notes(layers)),
            tuple(_ties(self.model)),
        )

    def _notes(self, layers: Mapping[str, LayerInputs]) -> Sequence[str]:
        notes = []
        if self._reduced:
            notes.append(
                f"not enough memory for the moments of {', '.join(self._reduced)}: only their "
                "diagonals were kept (--memory)"
            )
        idle = [
            path
            for path, module in self.model.named_modules()
            if isinstance(module, KINDS)
            and not any(name.startswith(f"{path}." if path else "") for name in layers)
        ]
        if idle:
            notes.append(f"never used, so not calibrated: {', '.join(idle)}")
        return notes


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; inference tensors are not counted."""
    return -1 if tensor.is_inference() else tensor._version


def _ties(model: nn.Module) -> Iterator[tuple[str, ...]]:
    """The names of every parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return (tuple(each) for each in names.values() if len(each) > 1)


def _moments(sums: MomentSums | RowUses) -> Moments:
    if isinstance(sums, RowUses):
        return Moments(sums.uses[None].cpu().numpy(), sums.count)
    return Moments(sums.sums.cpu().numpy(), sums.count)
