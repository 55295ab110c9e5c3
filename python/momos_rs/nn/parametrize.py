"""Motif fine-tuning: the motifs become the trainable parameters, the mosaic stays.

With the assignment of blocks to motifs fixed, a weight is ``motifs[index of its block]``, and the
gradient of a motif is the sum over all blocks that use it (the paper's linear component of the
hypothesis class, arXiv 2602.14896). Any optimizer can then recover what a projection cost, and the
result is still exactly a mosaic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from momos_rs.errors import InvalidArgumentError
from momos_rs.projection import ModelMosaic, Span
from momos_rs.projection.memory import memory_of, overlap
from momos_rs.projection.targets import plain_name
from momos_rs.quantize.parametrization import remove_parametrization

from .mosaic_aware import training_of

__all__ = ["MosaicWeight", "MotifTable", "materialize", "mosaic_parametrize"]


class MotifTable(nn.Module):
    """The motifs of a model, shared by all of its weights.

    Args:
        motifs: (k, s) floating.
        keep_zero: Whether motifs that are all zero stay so.

    Attributes:
        motifs: The trainable parameter, (k, s).
    """

    trainable: Tensor | None

    def __init__(self, motifs: Tensor, *, keep_zero: bool = False) -> None:
        super().__init__()
        self.motifs = nn.Parameter(motifs.detach().clone())
        trainable = (self.motifs != 0).any(dim=1, keepdim=True) if keep_zero else None
        self.register_buffer("trainable", trainable, persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        """The motifs of blocks: (blocks,) indices to (blocks, s)."""
        motifs: Tensor = self.motifs
        if self.trainable is not None:
            motifs = motifs * self.trainable
        return nn.functional.embedding(indices, motifs)

    def extra_repr(self) -> str:
        """Shown when a model is printed."""
        return f"k={self.motifs.shape[0]}, s={self.motifs.shape[1]}"


class MosaicWeight(nn.Module):
    """The parametrization that makes one weight out of motifs.

    Args:
        table: The motifs.
        indices: The motif of each of the weight's blocks, (blocks,).
        shape: The weight's shape.
        dtype: The weight's dtype, None for that of the motifs.
    """

    indices: Tensor

    def __init__(
        self,
        table: MotifTable,
        indices: Tensor,
        shape: tuple[int, ...],
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.table = table
        self.shape = shape
        self.dtype = dtype
        self.register_buffer("indices", indices.clone())

    def forward(self, original: Tensor) -> Tensor:  # noqa: ARG002
        """The weight; the original has no values any more."""
        flat = self.table(self.indices).reshape(-1)[: torch.Size(self.shape).numel()]
        weight: Tensor = flat.view(self.shape)
        return weight if self.dtype is None else weight.to(self.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is kept of a weight beside its motifs: nothing."""
        return weight.new_empty(0)


def mosaic_parametrize(
    model: nn.Module, mosaic: ModelMosaic, *, keep_zero: bool = False
) -> MotifTable:
    """Makes a mosaic's motifs the parameters of a model, in place.

    Afterwards ``model.parameters()`` holds the motifs once, and whatever was not part of the
    mosaic; make a new optimizer from it. :func:`materialize` turns the model back.

    Args:
        model: A model with the parameters the mosaic speaks of; their values become the mosaic's,
            which are the same if the mosaic comes from the model's last projection.
        mosaic: ``stats.mosaic`` of a projection, or :func:`find_mosaic` of a model that is one.
        keep_zero: Whether the zero motif stays zero (weights that are zero stay zero).

    Returns:
        The table whose ``motifs`` is the new parameter.

    Raises:
        InvalidArgumentError: If the model lacks a parameter of the mosaic or has it in another
            shape, a parameter belongs to a recurrent layer (which caches its weights and would not
            see the motifs change) or shares memory with another (a transpose, a slice), or the
            weights are made of motifs already. The model is then as it was.
    """
    if any(isinstance(each, MotifTable) for each in model.modules()):
        raise InvalidArgumentError("the model's weights are made of motifs already")
    uses = [(span, _uses(model, span)) for span in mosaic.spans if span.blocks]
    table = MotifTable(mosaic.motifs, keep_zero=keep_zero)
    for span, places in uses:
        first = places[0][0]._parameters[places[0][1]]
        assert first is not None
        # One parametrization for all uses: that is how materialize knows what was tied.
        weight = MosaicWeight(
            table,
            mosaic.indices_of(span).to(first.device),
            span.shape,
            None if first.dtype == mosaic.motifs.dtype else first.dtype,
        )
        for module, name in places:
            # Registering empties the parameter, which may be in use elsewhere.
            module._parameters[name] = nn.Parameter(torch.empty_like(first))
            parametrize.register_parametrization(module, name, weight)
            _chain(module, name).original.requires_grad_(False)
    return table


def materialize(model: nn.Module) -> int:
    """Turns weights made of motifs back into plain parameters, in place.

    Weights that were tied are tied again. The parameters are new objects: make a new optimizer. A
    model that is trained through its mosaic (:func:`mosaic_aware`) keeps its parameters, which stay
    the mosaic, and its training ends.

    Returns:
        The number of motifs, 0 if the model had none.
    """
    training = training_of(model)
    if training is not None:
        return training.finish().k
    motifs = next((len(each.motifs) for each in model.modules() if isinstance(each, MotifTable)), 0)
    made: dict[MosaicWeight, nn.Parameter] = {}
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            weight = next(
                (each for each in _chain(module, name) if isinstance(each, MosaicWeight)), None
            )
            if weight is None:
                continue
            remove_parametrization(module, name, keep_value=True)
            values = module._parameters[name]
            assert values is not None
            module._parameters[name] = made.setdefault(weight, nn.Parameter(values.detach()))
    return motifs


def _uses(model: nn.Module, span: Span) -> list[tuple[nn.Module, str]]:
    """Every module and attribute that holds a parameter of the mosaic."""
    named = {
        plain_name(name): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    parameter = named.get(span.name)
    if parameter is None:
        raise InvalidArgumentError(f"the model has no parameter {span.name!r} as the mosaic has")
    if tuple(parameter.shape) != span.shape:
        raise InvalidArgumentError(
            f"parameter {span.name!r} is of shape {tuple(parameter.shape)}, in the mosaic "
            f"{span.shape}"
        )
    memory = memory_of(parameter)
    places = [
        (module, name)
        for module in model.modules()
        for name, each in module._parameters.items()
        if each is not None and memory_of(each) == memory
    ]
    for name, other in named.items():
        if memory_of(other) != memory and overlap(other, parameter):
            raise InvalidArgumentError(
                f"parameters {span.name!r} and {name!r} share memory in another way than as "
                "identical tensors, which motifs cannot replace; exclude both"
            )
    for module, _ in places:
        if isinstance(module, nn.RNNBase):
            raise InvalidArgumentError(
                f"parameter {span.name!r} belongs to a {type(module).__name__}, which caches its "
                "weights; leave recurrent layers out of the mosaic (exclude=)"
            )
    return places


def _chain(module: nn.Module, name: str) -> parametrize.ParametrizationList:
    return module.parametrizations[name]  # type: ignore[index,return-value]
