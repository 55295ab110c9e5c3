"""The models of the recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError

__all__ = ["MODELS", "build_model"]


def build_model(name: str, shape: Sequence[int], classes: int) -> nn.Module:
    """A freshly initialised classifier.

    Args:
        name: A key of :data:`MODELS`, or a timm model name when timm is installed.
        shape: Shape of one input, channels first.
        classes: Number of classes.

    Raises:
        InvalidArgumentError: If there is no such model, or it does not take such inputs.
    """
    if name in MODELS:
        return MODELS[name](tuple(shape), classes)
    try:
        import timm
    except ImportError:
        raise InvalidArgumentError(
            f"unknown model {name!r}; it is one of {', '.join(MODELS)}, or any timm model with "
            "timm installed: pip install timm"
        ) from None
    if not timm.is_model(name):
        raise InvalidArgumentError(
            f"unknown model {name!r}; neither one of {', '.join(MODELS)} nor a timm model"
        )
    if len(shape) != 3:
        raise InvalidArgumentError(f"model {name!r} takes images, not inputs of shape {shape}")
    sizes: dict[str, Any] = {"img_size": shape[-1]} if _takes_image_size(name) else {}
    made: nn.Module = timm.create_model(
        name, pretrained=False, in_chans=shape[0], num_classes=classes, **sizes
    )
    return made


def _takes_image_size(name: str) -> bool:
    return name.startswith(("vit_", "deit", "swin", "mixer_"))


def mlp(shape: tuple[int, ...], classes: int, *, width: int = 256, hidden: int = 4) -> nn.Module:
    """The paper's multilayer perceptron: four hidden layers of 256 units with ReLU."""
    inputs = torch.Size(shape).numel()
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(hidden):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def convnet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """A small convolutional network for images or one-dimensional signals."""
    one_dimensional = len(shape) == 2
    convolution: type[nn.Module] = nn.Conv1d if one_dimensional else nn.Conv2d
    norm: type[nn.Module] = nn.BatchNorm1d if one_dimensional else nn.BatchNorm2d
    pool: type[nn.Module] = nn.AdaptiveAvgPool1d if one_dimensional else nn.AdaptiveAvgPool2d
    kernel, padding = (5, 2) if one_dimensional else (3, 1)
    layers: list[nn.Module] = []
    channels = shape[0]
    for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2)):
        layers += [
            convolution(channels, width, kernel, stride=stride, padding=padding, bias=False),
            norm(width),
            nn.ReLU(),
        ]
        channels = width
    cells = 4 if one_dimensional else 2
    flat = channels * (cells if one_dimensional else cells * cells)
    return nn.Sequential(*layers, pool(cells), nn.Flatten(), nn.Linear(flat, classes))


class _ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self._stride = stride
        self._new_channels = outputs - inputs

    def forward(self, images: Tensor) -> Tensor:
        shortcut = images
        if self._new_channels:
            # The shortcut without parameters of He et al. 2016: subsample, new channels are zero.
            shortcut = images[:, :, :: self._stride, :: self._stride]
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self._new_channels))
        hidden = torch.relu(self.norm1(self.conv1(images)))
        return torch.relu(self.norm2(self.conv2(hidden)) + shortcut)


def resnet20(shape: tuple[int, ...], classes: int) -> nn.Module:
    """ResNet-20 for small images (He et al. 2016, section 4.2): 272,474 weights on CIFAR-10."""
    if len(shape) != 3:
        raise InvalidArgumentError(f"resnet20 takes images, not inputs of shape {shape}")
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    channels = 16
    for width in (16, 32, 64):
        for position in range(3):
            stride = 2 if position == 0 and width > 16 else 1
            layers.append(_ResidualBlock(channels, width, stride))
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


MODELS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "mlp": mlp,
    "convnet": convnet,
    "resnet20": resnet20,
}
"""Model builders by name: from input shape and number of classes."""
