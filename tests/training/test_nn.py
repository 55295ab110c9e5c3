"""Motif fine-tuning: values, gradients, exactness and the way back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import momos_rs
from momos_rs.errors import InvalidArgumentError
from momos_rs.nn import MotifTable, find_mosaic, load_parametrized, materialize, mosaic_parametrize
from momos_rs.projection import ModelMosaic, MoMos, Span
from momos_rs.quantize.fake_quantize import attach_quantizers


def model_of_all_kinds() -> Any:
    """Odd sizes, a tie, a frozen layer, a norm."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Linear(7, 7), nn.BatchNorm1d(7), nn.Linear(7, 7, bias=False), nn.Linear(7, 3)
    )
    model[2].weight = model[0].weight
    model[3].bias.requires_grad_(False)
    return model


def projected(model: nn.Module, s: int = 4, k: int = 6) -> ModelMosaic:
    mosaic = MoMos(s, k=k)(model).mosaic
    assert mosaic is not None
    return mosaic


def test_parametrising_changes_no_value_and_materialising_restores_the_model() -> None:
    model = model_of_all_kinds()
    mosaic = projected(model)
    keys = list(model.state_dict())
    before = copy.deepcopy(model.state_dict())
    inputs = torch.randn(5, 7)
    model.eval()
    expected = model(inputs)

    table = mosaic_parametrize(model, mosaic)
    assert torch.equal(model(inputs), expected)
    trainable = [each for each in model.parameters() if each.requires_grad]
    assert len(trainable) == 1
    assert trainable[0] is table.motifs
    assert table.motifs.shape == (6, 4)

    assert materialize(model) == 6
    assert materialize(model) == 0
    assert sorted(model.state_dict()) == sorted(keys)
    assert all(torch.equal(model.state_dict()[name], each) for name, each in before.items())
    assert model[2].weight is model[0].weight
    assert model[0].weight.requires_grad
    assert not model[3].bias.requires_grad
    assert torch.equal(model(inputs), expected)


def test_a_motifs_gradient_is_the_sum_over_its_uses() -> None:
    model = model_of_all_kinds()
    mosaic = projected(model)
    inputs = torch.randn(5, 7)
    plain = copy.deepcopy(model)
    torch.autograd.backward(plain(inputs).square().sum())
    expected = torch.zeros(6, 4)
    for span in mosaic.spans:
        gradient = dict(plain.named_parameters())[span.name].grad
        assert gradient is not None
        flat = gradient.flatten()
        blocks = nn.functional.pad(flat, (0, -len(flat) % 4)).view(-1, 4)
        expected.index_add_(0, mosaic.indices_of(span), blocks)
    table = mosaic_parametrize(model, mosaic)
    model(inputs).square().sum().backward()
    assert table.motifs.grad is not None
    assert torch.allclose(table.motifs.grad, expected, rtol=1e-4, atol=1e-5)


def test_training_keeps_an_exact_mosaic_and_recovers_what_the_projection_cost() -> None:
    torch.manual_seed(1)
    model: Any = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))
    inputs = torch.randn(512, 6)
    target = torch.sin(inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]

    def loss() -> torch.Tensor:
        return nn.functional.mse_loss(model(inputs), target)

    def fit(steps: int, rate: float) -> None:
        optimizer = torch.optim.Adam(
            [each for each in model.parameters() if each.requires_grad], lr=rate
        )
        for _ in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(loss())
            optimizer.step()

    fit(200, 0.01)
    trained = float(loss().detach())
    mosaic = projected(model, s=4, k=24)
    after_projection = float(loss().detach())
    mosaic_parametrize(model, mosaic)
    fit(200, 0.01)
    materialize(model)
    tuned = float(loss().detach())
    assert tuned < trained + 0.5 * (after_projection - trained)
    found = find_mosaic(model, 4)
    assert found.k <= 24
    # The same blocks share a motif as before.
    for old, new in ((mosaic.indices, found.indices), (found.indices, mosaic.indices)):
        pairs = {(int(a), int(b)) for a, b in zip(old, new, strict=True)}
        assert len(pairs) == len({a for a, _ in pairs})


def test_keep_zero_keeps_zeros() -> None:
    model = model_of_all_kinds()
    mosaic = projected(model)
    assert bool((mosaic.indices == 0).any())
    mosaic_parametrize(model, mosaic, keep_zero=True)
    trainable = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=0.1)
    model(torch.randn(5, 7)).square().sum().backward()
    optimizer.step()
    materialize(model)
    assert bool(find_mosaic(model, 4).motifs.eq(0).all(dim=1).any())
    span = mosaic.span("0.weight")
    zero_blocks = mosaic.indices_of(span)[:-1] == 0
    blocks = model[0].weight.detach().flatten()[:48].view(12, 4)
    assert not blocks[zero_blocks].any()


def test_copies_and_checkpoints_of_a_parametrised_model(tmp_path: Path) -> None:
    model = model_of_all_kinds()
    mosaic = projected(model)
    mosaic_parametrize(model, mosaic)
    duplicate = copy.deepcopy(model)
    assert sum(each.requires_grad for each in duplicate.parameters()) == 1
    materialize(duplicate)
    inputs = torch.randn(5, 7)
    model.eval(), duplicate.eval()
    assert torch.equal(model(inputs), duplicate(inputs)), "the original still works"

    with torch.no_grad():
        next(each for each in model.parameters() if each.requires_grad).add_(0.5)
    torch.save(model.state_dict(), tmp_path / "tuning.pt")
    other = model_of_all_kinds()
    mosaic_parametrize(other, projected(other))
    other.load_state_dict(torch.load(tmp_path / "tuning.pt"))
    other.eval()
    assert torch.equal(model(inputs), other(inputs))


def test_a_quantised_model_has_the_motifs_underneath() -> None:
    torch.manual_seed(2)
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    attach_quantizers(model, 4)
    mosaic = projected(model)
    inputs = torch.randn(3, 8)
    expected = model(inputs)
    table = mosaic_parametrize(model, mosaic)
    assert torch.equal(model(inputs), expected)
    model(inputs).square().sum().backward()
    assert table.motifs.grad is not None
    assert bool(table.motifs.grad.any())
    materialize(model)
    assert torch.equal(model(inputs), expected)
    assert find_mosaic(model, 4).k <= 6


def test_mixed_dtypes_stay_what_they_were() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8).to(torch.bfloat16), nn.Linear(8, 8))
    mosaic = projected(model)
    expected = [each.detach().clone() for each in model.parameters()]
    mosaic_parametrize(model, mosaic)
    materialize(model)
    for got, each in zip(model.parameters(), expected, strict=True):
        assert got.dtype == each.dtype
    assert sorted(map(float, torch.cat([e.flatten().float() for e in expected]))) == sorted(
        map(float, torch.cat([p.detach().flatten().float() for p in model.parameters()]))
    )


def test_find_mosaic_finds_the_blocks_by_their_bits() -> None:
    model = model_of_all_kinds()
    mosaic = projected(model)
    found = find_mosaic(model, 4)
    assert found.spans == mosaic.spans
    assert found.k <= mosaic.k
    for span in mosaic.spans:
        assert torch.equal(found.values_of(span), mosaic.values_of(span))
    plain = nn.Linear(4, 2, bias=False)
    plain.weight.data = torch.tensor([[0.0, 0, 0, 0], [-0.0, 0, 0, 0]])
    assert find_mosaic(plain, 4).k == 2, "minus zero is another motif than zero"


def test_find_mosaic_lets_a_padded_block_take_any_motif_that_begins_like_it() -> None:
    model: Any = nn.Linear(6, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0, 1.0, 2.0]])
    found = find_mosaic(model, 4)
    assert found.k == 1
    assert found.indices.tolist() == [0, 0]
    model.weight.data[0, 5] = 5.0
    assert find_mosaic(model, 4).motifs.tolist() == [[1, 2, 3, 4], [1, 5, 0, 0]]


def test_bad_mosaics_leave_the_model_alone() -> None:
    model = model_of_all_kinds()
    mosaic = projected(model)

    def changed(**fields: object) -> ModelMosaic:
        first = mosaic.spans[0]
        values = {
            "name": first.name, "shape": first.shape, "first_block": 0, "blocks": first.blocks,
        }  # fmt: skip
        span = Span(**{**values, **fields})  # type: ignore[arg-type]
        return ModelMosaic(mosaic.motifs, mosaic.indices, (*mosaic.spans[1:], span))

    with pytest.raises(InvalidArgumentError, match="no parameter 'nobody'"):
        mosaic_parametrize(model, changed(name="nobody"))
    with pytest.raises(InvalidArgumentError, match=r"of shape \(7, 7\), in the mosaic \(49,\)"):
        mosaic_parametrize(model, changed(shape=(49,)))
    assert not any(isinstance(each, MotifTable) for each in model.modules())
    mosaic_parametrize(model, mosaic)
    with pytest.raises(InvalidArgumentError, match="already"):
        mosaic_parametrize(model, mosaic)


def test_recurrent_layers_are_refused_by_name() -> None:
    model: Any = nn.LSTM(4, 4)
    mosaic = projected(model)
    with pytest.raises(InvalidArgumentError, match="'weight_ih_l0' belongs to a LSTM"):
        mosaic_parametrize(model, mosaic)


def test_find_mosaic_refuses_several_dtypes() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())
    with pytest.raises(InvalidArgumentError, match="different dtypes"):
        find_mosaic(model, 4)


def test_a_mosaic_without_that_parameter() -> None:
    mosaic = projected(nn.Linear(8, 8))
    with pytest.raises(InvalidArgumentError, match="no parameter 'head'"):
        mosaic.span("head")


@pytest.mark.parametrize("as_file", [False, True])
def test_an_archive_is_loaded_trained_and_saved_again(as_file: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model: Any = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
    archive: Any = momos_rs.pack(model, block_size=4, capacity=0.2, method="random")
    if as_file:
        (tmp_path / "model.momos").write_bytes(archive)
        archive = tmp_path / "model.momos"
    other: Any = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
    table = load_parametrized(other, archive)
    packed = momos_rs.unpack(momos_rs.pack(model, block_size=4, capacity=0.2, method="random"))
    assert torch.equal(other[0].weight, packed["0.weight"])
    assert torch.equal(other[2].weight, packed["2.weight"])
    assert torch.equal(other[0].bias, model[0].bias), "what is not mosaic is loaded as it was"
    trainable = [each for each in other.parameters() if each.requires_grad]
    assert [each.numel() for each in trainable].count(table.motifs.numel()) == 1
    assert len(trainable) == 5, "the motifs, two biases, two of the norm"
    optimizer = torch.optim.SGD(other.parameters(), lr=0.5)
    torch.autograd.backward(other(torch.randn(9, 8)).square().mean())
    optimizer.step()
    with torch.no_grad():
        other.eval()
        expected = other(torch.ones(1, 8))
    materialize(other)
    momos_rs.save(other, tmp_path / "tuned.momos", block_size=4, motifs=len(table.motifs))
    again: Any = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 8)).eval()
    again.load_state_dict(momos_rs.unpack((tmp_path / "tuned.momos").read_bytes()))
    assert torch.equal(again(torch.ones(1, 8)), expected), "a mosaic packs without loss"
    assert not torch.equal(again[0].weight, packed["0.weight"])


def test_an_archive_without_a_mosaic_has_nothing_to_train() -> None:
    model = nn.Linear(8, 8)
    archive = momos_rs.pack(model, exclude=["*"])
    with pytest.raises(InvalidArgumentError, match="no trainable parameter"):
        load_parametrized(model, archive)
