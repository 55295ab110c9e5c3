"""Recognising the mosaic that a model's weights already are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import ModelMosaic, Span
from momos_rs.projection.targets import Patterns, Target, find_targets

__all__ = ["find_mosaic"]


def find_mosaic(
    model: nn.Module, s: int, *, include: Patterns = (), exclude: Patterns = ()
) -> ModelMosaic:
    """The mosaic with one motif for every distinct block of a model's trainable parameters.

    A model that was projected, or unpacked from an archive, gets its own motifs back, except those
    that no block uses. Blocks are told apart by their bits. The padding of a parameter's last
    block is free, so that block takes any motif that begins with its elements.

    Args:
        model: The model.
        s: Block size.
        include: Glob patterns; if there are any, only matching parameters are looked at.
        exclude: Glob patterns of parameters to leave out, such as those an archive holds exactly.

    Returns:
        The mosaic, its motifs in order of first use.

    Raises:
        InvalidArgumentError: If the model has no such parameter, its parameters are of several
            dtypes, or it is sharded over processes.
    """
    targets, _ = find_targets(model, include=include, exclude=exclude)
    _check(targets)
    spans: list[Span] = []
    whole: list[Tensor] = []
    first = 0
    for target in targets:
        blocks = -(-target.numel // s)
        spans.append(Span(target.name, tuple(target.shape), first, blocks))
        first += blocks
        flat = target.part.values.reshape(-1)
        whole.append(flat[: target.numel // s * s].view(-1, s).to(targets[0].part.values.device))
    distinct, indices_of_whole = _distinct_rows(torch.cat(whole))
    motifs = [distinct]
    indices: list[Tensor] = []
    at, k = 0, len(distinct)
    for target, span in zip(targets, spans, strict=True):
        full = target.numel // s
        indices.append(indices_of_whole[at : at + full])
        at += full
        if span.blocks > full:
            rest = target.part.values.reshape(-1)[full * s :].to(distinct.device)
            found = _starting_with(torch.cat(motifs), rest)
            if found is None:
                motifs.append(torch.nn.functional.pad(rest, (0, s - len(rest)))[None])
                found = k
                k += 1
            indices.append(torch.tensor([found], device=distinct.device))
    return ModelMosaic(torch.cat(motifs), torch.cat(indices), tuple(spans))


def _check(targets: list[Target]) -> None:
    for target in targets:
        if target.part.sharded:
            raise InvalidArgumentError("the model is sharded over processes; gather it first")
        if target.dtype != targets[0].dtype:
            raise InvalidArgumentError(
                f"parameters {targets[0].name!r} and {target.name!r} are of different dtypes; "
                "choose those of one dtype (include=, exclude=)"
            )


def _bits(values: Tensor) -> Tensor:
    """Floating values as integers, so that equal means equal bits."""
    integer = {8: torch.int64, 4: torch.int32, 2: torch.int16}[values.element_size()]
    return values.contiguous().view(integer)


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows in order of first appearance, and which of them each row is."""
    if not len(rows):
        return rows, torch.empty(0, dtype=torch.int64, device=rows.device)
    _, label = torch.unique(_bits(rows), dim=0, return_inverse=True)
    count = int(label.max()) + 1
    position = torch.arange(len(rows), device=rows.device)
    appears = torch.full((count,), len(rows), device=rows.device)
    appears.scatter_reduce_(0, label, position, reduce="amin")
    order = torch.argsort(appears)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count, device=rows.device)
    return rows[appears[order]], rank[label]


def _starting_with(motifs: Tensor, start: Tensor) -> int | None:
    if not len(motifs):
        return None
    same = (_bits(motifs[:, : len(start)]) == _bits(start)).all(dim=1).nonzero()
    return int(same[0]) if len(same) else None
