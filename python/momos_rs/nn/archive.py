"""From an archive straight to a model with trainable motifs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import ModelMosaic, Span
from momos_rs.projection.targets import plain_name

from .parametrize import MotifTable, mosaic_parametrize

if TYPE_CHECKING:
    from momos_rs.archive import Archive

__all__ = ["archive_mosaic", "load_parametrized"]


def load_parametrized(
    model: nn.Module, archive: str | os.PathLike[str] | bytes, *, keep_zero: bool = False
) -> MotifTable:
    """Loads an archive into a model and makes its motifs the trainable parameters.

    The way to recover accuracy after packing: load, train, :func:`materialize`, and save with
    :func:`momos_rs.save`; the result is a mosaic with the same assignment.

    Args:
        model: A model with the archive's tensors (``load_state_dict(strict=True)``).
        archive: The archive's path or bytes.
        keep_zero: Whether the zero motif stays zero.

    Returns:
        The table whose ``motifs`` is the new parameter.

    Raises:
        InvalidArgumentError: If the archive holds no parameter of the model as mosaic.
        RuntimeError: If the archive's tensors are not the model's.
        CorruptionError: If the archive is damaged.
    """
    from momos_rs.archive import open_archive

    with open_archive(archive) as opened:
        model.load_state_dict(dict(opened))
        mosaic = archive_mosaic(opened, model)
    return mosaic_parametrize(model, mosaic, keep_zero=keep_zero)


def archive_mosaic(archive: Archive, model: nn.Module) -> ModelMosaic:
    """The part of an archive's mosaic that is a model's trainable parameters.

    Raises:
        InvalidArgumentError: If there is no such part.
    """
    mosaic = archive.mosaic()
    names = {
        plain_name(name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }
    spans = []
    if mosaic is not None:
        members = archive.document.members()
        offsets = mosaic.offsets
        first_of = {base: offsets[at : at + 2] for at, base in enumerate(members)}
        for entry in archive.document.entries:
            # A view of a part of its storage is loaded as an ordinary weight.
            whole = entry.strides is None and entry.name in names and entry.base in first_of
            if not whole:
                continue
            first, end = first_of.pop(entry.base)
            spans.append(Span(entry.name, tuple(entry.shape), first, end - first))
    if mosaic is None or not spans:
        raise InvalidArgumentError(
            f"{archive.source} holds no trainable parameter of the model as mosaic"
        )
    return ModelMosaic(
        torch.from_numpy(mosaic.motifs.copy()),
        torch.from_numpy(mosaic.indices.astype("int64")),
        tuple(spans),
    )
