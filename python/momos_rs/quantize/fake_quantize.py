"""Quantisation-aware training: weights are rounded in the forward pass, gradients pass straight.

Symmetric uniform quantisation per tensor, as in the reference implementation of Mosaic-of-Motifs
(arXiv 2602.14896): with ``Q = 2**(q-1) - 1`` levels on either side, ``scale = max|w| / Q`` and
``w' = scale * round(w / scale)``. The rounding's gradient is taken as one (straight-through); the
scale is a constant of the step.

Quantisers are parametrizations of modules' ``weight``: the trained parameter stays in full
precision underneath, and it is the one a projection projects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from momos_rs.errors import InvalidArgumentError

from .parametrization import remove_parametrization

__all__ = [
    "AttachedQuantizers",
    "FakeQuantizer",
    "attach_quantizers",
    "enable_quantizers",
    "fake_quantize",
    "remove_quantizers",
]


class _StraightThroughRound(torch.autograd.Function):
    """Rounds to whole levels. The gradient is one everywhere, also at the outermost levels."""

    @staticmethod
    def forward(ctx: object, values: Tensor, levels: int) -> Tensor:  # noqa: ARG004
        return torch.round(values).clamp(-levels, levels)

    @staticmethod
    def backward(
        ctx: object,  # noqa: ARG004
        gradient: Tensor,
    ) -> tuple[Tensor, None]:
        return gradient, None


def fake_quantize(weights: Tensor, bits: int) -> Tensor:
    """Rounds a tensor to ``bits`` bits and back, with a straight-through gradient.

    Args:
        weights: Any shape, floating.
        bits: 2 to 31; 32 returns the tensor itself.

    Returns:
        The tensor on its grid, same shape and dtype. A tensor of zeros comes back as it is.

    Raises:
        InvalidArgumentError: If ``bits`` is out of range.
    """
    _check_bits(bits)
    if bits == 32 or weights.numel() == 0:
        return weights
    levels = 2 ** (bits - 1) - 1
    largest = weights.detach().abs().amax()
    # Data-dependent branches would break compiled graphs: a zero tensor divides by one instead.
    scale = torch.where(largest > 0, largest / levels, torch.ones_like(largest))
    rounded: Tensor = _StraightThroughRound.apply(weights / scale, levels)
    return scale * rounded


class FakeQuantizer(nn.Module):
    """The parametrization that quantises a weight.

    Args:
        bits: Bits of a weight, 2 to 32.
        enabled: Whether it quantises at all.
    """

    def __init__(self, bits: int, *, enabled: bool = True) -> None:
        super().__init__()
        _check_bits(bits)
        self.bits = bits
        self.enabled = enabled

    def forward(self, weights: Tensor) -> Tensor:
        """The weight the module computes with."""
        return fake_quantize(weights, self.bits) if self.enabled else weights

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"bits={self.bits}, enabled={self.enabled}"


@dataclass(frozen=True)
class AttachedQuantizers:
    """How many modules got a quantiser, and how many had one whose bits were set.

    Attributes:
        attached: Modules with a new quantiser.
        updated: Modules whose quantiser was there.
    """

    attached: int
    updated: int

    @property
    def total(self) -> int:
        """Modules with a quantiser."""
        return self.attached + self.updated


def attach_quantizers(
    model: nn.Module,
    bits: int,
    *,
    exclude: Sequence[str] = (),
    enabled: bool = True,
    norms: bool = False,
) -> AttachedQuantizers:
    """Quantises the trainable ``weight`` of every module; biases stay as they are.

    Normalisation layers are left alone as in the reference implementation: their weights are few,
    and of another scale than their neighbours.

    Modules that have a quantiser already get the new bits. Attach before making the optimizer: the
    trained parameter keeps its identity, only its name changes
    (``layer.parametrizations.weight.original``).

    Args:
        model: The model, changed in place.
        bits: Bits of a weight, 2 to 31.
        exclude: Tokens; modules whose name contains one (in any case) are left alone, as are those
            whose weight's full name matches one as a glob pattern.
        enabled: Whether the quantisers work at once.
        norms: Whether to quantise normalisation layers, too.

    Raises:
        InvalidArgumentError: If ``bits`` is out of range, or no module has a trainable weight.
    """
    _check_bits(bits)
    tokens = [token.lower() for token in exclude]
    kept = set() if norms else {each for each in model.modules() if _is_norm(each)}
    attached = updated = 0
    # Attaching adds modules, so the walk is over a list made before.
    for name, module in list(model.named_modules()):
        weight_name = f"{name}.weight".lstrip(".")
        excluded = any(
            token in name.lower() or fnmatchcase(weight_name, pattern)
            for token, pattern in zip(tokens, exclude, strict=True)
        )
        if excluded or module in kept:
            continue
        quantizer = _quantizer_of(module)
        if quantizer is not None:
            quantizer.bits, quantizer.enabled = bits, enabled
            updated += 1
            continue
        weight = module._parameters.get("weight")
        if weight is None or not weight.requires_grad or weight.numel() == 0:
            continue
        parametrize.register_parametrization(module, "weight", FakeQuantizer(bits, enabled=enabled))
        attached += 1
    if not attached + updated:
        raise InvalidArgumentError("no module has a trainable weight to quantise")
    return AttachedQuantizers(attached, updated)


def enable_quantizers(model: nn.Module, enabled: bool = True) -> int:
    """Switches all attached quantisers on or off; returns how many there are."""
    quantizers = [each for each in model.modules() if isinstance(each, FakeQuantizer)]
    for quantizer in quantizers:
        quantizer.enabled = enabled
    return len(quantizers)


def remove_quantizers(model: nn.Module, *, keep_quantized: bool = False) -> int:
    """Takes all quantisers off again.

    Args:
        model: The model, changed in place.
        keep_quantized: Whether the weights become the quantised ones; by default they are the
            full-precision ones that were trained.

    Returns:
        The number of modules that had one.

    Raises:
        InvalidArgumentError: If a quantised weight has other parametrizations too.
    """
    quantized = [
        (name, module)
        for name, module in model.named_modules()
        if _quantizer_of(module) is not None
    ]
    for name, module in quantized:
        if len(module.parametrizations["weight"]) > 1:
            raise InvalidArgumentError(
                f"the weight of {name!r} has parametrizations besides its quantiser; take those "
                "off first"
            )
    for _, module in quantized:
        remove_parametrization(module, "weight", keep_value=keep_quantized)
    return len(quantized)


def _is_norm(module: nn.Module) -> bool:
    known = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    # Libraries bring norms of their own (LlamaRMSNorm, LayerNorm2d); all have a vector of weights.
    weight = module._parameters.get("weight")
    named = "norm" in type(module).__name__.lower() and weight is not None and weight.dim() == 1
    return isinstance(module, known) or named


def _quantizer_of(module: nn.Module) -> FakeQuantizer | None:
    if not parametrize.is_parametrized(module, "weight"):
        return None
    chain = module.parametrizations["weight"]  # type: ignore[index]
    return next((each for each in chain if isinstance(each, FakeQuantizer)), None)


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 32:
        raise InvalidArgumentError(f"bits must be from 2 to 32, not {bits}")
