"""Calibration sums what layers are really fed with."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from momos_rs import checkpoint
from momos_rs.calibration import Calibration, calibrate
from momos_rs.errors import CorruptionError, InvalidArgumentError


def second_moments(inputs: Tensor) -> np.ndarray:
    wide = inputs.detach().double().reshape(-1, inputs.shape[-1])
    return (wide.T @ wide).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()))


def sums(calibration: Calibration, name: str, part: int = 0) -> np.ndarray:
    return calibration.moments[calibration.layers[name].moments[part]].sums


def test_linear_layers_of_several_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    batches = [torch.randn(4, 7, 6), torch.randn(2, 3, 6)]
    found = calibrate(model, batches)
    inputs = torch.cat([each.reshape(-1, 6) for each in batches])
    assert close(sums(found, "0.weight")[0], second_moments(inputs))
    assert close(sums(found, "2.weight")[0], second_moments(model[0](inputs).tanh()))
    assert found.moments["0.weight"].count == 34
    assert found.samples == 6
    assert found.layers["2.weight"].kind == "Linear"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, padding=1, groups=2), (3, 4, 9)),
        (nn.Conv1d(4, 6, 3, dilation=2, padding="same", padding_mode="circular"), (3, 4, 9)),
        (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 3, 7, 6)),
        (nn.Conv2d(4, 4, 3, groups=4, padding_mode="reflect", padding=1), (2, 4, 5, 5)),
        (nn.Conv3d(2, 4, 2, padding=1), (2, 2, 3, 4, 3)),
    ],
)
def test_convolutions_by_what_their_outputs_are(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: tuple[int, ...]
) -> None:
    """The sum of squared outputs is that of the weights with the moments of their inputs."""
    torch.manual_seed(0)
    nn.init.zeros_(layer.get_parameter("bias"))
    inputs = torch.randn(shape)
    found = sums(calibrate(layer, [inputs]), "weight")
    outputs = layer(inputs).detach().double().transpose(0, 1).flatten(1)
    weights = layer.weight.detach().double().flatten(1).numpy()
    per_group = len(weights) // layer.groups
    for output, (weight, row) in enumerate(zip(weights, outputs, strict=True)):
        expected = float(row.square().sum())
        assert weight @ found[output // per_group] @ weight == pytest.approx(expected, rel=1e-4)


def test_embeddings_count_uses_without_masked_tokens() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(self.table(input_ids))}

    model = Encoder()
    ids = torch.tensor([[1, 2, 2, 0], [3, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    found = calibrate(model, [{"input_ids": ids, "attention_mask": mask}])
    assert found.layers["table.weight"].rows
    assert sums(found, "table.weight")[0].tolist() == [0, 1, 2, 1, 0, 0, 0, 0, 0]
    used = model.table(torch.tensor([1, 2, 2, 3]))
    assert close(sums(found, "head.weight")[0], second_moments(used))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers(kind: type[nn.LSTM | nn.GRU], packed: bool) -> None:
    torch.manual_seed(0)
    layer = kind(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    inputs = torch.randn(3, 5, 3)
    lengths = torch.tensor([5, 2, 4])
    given: Any = inputs
    if packed:
        given = nn.utils.rnn.pack_padded_sequence(
            inputs, lengths, batch_first=True, enforce_sorted=False
        )
    found = calibrate(layer, [(given,)], gradient_samples=0)
    outputs, _ = layer(given)
    if packed:
        outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    steps = [(i, t) for i, n in enumerate(lengths if packed else [5] * 3) for t in range(n)]
    used = torch.stack([inputs[i, t] for i, t in steps])
    assert close(sums(found, "weight_ih_l0")[0], second_moments(used))
    # The hidden state that a step starts from is the output before it, or behind it.
    zero = torch.zeros(4)
    last = dict(steps)
    forwards = [outputs[i, t - 1, :4] if t else zero for i, t in steps]
    backwards = [outputs[i, t + 1, 4:] if t < last[i] else zero for i, t in steps]
    assert close(sums(found, "weight_hh_l1")[0], second_moments(torch.stack(forwards)))
    assert close(sums(found, "weight_hh_l1_reverse")[0], second_moments(torch.stack(backwards)))
    assert sums(found, "weight_ih_l1").shape == (1, 8, 8)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_recurrent_cells(kind: type[nn.LSTMCell | nn.GRUCell]) -> None:
    cell = kind(3, 4)
    inputs, hidden = torch.randn(5, 3), torch.randn(5, 4)
    state: Any = (hidden, torch.randn(5, 4)) if kind is nn.LSTMCell else hidden
    found = calibrate(cell, [(inputs, state)], gradient_samples=0)
    assert close(sums(found, "weight_ih")[0], second_moments(inputs))
    assert close(sums(found, "weight_hh")[0], second_moments(hidden))


def test_attention_and_what_its_projection_is_fed_with() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.zeros_(layer.out_proj.bias)
    query, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    found = calibrate(layer, [(query, memory, memory)], gradient_samples=0)
    assert found.layers["in_proj_weight"].moments == (
        "in_proj_weight[0]",
        "in_proj_weight[1]",
        "in_proj_weight[1]",
    )
    assert close(sums(found, "in_proj_weight", 0)[0], second_moments(query))
    assert close(sums(found, "in_proj_weight", 2)[0], second_moments(memory))
    outputs = layer(query, memory, memory)[0].detach().double().reshape(-1, 8)
    weights = layer.out_proj.weight.detach().double().numpy()
    power = np.einsum("oi,ij,oj->o", weights, sums(found, "out_proj.weight")[0], weights)
    assert close(power, outputs.square().sum(0).numpy())


def test_layers_of_a_transformer_are_seen_behind_its_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = calibrate(nn.TransformerEncoder(layer, 2), [torch.randn(2, 4, 8)])
    assert sorted(found.layers)[:4] == [
        "layers.0.linear1.weight",
        "layers.0.linear2.weight",
        "layers.0.self_attn.in_proj_weight",
        "layers.0.self_attn.out_proj.weight",
    ]


def test_one_input_of_several_layers_is_kept_once() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 3)
            self.second = nn.Linear(4, 2)
            self.third = nn.Linear(4, 2)
            self.apart = False

        def forward(self, x: Tensor) -> Tensor:
            other = x + 1 if self.apart else x
            return torch.cat([self.first(x), self.second(other), self.third(x.clone())], -1)

    model = Heads()
    batch = torch.randn(5, 4)
    found = calibrate(model, [batch, batch])
    assert found.layers["second.weight"].moments == ("first.weight",)
    assert found.layers["third.weight"].moments == ("third.weight",)
    assert found.moments["first.weight"].count == 10
    # A layer that stops sharing keeps sums of its own.
    batches = iter([batch, batch])

    def forward(model: nn.Module, batch: Tensor) -> Any:
        result = model(batch)
        model.apart = True  # type: ignore[assignment]
        return result

    found = calibrate(model, batches, forward=forward)
    assert close(sums(found, "second.weight")[0], second_moments(batch + 1))
    assert close(sums(found, "first.weight")[0], 2 * second_moments(batch))


def test_parametrized_and_tied_weights_go_by_all_their_names() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    found = calibrate(tied, [torch.randn(3, 4)])
    assert set(found.layers) == {"0.weight", "1.weight"}
    assert found.ties == (("0.weight", "1.weight"),)
    found.check(checkpoint.from_state_dict(tied))
    # A file may hold a tied weight under one of its names.
    found.check(checkpoint.from_state_dict({"1.weight": tied.get_parameter("0.weight")}))
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    found = calibrate(normed, [torch.randn(3, 4)])
    assert "0.parametrizations.weight.original1" in found.layers
    found.check(checkpoint.from_state_dict(normed))
    nn.utils.parametrize.remove_parametrizations(normed[0], "weight")
    found.check(checkpoint.from_state_dict(normed))


def test_gradients_tell_which_layers_matter() -> None:
    """They are the mean squared derivative of the outputs, here known in closed form."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3, bias=False)
    inputs = torch.randn(4096, 5)
    scale = torch.tensor([1.0, 3.0, 10.0])
    found = calibrate(
        model,
        inputs.split(256),
        forward=lambda model, x: model(x) * scale,
        gradient_samples=4096,
    )
    outputs = model(inputs).detach() * scale
    power = (inputs.square().sum(1) / outputs.square().mean(1)).mean()
    expected = float(power) * scale.square().numpy()
    found_rows = found.gradients["weight"]
    assert np.allclose(found_rows / found_rows.sum(), expected / expected.sum(), rtol=0.3)
    assert found_rows.sum() == pytest.approx(expected.sum(), rel=0.5)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    calibrate(model, [torch.randn(3, 4)])
    assert [each.training for each in (model, *model)] == [True, True, True, False]
    assert [model[0].weight.requires_grad, model[2].weight.requires_grad] == [False, True]
    assert model[2].weight.grad is None
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in model.modules())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@pytest.mark.parametrize(
    "make",
    [
        lambda: [torch.ones(2, 3)],
        lambda: [(torch.ones(2, 3),)],
        lambda: [{"input": torch.ones(2, 3)}],
        lambda: torch.utils.data.DataLoader(list(torch.ones(2, 3)), batch_size=2),  # type: ignore[arg-type]
        lambda: iter([torch.ones(2, 3)]),
    ],
)
def test_batches_of_any_kind(make: Callable[[], Any]) -> None:
    found = calibrate(nn.Linear(3, 2), make())
    assert np.array_equal(sums(found, "weight")[0], np.full((3, 3), 2.0))


def test_values_that_are_no_numbers_name_the_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0] = torch.inf
    with pytest.raises(InvalidArgumentError, match=r"1\.weight \(batch 1\): .*NaN or infinite"):
        calibrate(model, [torch.zeros(0, 3), torch.ones(2, 3)], gradient_samples=0)


def test_nothing_to_calibrate_with_is_said() -> None:
    with pytest.raises(InvalidArgumentError, match="no batches"):
        calibrate(nn.Linear(3, 3), [])
    with pytest.raises(InvalidArgumentError, match="no layer that can be calibrated"):
        calibrate(nn.ReLU(), [torch.ones(2)])
    with pytest.raises(InvalidArgumentError, match="gradient_samples=0"):
        calibrate(nn.Linear(3, 3), [torch.ones(2, 3)], forward=lambda model, x: model(x).detach())


def test_moments_that_do_not_fit_keep_their_diagonals() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 2))
    inputs = torch.randn(8, 64)
    found = calibrate(model, [inputs], memory=20_000)
    assert sums(found, "0.weight").shape == (1, 64)
    assert sums(found, "1.weight").shape == (1, 32, 32)
    assert close(sums(found, "0.weight")[0], np.diagonal(second_moments(inputs)))
    assert "0.weight" in found.notes[0]
    assert "--memory" in found.notes[0]


def saved(tmp_path: Path) -> tuple[Calibration, Path]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    found = calibrate(model, [torch.randint(0, 7, (5, 6))])
    found.save(tmp_path / "it.safetensors")
    return found, tmp_path / "it.safetensors"


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    found, path = saved(tmp_path)
    again = Calibration.load(path)
    assert again.layers == found.layers
    assert (again.model, again.samples, again.notes) == ("Sequential", 5, found.notes)
    for name, moments in found.moments.items():
        assert np.allclose(again.moments[name].sums, moments.sums, rtol=1e-6)
        assert again.moments[name].count == moments.count
    for name, gradient in found.gradients.items():
        assert np.array_equal(again.gradients[name], gradient)
    with pytest.raises(FileExistsError):
        found.save(path)
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    data = path.read_bytes()
    broken = tmp_path / "broken"
    for length in range(0, len(data), 97):
        broken.write_bytes(data[:length])
        with pytest.raises(CorruptionError):
            Calibration.load(broken)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])

    def rewrite(change: Callable[[dict[str, Any]], Any]) -> None:
        document = json.loads(header["__metadata__"]["momos.calibration"])
        change(document)
        changed = dict(header)
        changed["__metadata__"] = {"momos.calibration": json.dumps(document)}
        encoded = json.dumps(changed).encode()
        broken.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])

    rewrite(lambda document: None)
    Calibration.load(broken)
    for change in (
        lambda d: d.update(version=9),
        lambda d: d.pop("layers"),
        lambda d: d["moments"]["1.weight"].update(shape=[1, 9, 9]),
        lambda d: d["moments"]["1.weight"].update(count=0),
        lambda d: d["layers"]["1.weight"].update(moments=["elsewhere"]),
        lambda d: d["layers"]["1.weight"].update(shape=[3, 5]),
        lambda d: d["layers"]["0.weight"].update(rows=False),
        lambda d: d.update(samples="many"),
        lambda d: d.update(ties=5),
    ):
        rewrite(change)
        with pytest.raises(CorruptionError):
            Calibration.load(broken)
    header["__metadata__"] = {}
    encoded = json.dumps(header).encode()
    broken.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])
    with pytest.raises(CorruptionError, match="not a calibration"):
        Calibration.load(broken)


def test_a_calibration_of_another_model_names_the_first_tensor_that_does_not_fit() -> None:
    found = calibrate(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), [torch.ones(1, 4)])
    other = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(InvalidArgumentError, match=r"'1\.weight' is of shape \(4?3, 4\)"):
        found.check(checkpoint.from_state_dict(other))
    with pytest.raises(InvalidArgumentError, match=r"'0\.weight' .* is not in the model"):
        found.check(checkpoint.from_state_dict(nn.Linear(4, 4)))
