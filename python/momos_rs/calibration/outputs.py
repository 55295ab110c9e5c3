"""How a packed model's outputs differ from the original's."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from momos_rs.archive import open_archive
from momos_rs.checkpoint import to_state_dict
from momos_rs.errors import InvalidArgumentError

from .collect import Forward, attention_mask, evaluating, run_forward, to_device
from .gradients import outputs_of

__all__ = ["OutputComparison", "compare_outputs"]


@dataclass(frozen=True)
class OutputComparison:
    """How outputs differ; vectors are the outputs along their last dimension.

    Attributes:
        vectors: Number of vectors compared.
        cosine: Mean cosine between vectors and the original ones.
        relative_error: ``||y - y'||^2 / ||y||^2`` over all of them.
        top1_agreement: Share of vectors whose largest element is where the original's is.
        kl_divergence: Mean Kullback-Leibler divergence in nats of the distributions whose logits
            the vectors are, from the original's.
    """

    vectors: int
    cosine: float
    relative_error: float
    top1_agreement: float
    kl_divergence: float

    def to_dict(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return asdict(self)


def compare_outputs(
    model: nn.Module,
    archive: str | os.PathLike[str] | bytes | nn.Module | Mapping[str, Tensor],
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
) -> OutputComparison:
    """Runs a model and its packed twin on the same inputs and compares what they return.

    Args:
        model: The original; it is left as it was.
        archive: A file or bytes that momos packed from it, or the twin itself, or its state dict.
        batches: As for :func:`~momos_rs.calibration.calibrate`. Tokens that an ``attention_mask``
            leaves out are not compared.
        forward: Called with a model and a batch instead of the model. The first floating tensor
            of what it returns is compared.

    Returns:
        How they differ.

    Raises:
        OSError: If the archive cannot be read.
        CorruptionError: If it is damaged.
        InvalidArgumentError: If it is of another model, there is no batch, or there are no outputs
            to compare.
    """
    twin = _twin(model, archive)
    place = next((each.device for each in model.parameters()), torch.device("cpu"))
    sums = _Sums()
    with evaluating(model), evaluating(twin), torch.no_grad():
        for batch in batches:
            batch = to_device(batch, place)
            outputs = [outputs_of(run_forward(each, batch, forward)) for each in (model, twin)]
            sums.add(outputs[0], outputs[1], attention_mask(batch))
    return sums.comparison()


def _twin(model: nn.Module, archive: Any) -> nn.Module:
    if isinstance(archive, nn.Module):
        return archive
    if isinstance(archive, (str, os.PathLike, bytes)):
        source = archive if isinstance(archive, bytes) else Path(archive)
        with open_archive(source) as opened:
            state: Mapping[str, Tensor] = to_state_dict(opened.checkpoint())
    else:
        state = archive
    twin = copy.deepcopy(model)
    try:
        missing, unexpected = twin.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"the archive is of another model than {type(model).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from None
    if missing or unexpected:
        first = (missing or unexpected)[0]
        raise InvalidArgumentError(
            f"the archive is of another model than {type(model).__name__}: {first!r} is in "
            f"{'the model' if missing else 'the archive'} only"
        )
    return twin


class _Sums:
    """Sums over vectors."""

    def __init__(self) -> None:
        self.vectors = 0
        self.cosine = self.error = self.energy = self.agreement = self.divergence = 0.0

    def add(self, original: Tensor | None, packed: Tensor | None, mask: Tensor | None) -> None:
        if original is None or packed is None or not original.dim():
            raise InvalidArgumentError(
                "the model returns no floating tensor to compare; give forward="
            )
        if mask is not None and original.dim() >= 3 and original.shape[:2] == mask.shape:
            original, packed = original[mask], packed[mask]
        a, b = (each.double().reshape(-1, each.shape[-1]) for each in (original, packed))
        self.vectors += len(a)
        self.cosine += float(nn.functional.cosine_similarity(a, b).sum())
        self.error += float((a - b).square().sum())
        self.energy += float(a.square().sum())
        self.agreement += float((a.argmax(1) == b.argmax(1)).sum())
        log_a, log_b = (each.log_softmax(1) for each in (a, b))
        self.divergence += float((log_a.exp() * (log_a - log_b)).sum())

    def comparison(self) -> OutputComparison:
        if not self.vectors:
            raise InvalidArgumentError("there are no batches to compare on; give at least one")
        return OutputComparison(
            self.vectors,
            self.cosine / self.vectors,
            self.error / self.energy if self.energy else math.nan if self.error else 0.0,
            self.agreement / self.vectors,
            max(self.divergence / self.vectors, 0.0),
        )
