"""Training through a mosaic: what the passes see, what the optimizer steps on, how it ends."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import momos_rs
from momos_rs.errors import InvalidArgumentError
from momos_rs.experiments.packing import pack_model
from momos_rs.nn import find_mosaic, materialize, mosaic_aware, mosaic_parametrize
from momos_rs.projection import MoMos

S, K = 4, 6


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def make_data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def backward(model: nn.Module, batch: int = 0) -> Tensor:
    inputs, labels = make_data()
    rows = slice(16 * (batch % 4), 16 * (batch % 4) + 16)
    loss = nn.functional.cross_entropy(model(inputs[rows]), labels[rows])
    loss.backward()
    return loss.detach()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()


def values(model: nn.Module) -> list[Tensor]:
    return [each.detach().clone() for each in model.parameters()]


def blocks_of(tensors: list[Tensor]) -> Tensor:
    flat = [nn.functional.pad(each.flatten(), (0, -each.numel() % S)).view(-1, S)
            for each in tensors]  # fmt: skip
    return torch.cat(flat).double()


def distinct(model: nn.Module) -> int:
    rows = [each[: len(each) // S * S].view(-1, S) for each in map(torch.flatten, values(model))]
    return len(torch.unique(torch.cat(rows), dim=0))


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gradients_of_the_mosaic_are_applied_to_the_dense_weights() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer)
    train(model, optimizer, range(1))  # the first step is dense, then the mosaic begins
    for step in range(1, 4):
        seen = values(model)
        assert distinct(model) <= K
        with training.dense():
            dense = values(model)
        assert equal(values(model), seen)
        optimizer.zero_grad()
        backward(model, step)
        plain = copy.deepcopy(make_model())
        for parameter, value in zip(plain.parameters(), seen, strict=True):
            parameter.data.copy_(value)
        backward(plain, step)
        gradients = [each.grad for each in plain.parameters()]
        optimizer.step()
        with training.dense():
            for after, before, gradient in zip(values(model), dense, gradients, strict=True):
                assert gradient is not None
                assert torch.equal(after, before.add(gradient, alpha=-0.5))


def test_blocks_take_the_nearest_motif_which_moves_to_their_mean() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer)
    train(model, optimizer, range(2))
    before = training.stats().mosaic
    assert before is not None
    train(model, optimizer, range(2, 3))
    with training.dense():
        blocks = blocks_of(values(model))
    distances = (blocks[:, None] - before.motifs.double()).square().sum(dim=2)
    nearest = distances.argmin(dim=1)
    after = training.stats().mosaic
    assert after is not None
    assert torch.equal(after.indices, nearest)
    assert torch.equal(after.motifs[0], torch.zeros(S)), "the zero motif stays"
    for motif in range(1, K):
        chosen = nearest == motif
        expected = blocks[chosen].mean(dim=0) if chosen.any() else before.motifs[motif].double()
        assert torch.allclose(after.motifs[motif].double(), expected, rtol=0, atol=1e-7)


def test_motifs_move_between_searches() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer, every=3)
    mosaics = []
    for step in range(7):
        train(model, optimizer, range(step, step + 1))
        mosaics.append(training.stats().mosaic)
    for step in range(1, 7):
        before, after = mosaics[step - 1], mosaics[step]
        assert before is not None
        assert after is not None
        assert not torch.equal(before.motifs, after.motifs)
        if (step + 1) % 3:
            assert torch.equal(before.indices, after.indices)


@pytest.mark.parametrize("end", ["finish", "materialize"])
def test_it_ends_as_a_mosaic_that_packs_without_loss(end: str) -> None:
    model = make_model()
    identity = [id(each) for each in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer)
    train(model, optimizer, range(8))
    last = values(model)
    stats = training.stats()
    if end == "finish":
        assert training.finish().distortion == stats.distortion
    else:
        assert materialize(model) == K
    assert equal(values(model), last)
    assert [id(each) for each in model.parameters()] == identity
    assert stats.mosaic is not None
    archive = pack_model(model, stats.mosaic)
    unpacked = momos_rs.unpack(archive)
    assert all(torch.equal(unpacked[name], each) for name, each in model.state_dict().items())
    assert find_mosaic(model, S).k <= K + 2
    # Further steps are ordinary ones, and motifs can be fine-tuned.
    train(model, optimizer, range(1))
    assert distinct(model) > K
    mosaic_parametrize(model, stats.mosaic)
    backward(model)


def test_the_loss_falls_and_warmup_is_dense() -> None:
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    mosaic_aware(model, MoMos(S, capacity=0.3), optimizer, warmup=5)
    first = backward(model)
    train(model, optimizer, range(5))
    assert distinct(model) > 30
    plain = make_model()
    same = torch.optim.Adam(plain.parameters(), lr=0.02)
    train(plain, same, range(5))
    assert equal(values(model), values(plain))
    train(model, optimizer, range(5, 60))
    assert distinct(model) <= 11
    assert backward(model) < 0.5 * first


def test_finish_before_the_first_step_makes_a_mosaic() -> None:
    model = make_model()
    stats = mosaic_aware(model, MoMos(S, k=K)).finish()
    assert distinct(model) <= K
    assert stats.distortion > 0
    expected = MoMos(S, k=K, method="kmeans")(make_model())
    assert stats.distortion == expected.distortion


@pytest.mark.parametrize("warmup", [0, 10])
def test_a_resumed_run_is_the_same_run(warmup: int) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        model = make_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        training = mosaic_aware(model, MoMos(S, k=K, seed=3), optimizer, every=2, warmup=warmup)
        return model, optimizer, training

    whole, optimizer, training = make()
    train(whole, optimizer, range(15))
    expected = training.finish()
    for model_first in (True, False):
        part, optimizer, training = make()
        train(part, optimizer, range(7))
        file = io.BytesIO()
        torch.save([part.state_dict(), optimizer.state_dict(), training.state_dict()], file)
        rest, optimizer, training = make()
        state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        optimizer.load_state_dict(state[1])
        if model_first:
            rest.load_state_dict(state[0])
        training.load_state_dict(state[2])
        rest.load_state_dict(state[0])
        train(rest, optimizer, range(7, 15))
        assert training.finish().distortion == expected.distortion
        assert equal(values(rest), values(whole))


def test_states_of_other_parameters_are_refused() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer)
    train(model, optimizer, range(1))
    other = mosaic_aware(nn.Linear(8, 8), MoMos(S, k=K))
    with pytest.raises(InvalidArgumentError, match="other parameters"):
        other.load_state_dict(training.state_dict())


def test_closures_see_the_mosaic() -> None:
    def closure_of(model: nn.Module, optimizer: torch.optim.Optimizer, seen: list[int]) -> Any:
        def closure() -> Tensor:
            seen.append(distinct(model))
            optimizer.zero_grad()
            return backward(model)

        return closure

    plain, other = make_model(), make_model()
    for model, with_closure in ((plain, False), (other, True)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        mosaic_aware(model, MoMos(S, k=K), optimizer)
        seen: list[int] = []
        closure = closure_of(model, optimizer, seen)
        for step in range(4):
            if with_closure:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            assert (seen[-1] <= K) == (step > 0)
    assert equal(values(plain), values(other))
    model = make_model()
    repeating = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    mosaic_aware(model, MoMos(S, k=K), repeating)
    seen = []
    for _ in range(3):
        repeating.step(closure_of(model, repeating, seen))
    assert max(seen[3:]) <= K


def test_accumulated_gradients_are_of_one_mosaic() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    mosaic_aware(model, MoMos(S, k=K), optimizer)
    train(model, optimizer, range(1))
    shown = values(model)
    for batch in range(3):
        backward(model, batch)
        assert equal(values(model), shown)
    optimizer.step()
    assert not equal(values(model), shown)


def test_a_step_skipped_by_the_gradient_scaler_changes_nothing() -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    inputs, labels = make_data()
    for factor in (1.0, 1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        before = values(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), labels)
        scaler.scale(loss * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert equal(values(model), before) == (factor == float("inf"))
        assert distinct(model) <= K
    assert training.steps == 3


def test_compiled_models_see_the_mosaic() -> None:
    plain = make_model()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    mosaic_aware(plain, MoMos(S, k=K), optimizer)
    train(plain, optimizer, range(3))
    model = make_model()
    compiled: Any = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.5)
    training = mosaic_aware(compiled, MoMos(S, k=K), optimizer)
    train(compiled, optimizer, range(3))
    assert equal(values(model), values(plain))
    with pytest.raises(InvalidArgumentError, match="through a mosaic already"):
        mosaic_aware(model, MoMos(S, k=K))
    training.detach()
    mosaic_aware(model, MoMos(S, k=K))


def test_copies_and_files_of_the_model_are_plain() -> None:
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    mosaic_aware(model, MoMos(S, k=K), optimizer)
    train(model, optimizer, range(2))
    twin = copy.deepcopy(model)
    train(model, optimizer, range(2, 3))
    assert distinct(twin) <= K
    again = torch.optim.SGD(twin.parameters(), lr=0.5)
    train(twin, again, range(1))
    assert distinct(twin) > K
    torch.save(model, io.BytesIO())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = make_model().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = mosaic_aware(model, MoMos(S, k=K), optimizer)
    inputs, labels = make_data()
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(inputs.to(dtype)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert distinct(model) <= K
    mosaic = training.finish().mosaic
    assert mosaic is not None
    for span, parameter in zip(mosaic.spans, model.parameters(), strict=True):
        assert torch.equal(mosaic.values_of(span).to(dtype), parameter)


def test_tied_recurrent_and_excluded_parameters() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 8, batch_first=True)
            self.out = nn.Linear(8, 8, bias=False)
            self.tied = nn.Linear(8, 8, bias=False)
            self.tied.weight = self.out.weight

        def forward(self, inputs: Tensor) -> Tensor:
            hidden: Tensor = self.tied(self.out(self.lstm(inputs)[0]))
            return hidden

    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    mosaic_aware(model, MoMos(S, k=K, exclude="*bias*"), optimizer)
    inputs = torch.randn(4, 5, 8)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    weights = [each for name, each in model.named_parameters() if "bias" not in name]
    assert len(torch.unique(torch.cat([each.detach().view(-1, S) for each in weights]), dim=0)) <= K
    assert model.tied.weight is model.out.weight
    biases = model.get_parameter("lstm.bias_ih_l0").detach()
    assert len(torch.unique(biases.view(-1, S), dim=0)) == 8


def test_bad_arguments() -> None:
    for arguments in ({"every": 0}, {"warmup": -1}):
        with pytest.raises(InvalidArgumentError, match="every must be at least 1"):
            mosaic_aware(make_model(), MoMos(S, k=K), **arguments)
    with pytest.raises(InvalidArgumentError, match="not trained through a mosaic"):
        mosaic_aware(make_model(), MoMos(S, k=K)).stats()
