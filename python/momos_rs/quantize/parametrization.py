"""Taking parametrizations off without harming copies of the model."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["remove_parametrization"]


def remove_parametrization(module: nn.Module, name: str, *, keep_value: bool) -> None:
    """As :func:`torch.nn.utils.parametrize.remove_parametrizations`, safe for copied models.

    torch gives a parametrized module a class of its own whose property computes the tensor, lets
    a deep copy share that class, and deletes the property from it on removal. Taking the
    parametrization off a copy would so break the model it was copied from.

    Args:
        module: A module with a parametrized tensor.
        name: The tensor.
        keep_value: Whether the parameter becomes the computed tensor, or the original again.
    """
    shared = type(module)
    attributes = {
        key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")
    }
    module.__class__ = type(shared.__name__, shared.__bases__, attributes)
    with torch.no_grad():
        parametrize.remove_parametrizations(module, name, leave_parametrized=keep_value)
