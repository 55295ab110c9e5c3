"""Packing with a calibration spends bits where the outputs need them."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import momos_rs
from momos_rs import checkpoint
from momos_rs.archive import open_archive
from momos_rs.calibration import Calibration, calibrate, compare_outputs
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.calibration import LayerInputs, Moments
from momos_rs.mosaic.importance import importances


class Encoder(nn.Module):
    """An embedding, linear layers and a convolution, with inputs far from white."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 48)
        self.mix = nn.Conv1d(48, 48, 3, padding=1, groups=2)
        self.wide = nn.Linear(48, 96)
        self.narrow = nn.Linear(96, 48)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        x = nn.functional.layer_norm(x, (48,)) * torch.logspace(0, -1.5, 48)
        result: Tensor = x + self.narrow(self.wide(x).relu())
        return result.mean(1)


@pytest.fixture(scope="module")
def model() -> Encoder:
    torch.manual_seed(0)
    return Encoder()


def batches(seed: int, count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Some rows of the embedding are used far more often than others.
    return [(60 * torch.rand(16, 9, generator=generator) ** 3).long() for _ in range(count)]


@pytest.fixture(scope="module")
def calibration(model: Encoder) -> Calibration:
    return calibrate(model, batches(1))


@pytest.mark.parametrize("method", ["grid", "trellis"])
def test_outputs_are_nearer_in_fewer_bytes(
    model: Encoder, calibration: Calibration, method: Literal["grid", "trellis"]
) -> None:
    size = 11_000
    plain = momos_rs.pack(model, method=method, target_size=size)
    packed = momos_rs.pack(model, method=method, target_size=size, calibration=calibration)
    assert len(packed) <= size
    errors = [
        compare_outputs(model, archive, batches(2)).relative_error for archive in (plain, packed)
    ]
    assert errors[1] < 0.6 * errors[0], errors


def test_bytes_do_not_depend_on_threads(model: Encoder, calibration: Calibration) -> None:
    options: dict[str, Any] = {"method": "trellis", "step": 0.3, "calibration": calibration}
    one = momos_rs.pack(model, threads=1, **options)
    assert one == momos_rs.pack(model, threads=3, **options)
    with open_archive(one) as opened:
        assert opened.document.version == (1, 1)
        assert opened.document.requires == ("grid_steps",)
    twin = momos_rs.unpack(one)
    assert set(twin) == set(model.state_dict())


def test_moments_that_are_the_identity_give_the_bytes_without_data() -> None:
    torch.manual_seed(0)
    model = nn.Linear(40, 30, bias=False)
    even = Calibration(
        "Linear",
        1,
        {"weight": LayerInputs("Linear", (30, 40), ("weight",))},
        {"weight": Moments(np.eye(40)[None] * 7.0, 7)},
        {"weight": np.full(30, 2.0)},
    )
    ready = checkpoint.from_state_dict(model)
    found = importances(even, ready, [0]).by_base[0]
    assert found.factors is not None
    assert found.factors.diagonal
    for method in ("grid", "trellis"):
        plain = momos_rs.pack(model, method=method, step=0.2)
        packed = momos_rs.pack(model, method=method, step=0.2, calibration=even)
        with open_archive(plain) as a, open_archive(packed) as b:
            assert a.document.streams == b.document.streams
            assert b.document.version == (1, 1)


def test_embeddings_keep_what_is_used_and_do_not_lose_the_rest(
    model: Encoder, calibration: Calibration
) -> None:
    packed = momos_rs.unpack(
        momos_rs.pack(model, method="trellis", step=1.0, calibration=calibration)
    )
    errors = (packed["table.weight"] - model.table.weight.detach()).square().mean(1).numpy()
    uses = calibration.moments["table.weight"].sums[0]
    order = np.argsort(uses)
    assert errors[order[-10:]].mean() < 0.5 * errors[order[:30]].mean()
    relative = errors[order[:30]].mean() / float(model.table.weight.detach().square().mean())
    assert relative < 0.5


def test_gradients_are_not_needed(model: Encoder) -> None:
    found = calibrate(model, batches(1), gradient_samples=0)
    assert not found.gradients
    size = 11_000
    plain = momos_rs.pack(model, method="trellis", target_size=size)
    packed = momos_rs.pack(model, method="trellis", target_size=size, calibration=found)
    errors = [
        compare_outputs(model, archive, batches(2)).relative_error for archive in (plain, packed)
    ]
    assert errors[1] < errors[0], errors


def test_tied_weights_are_calibrated_by_the_layer_that_multiplies() -> None:
    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 32)
            self.head = nn.Linear(32, 50, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            result: Tensor = self.head(self.table(ids).cumsum(1) * torch.logspace(0, -2, 32))
            return result

    model = Tied()
    used = [each % 50 for each in batches(1)]
    found = calibrate(model, used[:1])
    assert found.layers["table.weight"].rows
    assert not found.layers["head.weight"].rows
    ready = checkpoint.from_state_dict(model)
    assert importances(found, ready, [0]).by_base[0].feeds_back
    archive = momos_rs.pack(model, method="trellis", calibration=found)
    assert compare_outputs(model, archive, used[1:]).top1_agreement > 0.8


def test_few_samples_and_unknown_layers_are_noted(tmp_path: Any) -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.known = nn.Linear(64, 32)
            self.unknown = nn.ConvTranspose1d(32, 8, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.unknown(self.known(x)[..., None])
            return result

    model = Partly()
    momos_rs.save(model, tmp_path / "model.pt")
    found = calibrate(model, [torch.randn(3, 64)], gradient_samples=0)
    report = momos_rs.pack_file(tmp_path / "model.pt", method="trellis", calibration=found)
    notes = "; ".join(report.notes)
    assert re.search(r"calibrated on 3 samples", notes)
    assert re.search(r"fewer inputs than columns in 1 layers, such as known\.weight", notes)
    assert re.search(r"not calibrated: unknown\.weight", notes)


def test_what_does_not_fit_is_refused(model: Encoder, calibration: Calibration) -> None:
    with pytest.raises(InvalidArgumentError, match=r"of another model: 'table\.weight'"):
        momos_rs.pack(nn.Linear(4, 4), method="trellis", calibration=calibration)
    with pytest.raises(InvalidArgumentError, match="calibration"):
        momos_rs.pack(model, method="kmeans", calibration=calibration)
    for other in ({"step_exponent": 0.5}, {"sensitivity": {"table.weight": 1.0}}):
        with pytest.raises(InvalidArgumentError, match="calibration"):
            momos_rs.pack(model, method="trellis", calibration=calibration, **other)
    with pytest.raises(InvalidArgumentError, match="another model"):
        compare_outputs(nn.Linear(4, 4), momos_rs.pack(model), [torch.ones(1, 4)])
    with pytest.raises(InvalidArgumentError, match="no batches"):
        compare_outputs(model, momos_rs.pack(model), [])


def test_comparisons_of_logits() -> None:
    model = nn.Linear(3, 4)
    same = compare_outputs(model, model.state_dict(), [torch.randn(5, 3)])
    assert same.cosine == pytest.approx(1)
    assert (same.vectors, same.top1_agreement) == (5, 1.0)
    assert same.relative_error == same.kl_divergence == 0
    twin = {name: each.clone() for name, each in model.state_dict().items()}
    twin["bias"] += torch.tensor([100.0, 0, 0, 0])
    other = compare_outputs(model, twin, [torch.randn(5, 3)])
    assert other.kl_divergence > 10
    assert other.relative_error > 1
