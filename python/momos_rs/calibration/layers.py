"""What each kind of layer multiplies its weights with.

A layer's weight, flattened to a matrix of output features and inputs, is multiplied by vectors:
the features of a linear layer, the patches of a convolution, the hidden states of a recurrent
layer. For every kind of layer known here, :func:`fed_to` says which weights are multiplied by what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

__all__ = ["KINDS", "Fed", "fed_to", "parameter_name"]

PATCH_VALUES = 1 << 24
"""Values of a convolution's patches that are in memory at once, as far as one sample allows."""


@dataclass(frozen=True)
class Fed:
    """Vectors that weights are multiplied with.

    Attributes:
        parameters: Names of the weights within the layer.
        source: The tensor they were made from, by whose identity layers with the same input are
            recognised; None if no other layer can have it.
        form: How they were made from it: equal forms of one source are equal vectors.
        pieces: The vectors, shape (n, groups, width), in pieces; or row numbers of any shape.
        rows: Whether they are row numbers of an embedding with so many rows.
        part: Which of several equal parts of the weights' rows they are for, and of how many.
    """

    parameters: tuple[str, ...]
    source: Tensor | None
    form: tuple[Any, ...]
    pieces: Iterator[Tensor]
    rows: int | None = None
    part: tuple[int, int] = (0, 1)


KINDS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Embedding,
    nn.LSTM,
    nn.GRU,
    nn.LSTMCell,
    nn.GRUCell,
    nn.MultiheadAttention,
)
"""The layers that are known."""


def fed_to(
    layer: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], mask: Tensor | None
) -> Iterator[Fed]:
    """What a layer multiplies its weights with when it is called.

    Args:
        layer: One of :data:`KINDS`.
        arguments: The arguments of its call.
        named: The named arguments.
        mask: Which tokens of a batch count, shape (batch, tokens), bool; all if None.
    """
    if isinstance(layer, nn.MultiheadAttention):
        yield from _attention(layer, arguments, named, mask)
        return
    first = arguments[0] if arguments else named["input"]
    if isinstance(layer, nn.Embedding):
        yield _embedding(layer, first, mask)
    elif isinstance(layer, nn.Linear):
        yield Fed(("weight",), first, ("features",), iter([_features(first, mask)]))
    elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        yield _convolution(layer, first)
    elif isinstance(layer, (nn.LSTMCell, nn.GRUCell)):
        yield Fed(("weight_ih",), first, ("features",), iter([_features(first, None)]))
        state = arguments[1] if len(arguments) > 1 else named.get("hx")
        hidden = state[0] if isinstance(state, tuple) else state
        if hidden is not None:
            yield Fed(("weight_hh",), hidden, ("features",), iter([_features(hidden, None)]))
    else:
        assert isinstance(layer, (nn.LSTM, nn.GRU))
        state = arguments[1] if len(arguments) > 1 else named.get("hx")
        yield from _recurrent(layer, first, state)


def parameter_name(layer: nn.Module, name: str) -> list[str]:
    """The names under which a state dict holds a weight of a layer.

    A parametrized weight is held as its original, which is multiplied with the same inputs as far
    as the parametrization only scales rows or chooses values, and under its plain name once the
    parametrization is removed.
    """
    names = [name]
    parametrizations = getattr(layer, "parametrizations", None)
    if parametrizations is not None and name in parametrizations:
        shape = getattr(layer, name).shape
        names += [
            f"parametrizations.{name}.{each}"
            for each, original in parametrizations[name].named_parameters(recurse=False)
            if original.shape == shape
        ]
    return names


def _features(inputs: Tensor, mask: Tensor | None) -> Tensor:
    """Inputs as (n, 1, width), without those of tokens that do not count."""
    if mask is not None and inputs.dim() >= 3 and inputs.shape[:2] == mask.shape:
        inputs = inputs[mask]
    return inputs.reshape(-1, 1, inputs.shape[-1])


def _embedding(layer: nn.Embedding, indices: Tensor, mask: Tensor | None) -> Fed:
    if mask is not None and indices.dim() == 2:
        if indices.shape == (1, mask.shape[1]):
            indices = indices.expand(mask.shape)
        if indices.shape == mask.shape:
            indices = indices[mask]
    return Fed(("weight",), None, (), iter([indices]), rows=layer.num_embeddings)


def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Fed:
    form = (
        "patches",
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.padding_mode,
    )
    return Fed(("weight",), inputs, form, _patches(layer, inputs))


def _patches(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Iterator[Tensor]:
    """The patches of a convolution's input: (positions, groups, channels per group x taps)."""
    dimensions = len(layer.kernel_size)
    if inputs.dim() == dimensions + 1:
        inputs = inputs[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padding = list(layer._reversed_padding_repeated_twice)
    taps = 1
    for size in layer.kernel_size:
        taps *= size
    per_sample = max(inputs[0].numel() * taps, 1)
    for piece in torch.split(inputs, max(PATCH_VALUES // per_sample, 1)):
        patches = nn.functional.pad(piece, padding, mode=mode)
        for axis in range(dimensions):
            size, dilation = layer.kernel_size[axis], layer.dilation[axis]
            reach = dilation * (size - 1) + 1
            patches = patches.unfold(axis + 2, reach, layer.stride[axis])[..., ::dilation]
        # (samples, channels, positions..., taps...) to (samples, positions..., channels, taps...)
        order = [0, *range(2, 2 + dimensions), 1, *range(2 + dimensions, 2 + 2 * dimensions)]
        yield patches.permute(order).reshape(
            -1, layer.groups, layer.in_channels // layer.groups * taps
        )


def _recurrent(
    layer: nn.LSTM | nn.GRU, inputs: Tensor | PackedSequence, state: Any
) -> Iterator[Fed]:
    """Inputs and hidden states of every layer and direction, found by running them one by one."""
    valid: Tensor | None = None
    if isinstance(inputs, PackedSequence):
        sequence, lengths = pad_packed_sequence(inputs)
        steps = torch.arange(len(sequence), device=sequence.device)
        valid = steps[:, None] < lengths.to(sequence.device)[None, :]
    else:
        sequence = inputs[:, None] if inputs.dim() == 2 else inputs
        if layer.batch_first and inputs.dim() == 3:
            sequence = sequence.transpose(0, 1)
    hidden = state[0] if isinstance(state, tuple) else state
    if hidden is not None and hidden.dim() == 2:
        hidden = hidden[:, None]
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    width = layer.hidden_size if isinstance(layer, nn.GRU) else layer.proj_size or layer.hidden_size
    for number in range(layer.num_layers):
        outputs = []
        for direction, suffix in enumerate(directions):
            name = f"l{number}{suffix}"
            yield Fed(
                (f"weight_ih_{name}",), None, (), iter([_features(_steps(sequence, valid), None)])
            )
            first = sequence.new_zeros(sequence.shape[1], width)
            cell = None
            if hidden is not None:
                first = hidden[number * len(directions) + direction]
                if isinstance(state, tuple):
                    cell = state[1] if state[1].dim() == 3 else state[1][:, None]
                    cell = cell[number * len(directions) + direction]
            output = _single_layer(layer, name, sequence, first, cell, valid, bool(suffix))
            outputs.append(output)
            before = _before(output, first, valid, bool(suffix))
            yield Fed(
                (f"weight_hh_{name}",), None, (), iter([_features(_steps(before, valid), None)])
            )
        sequence = torch.cat(outputs, -1)


def _steps(sequence: Tensor, valid: Tensor | None) -> Tensor:
    return sequence if valid is None else sequence[valid]


def _before(output: Tensor, first: Tensor, valid: Tensor | None, backwards: bool) -> Tensor:
    """The hidden state that every step starts from."""
    if not backwards:
        return torch.cat([first[None], output[:-1]])
    following = torch.cat([output[1:], first[None]])
    if valid is None:
        return following
    more = torch.cat([valid[1:], torch.zeros_like(valid[:1])])
    return torch.where(more[..., None], following, first[None])


def _single_layer(
    layer: nn.LSTM | nn.GRU,
    name: str,
    sequence: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    valid: Tensor | None,
    backwards: bool,
) -> Tensor:
    """The outputs of one layer in one direction, shape (steps, batch, width)."""
    options: dict[str, Any] = {"bias": layer.bias, "device": "meta", "dtype": sequence.dtype}
    if isinstance(layer, nn.LSTM):
        options["proj_size"] = layer.proj_size
    single = type(layer)(sequence.shape[-1], layer.hidden_size, **options)
    for parameter in list(single._parameters):
        del single._parameters[parameter]
        value = getattr(layer, parameter.replace("l0", name)).detach()
        single.register_parameter(parameter, nn.Parameter(value, requires_grad=False))
    single._init_flat_weights()
    start: Any = hidden[None].contiguous()
    if isinstance(layer, nn.LSTM):
        zeros = sequence.new_zeros(sequence.shape[1], layer.hidden_size)
        start = (start, (zeros if cell is None else cell)[None].contiguous())
    if not backwards:
        output: Tensor = single(sequence, start)[0]
        return output
    turned = _turned(sequence, valid)
    return _turned(single(turned, start)[0], valid)


def _turned(sequence: Tensor, valid: Tensor | None) -> Tensor:
    """Sequences in reverse; padding stays at their ends."""
    if valid is None:
        return sequence.flip(0)
    lengths = valid.sum(0)
    steps = torch.arange(len(sequence), device=sequence.device)[:, None]
    order = torch.where(valid, lengths[None] - 1 - steps, steps)
    return sequence.gather(0, order[..., None].expand_as(sequence))


def _attention(
    layer: nn.MultiheadAttention,
    arguments: tuple[Any, ...],
    named: Mapping[str, Any],
    mask: Tensor | None,
) -> Iterator[Fed]:
    """Queries, keys and values, and what the output projection is fed with."""
    names = (
        "query",
        "key",
        "value",
        "key_padding_mask",
        "need_weights",
        "attn_mask",
        "average_attn_weights",
        "is_causal",
    )
    given = dict(zip(names, arguments, strict=False)) | dict(named)
    inputs = [given[name] for name in names[:3]]
    mask = mask if layer.batch_first else None
    separate: Any = layer.in_proj_weight
    if separate is None:
        for name, each in zip("qkv", inputs, strict=True):
            yield Fed((f"{name}_proj_weight",), each, ("features",), iter([_features(each, mask)]))
    elif all(each is inputs[0] for each in inputs):
        yield Fed(("in_proj_weight",), inputs[0], ("features",), iter([_features(inputs[0], mask)]))
    else:
        for number, each in enumerate(inputs):
            fed = iter([_features(each, mask)])
            yield Fed(("in_proj_weight",), each, ("features",), fed, part=(number, 3))
    attended = _attended(layer, given)
    yield Fed(("out_proj.weight",), None, (), iter([_features(attended, mask)]))


def _attended(layer: nn.MultiheadAttention, given: Mapping[str, Any]) -> Tensor:
    """The output of the layer without its output projection."""
    inputs = [given[name] for name in ("query", "key", "value")]
    turn = layer.batch_first and inputs[0].dim() == 3
    if turn:
        inputs = [each.transpose(0, 1) for each in inputs]
    projections: dict[str, Any] = {}
    separate: Any = layer.in_proj_weight
    if separate is None:
        projections = {
            "use_separate_proj_weight": True,
            "q_proj_weight": layer.q_proj_weight,
            "k_proj_weight": layer.k_proj_weight,
            "v_proj_weight": layer.v_proj_weight,
        }
    output, _ = nn.functional.multi_head_attention_forward(
        inputs[0],
        inputs[1],
        inputs[2],
        layer.embed_dim,
        layer.num_heads,
        layer.in_proj_weight,
        layer.in_proj_bias,
        layer.bias_k,
        layer.bias_v,
        layer.add_zero_attn,
        0.0,
        torch.eye(layer.embed_dim, dtype=inputs[0].dtype, device=inputs[0].device),
        None,
        training=False,
        key_padding_mask=given.get("key_padding_mask"),
        need_weights=False,
        attn_mask=given.get("attn_mask"),
        is_causal=bool(given.get("is_causal", False)) and given.get("attn_mask") is not None,
        **projections,
    )
    return output.transpose(0, 1) if turn else output
