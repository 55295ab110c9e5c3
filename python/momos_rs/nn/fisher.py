"""How sensitive a loss is to each weight: the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from momos_rs.errors import InvalidArgumentError

if TYPE_CHECKING:
    import torch

__all__ = ["fisher_diagonal"]


def fisher_diagonal(
    model: torch.nn.Module,
    loader: Iterable[Any],
    loss: Callable[[Any, Any], torch.Tensor],
    *,
    samples: int | None = None,
) -> dict[str, torch.Tensor]:
    """The diagonal of the empirical Fisher information (Kunstner et al., 2019, equation 4).

    For every parameter it is the mean over samples of the squared gradient of the sample's loss. To
    second order, an error ``e`` in the weights costs about ``1/2 sum(fisher * e^2)`` where the loss
    is a negative log-likelihood near its minimum; so it serves as the ``sensitivity`` of packing.

    Args:
        model: The model; its mode (training or evaluation) is left as it is.
        loader: Batches of inputs and targets; both have the samples along their first dimension.
        loss: Takes the model's outputs and the targets of one sample (a batch of one), returns a
            scalar.
        samples: Number of samples to use; all by default.

    Returns:
        By name of a parameter as in the state dict, a float32 tensor of its shape on the CPU;
        tied parameters appear under each of their names. Parameters that need no gradient count as
        if they did.

    Raises:
        InvalidArgumentError: If there are no samples, or a loss is not a finite scalar.
    """
    import torch

    named = dict(model.named_parameters(remove_duplicate=False))
    parameters = list({id(each): each for each in named.values()}.values())
    device = parameters[0].device if parameters else torch.device("cpu")
    sums = [torch.zeros_like(each, dtype=torch.float64) for each in parameters]
    frozen = [each for each in parameters if not each.requires_grad]
    count = 0
    try:
        for each in frozen:
            each.requires_grad_(True)
        with torch.enable_grad():
            for inputs, targets in _single_samples(loader, samples):
                value = loss(model(inputs.to(device)), targets.to(device))
                if value.numel() != 1 or not bool(torch.isfinite(value)):
                    raise InvalidArgumentError(
                        f"the loss of sample {count} is not a finite number: {value}"
                    )
                gradients = torch.autograd.grad(value, parameters, allow_unused=True)
                for total, gradient in zip(sums, gradients, strict=True):
                    if gradient is not None:
                        total += gradient.double() ** 2
                count += 1
    finally:
        for each in frozen:
            each.requires_grad_(False)
    if count == 0:
        raise InvalidArgumentError("the loader holds no samples")
    means = {
        id(each): (total / count).float().cpu()
        for each, total in zip(parameters, sums, strict=True)
    }
    return {name: means[id(each)] for name, each in named.items()}


def _single_samples(loader: Iterable[Any], samples: int | None) -> Iterable[tuple[Any, Any]]:
    """Batches of one sample each."""
    left = samples if samples is not None else -1
    for inputs, targets in loader:
        for index in range(len(inputs)):
            if left == 0:
                return
            left -= 1
            yield inputs[index : index + 1], targets[index : index + 1]
