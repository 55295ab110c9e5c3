"""How much a model's outputs depend on each row of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError

__all__ = ["GradientSquares", "outputs_of"]


def outputs_of(outputs: Any) -> Tensor | None:
    """The first floating tensor of what a model returns; None if there is none.

    Args:
        outputs: A tensor, a tuple, list or mapping of them, or an object with such a mapping's
            interface, such as the outputs of transformers.
    """
    if isinstance(outputs, Tensor):
        return outputs if outputs.is_floating_point() else None
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, (tuple, list)):
        for each in outputs:
            found = outputs_of(each)
            if found is not None:
                return found
    return None


_FEATURES_AT = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers that have an output feature for every row of their weight."""


class GradientSquares:
    """Mean squares of gradients of random projections of the outputs.

    For outputs ``y``, weights ``W`` and a random vector ``v`` of independent standard normal
    values, the mean of the squared gradient of ``v . y`` is that of the squared derivatives of all
    outputs, so small independent errors of variance ``s`` change the outputs by ``s`` times its sum
    in the mean square. Each sample's outputs are first divided by their root mean square.

    How the sum over a linear or convolutional layer is shared by its output features follows from
    the squared gradients with respect to these, which are steadier (as in K-FAC, Martens and
    Grosse, 2015): the sum over a row of a weight may depend on a single input.

    Args:
        model: The model.
        seed: Of the projections.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model = model
        self.samples = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._named = dict(model.named_parameters(remove_duplicate=False))
        self._totals: dict[int, Tensor] = {}
        self._features: dict[int, Tensor] = {}

    def add(self, run: Callable[[], Any], mask: Tensor | None) -> int:
        """Runs the model with gradients and adds their squares.

        Args:
            run: Runs the model on a batch and returns its outputs.
            mask: Which tokens count; all if None.

        Returns:
            The number of samples: the size of the outputs' first dimension.

        Raises:
            InvalidArgumentError: If the outputs hold no floating tensor, or do not depend on the
                parameters.
        """
        parameters = [
            each
            for each in {id(each): each for each in self._named.values()}.values()
            if each.is_floating_point()
        ]
        frozen = [each for each in parameters if not each.requires_grad]
        handles = [
            layer.register_forward_hook(self._watch)
            for layer in self.model.modules()
            if isinstance(layer, _FEATURES_AT)
        ]
        try:
            for each in frozen:
                each.requires_grad_(True)
            outputs = outputs_of(run())
            if outputs is None or outputs.grad_fn is None:
                raise InvalidArgumentError(
                    "the model's outputs have no gradients, so it cannot be told how much they "
                    "depend on each layer; give gradient_samples=0 to do without, or forward="
                )
            gradients = torch.autograd.grad(
                self._projected(outputs, mask), parameters, allow_unused=True
            )
        finally:
            for handle in handles:
                handle.remove()
            for each in frozen:
                each.requires_grad_(False)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and gradient.dim() > 1:
                _add(self._totals, id(parameter), gradient.detach().double().square().sum())
        samples = len(outputs) if outputs.dim() else 1
        self.samples += samples
        return samples

    def _watch(self, layer: nn.Module, arguments: Any, output: Tensor) -> None:
        """Sums the squares of an output's gradient, feature by feature."""
        del arguments
        weights = [each for each in layer.parameters() if each.dim() > 1]
        if not output.requires_grad or len(weights) != 1:
            return
        # Without a batch, features come first too.
        kernel: Any = getattr(layer, "kernel_size", ())
        axis = -1 - len(kernel)

        def hook(gradient: Tensor) -> None:
            squares = gradient.detach().double().square().transpose(0, axis)
            _add(self._features, id(weights[0]), squares.flatten(1).sum(1))

        output.register_hook(hook)  # type: ignore[no-untyped-call]

    def _projected(self, outputs: Tensor, mask: Tensor | None) -> Tensor:
        projection = torch.randn(outputs.shape, generator=self._generator)
        projection = projection.to(outputs.device, torch.float32)
        if mask is not None and outputs.dim() >= 3 and outputs.shape[:2] == mask.shape:
            projection = projection * mask.reshape(*mask.shape, *[1] * (outputs.dim() - 2))
        wide = outputs.float()
        scale = (
            wide.detach().flatten(1).square().mean(1).sqrt() if wide.dim() > 1 else wide.new_ones(1)
        )
        scale = scale.clamp_min(1e-12).reshape(-1, *[1] * max(wide.dim() - 1, 0))
        return (projection * wide / scale).sum()

    def means(self) -> dict[str, Tensor]:
        """By name of a parameter, the mean per sample of each row's sum."""
        found = {}
        for name, parameter in self._named.items():
            total = self._totals.get(id(parameter))
            if total is None:
                continue
            features = self._features.get(id(parameter))
            if features is None or len(features) != len(parameter) or not features.sum() > 0:
                features = torch.ones(len(parameter), dtype=torch.float64, device=total.device)
            found[name] = features / features.sum() * (total / max(self.samples, 1))
        # A parametrized weight goes by its plain name too.
        for name in list(found):
            path, _, rest = name.partition("parametrizations.")
            if rest:
                found.setdefault(path + rest.split(".")[0], found[name])
        return found


def _add(sums: dict[int, Tensor], key: int, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value
