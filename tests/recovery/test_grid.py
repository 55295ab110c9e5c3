"""Structured motifs: recovery, determinism, damage, sensitivity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import _core, checkpoint, defaults, errors, packing
from momos_rs.archive import open_archive
from momos_rs.checkpoint import Base, Checkpoint, Entry
from momos_rs.checkpoint.safetensors_layout import parse_header
from momos_rs.cli.main import group
from momos_rs.mosaic.grid import GridPacker, geometries
from momos_rs.mosaic.methods import Grid, Trellis
from support.models import checkpoint_of, small_model


def as_bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(values.tobytes(), np.uint8)


def convolution(seed: int = 0) -> npt.NDArray[np.float32]:
    """Taps that resemble their neighbours, as those of trained convolutions do."""
    rng = np.random.default_rng(seed)
    taps = rng.standard_normal((48, 32, 1, 1)) + 0.5 * rng.standard_normal((48, 32, 3, 3))
    return taps.astype(np.float32)


@pytest.mark.parametrize("method", ["grid", "trellis"])
def test_an_archive_gives_back_what_was_chosen(method: defaults.MethodName) -> None:
    model = small_model()
    archive = packing.pack(model, method=method, step=0.2)
    with open_archive(archive) as opened:
        mosaic = opened.mosaic()
        assert mosaic is not None
        record = opened.document.grid
        assert record is not None
        assert (record.motifs, record.blocks) == (len(mosaic.motifs), len(mosaic.indices))
        members = [i for i in range(len(model.bases)) if opened.document.stored(i) == "grid"]
        assert len(members) == 4
        for place, index in enumerate(members):
            decoded = opened.read_base(index)
            base = model.bases[index]
            again = _core.scatter_blocks(
                mosaic.motifs, mosaic.tensor_indices(place), base.numel, base.dtype
            )
            assert np.array_equal(decoded, again)
            difference = _core.compare_tensors(base.read(), decoded, base.dtype)
            assert 0 < difference["distortion"] < 0.05 * difference["sum_of_squares"]
        for index, base in enumerate(model.bases):
            if index not in members and opened.document.stored(index) == "exact":
                assert np.array_equal(opened.read_base(index), base.read())


def test_every_weight_is_a_multiple_of_its_tensors_step() -> None:
    values = convolution()
    geometry = geometries(values.size, values.shape)[0]
    tensor = _core.quantise_to_grid(as_bytes(values), "F32", geometry, 0.125, states=64)
    decoded = tensor.to_bytes("F32").view(np.float32)
    assert np.array_equal(decoded * 8, np.round(decoded * 8))
    assert np.abs(decoded - values.reshape(-1)).max() < 0.5
    again = _core.decode_grid(tensor.encode(), values.size)
    assert (again.step, again.states) == (0.125, 64)
    assert np.array_equal(again.to_bytes("F32"), tensor.to_bytes("F32"))


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    exponent=st.integers(-20, 20),
    states=st.sampled_from([1, 4, 64, 256]),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_and_scale_survives(
    shape: list[int], dtype: type[np.floating], exponent: int, states: int, seed: int
) -> None:
    if dtype is np.float16:
        exponent //= 4
    values = np.random.default_rng(seed).standard_normal(shape) * 2.0**exponent
    array = values.astype(dtype)
    name = {2: "F16", 4: "F32", 8: "F64"}[array.itemsize]
    data = np.frombuffer(array.tobytes(), np.uint8)
    for geometry in geometries(array.size, shape):
        tensor = _core.quantise_to_grid(data, name, geometry, 0.25 * 2.0**exponent, states=states)
        again = _core.decode_grid(tensor.encode(), array.size)
        assert np.array_equal(again.to_bytes(name), tensor.to_bytes(name))
        difference = _core.compare_tensors(data, tensor.to_bytes(name), name)
        assert difference["largest"] <= 2.0**exponent * 1.5


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-30])
def test_constant_and_tiny_tensors(value: float) -> None:
    model = checkpoint_of({"w": np.full((30, 20), value, np.float32)})
    archive = packing.pack(model, method="trellis")
    with open_archive(archive) as opened:
        decoded = opened.read_base(0).view(np.float32)
    assert np.abs(decoded - np.float32(value)).max() <= 0.3 * abs(value)
    assert len(archive) < 1600


def test_archives_do_not_depend_on_threads() -> None:
    model = checkpoint_of({"a": convolution(), "b": convolution(1)[:, :5]})
    for method in ("grid", "trellis"):
        archives = {packing.pack(model, method=method, threads=threads) for threads in (1, 2, 5)}
        assert len(archives) == 1


def test_the_order_of_taps_is_found() -> None:
    values = convolution()
    model = checkpoint_of({"w": values})
    packer = GridPacker(model, [0], Trellis())
    best = packer.at(0.1)
    plain = min(
        _core.quantise_to_grid(as_bytes(values), "F32", geometry, packer.steps(0.1)[0], states=64)
        .encode()
        .size
        for geometry in geometries(values.size, (48, 288))
    )
    assert best.nbytes < 0.9 * plain


def test_a_trellis_takes_less_error_for_the_same_bytes() -> None:
    rng = np.random.default_rng(2)
    model = checkpoint_of({"w": rng.standard_normal((200, 100)).astype(np.float32)})
    errors_at = {}
    for method in ("grid", "trellis"):
        packer = GridPacker(model, [0], Grid() if method == "grid" else Trellis())
        mosaic = packer.at(0.5)
        errors_at[method] = (mosaic.nbytes, mosaic.relative_error)
    (grid_bytes, grid_error), (bytes_, error) = errors_at["grid"], errors_at["trellis"]
    gain = (grid_bytes - bytes_) * 8 / 20_000 + 0.5 * np.log2(grid_error / error)
    assert gain > 0.15


# ---- sensitivity


def test_a_sensitive_tensor_is_kept_nearer(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    model = checkpoint_of(
        {name: rng.standard_normal((60, 50)).astype(np.float32) for name in ("a", "b")}
    )
    wanted: list[dict[str, Any]] = [{"method": "trellis"}, {"method": "kmeans", "iterations": 4}]
    for options in wanted:
        plain = tensor_errors(model, packing.pack(model, bits=5, **options))
        weights = {"a": 100.0, "b": 1.0}
        archive = packing.pack(model, bits=5, sensitivity=weights, **options)
        a, b = tensor_errors(model, archive)
        assert a < 0.8 * plain[0]
        assert b > plain[1]


def test_sensitive_weights_are_kept_nearer() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((80, 64)).astype(np.float32)
    importance = np.where(rng.random((80, 64)) < 0.3, 5.0, 0.2).astype(np.float32)
    model = checkpoint_of({"w": values})

    def weighted_error(archive: bytes) -> float:
        with open_archive(archive) as opened:
            decoded = opened.read_base(0).view(np.float32).reshape(values.shape)
        return float((importance * (values - decoded) ** 2).sum())

    wanted: list[dict[str, Any]] = [
        {"method": "trellis"},
        {"method": "grid"},
        {"method": "kmeans", "iterations": 4},
    ]
    for options in wanted:
        options |= {"bits": 4, "block_size": 2}
        plain = weighted_error(packing.pack(model, **options))
        weighted = weighted_error(packing.pack(model, sensitivity={"w": importance}, **options))
        assert weighted < 0.97 * plain


def test_sensitivities_are_read_and_checked(tmp_path: Path) -> None:
    import torch

    from momos_rs.mosaic.sensitivity import read_sensitivity

    model = checkpoint_of({"w": convolution()})
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"w": 2}))
    assert read_sensitivity(good) == {"w": 2.0}
    torch.save({"w": torch.ones(48, 32, 3, 3)}, tmp_path / "good.pt")
    assert np.asarray(read_sensitivity(tmp_path / "good.pt")["w"]).size == 48 * 32 * 9
    for name, text in [("bad.json", "{"), ("list.json", "[1]"), ("negative.json", '{"w": -1}')]:
        (tmp_path / name).write_text(text)
        with pytest.raises(errors.MomosError, match=name.replace(".", r"\.")):
            read_sensitivity(tmp_path / name)
    for wrong in ({"v": 1.0}, {"w": np.ones(3, np.float32)}):
        with pytest.raises(errors.InvalidArgumentError, match="'w'"):
            packing.pack(model, method="trellis", sensitivity=wrong)


def test_the_fisher_diagonal_is_the_mean_squared_gradient() -> None:
    import torch

    from momos_rs import fisher_diagonal

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1, bias=True)
    model.bias.requires_grad_(False)
    inputs, targets = torch.randn(7, 3), torch.randn(7, 1)

    def loss(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return ((outputs - wanted) ** 2).sum()

    loader = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    result = fisher_diagonal(model, loader, loss)
    errors_ = 2 * (model(inputs) - targets).detach()
    assert torch.allclose(result["weight"], ((errors_ * inputs) ** 2).mean(0, keepdim=True))
    assert torch.allclose(result["bias"], (errors_**2).mean().reshape(1))
    assert not model.bias.requires_grad
    few = fisher_diagonal(model, loader, loss, samples=1)
    assert torch.allclose(few["weight"], (errors_[:1] * inputs[:1]) ** 2)
    with pytest.raises(errors.InvalidArgumentError, match="no samples"):
        fisher_diagonal(model, [], loss)


def tensor_errors(model: Checkpoint, archive: bytes) -> list[float]:
    with open_archive(archive) as opened:
        return [
            _core.compare_tensors(base.read(), opened.read_base(index), base.dtype)["distortion"]
            for index, base in enumerate(model.bases)
        ]


def test_a_view_is_packed_by_its_base() -> None:
    values = np.random.default_rng(6).standard_normal((12, 10)).astype(np.float32)
    base = Base("F32", values.size, lambda: as_bytes(values))
    model = Checkpoint(entries=(Entry("view", (10, 12), 0, 0, (1, 10)),), bases=(base,))
    with open_archive(packing.pack(model, method="trellis", step=0.1)) as opened:
        decoded = opened.read_base(0).view(np.float32)
    assert np.abs(decoded - values.reshape(-1)).max() < 0.2


# ---- archives and commands


def decode_everything(archive: bytes) -> None:
    with open_archive(archive) as opened:
        for index in range(len(opened.document.bases)):
            opened.read_base(index)


def test_damage_is_found_and_named() -> None:
    archive = packing.pack(small_model(), method="trellis", step=0.2)
    decode_everything(archive)
    header = parse_header(archive, source="test")
    rng = np.random.default_rng(7)
    for position in range(0, len(archive), 3):
        damaged = bytearray(archive)
        damaged[position] ^= int(rng.integers(1, 256))
        with pytest.raises(errors.MomosError):
            decode_everything(bytes(damaged))
    damaged = bytearray(archive)
    damaged[header.data_start + header.tensors["grid"].start + 20] ^= 1
    with pytest.raises(errors.CorruptionError, match="grid"):
        decode_everything(bytes(damaged))
    for length in range(0, len(archive), 7):
        with pytest.raises(errors.InsufficientDataError):
            decode_everything(archive[:length])


def test_tensors_are_read_one_by_one() -> None:
    model = small_model()
    archive = packing.pack(model, method="trellis", step=0.2)
    whole = packing.unpack(archive)
    with open_archive(archive) as opened:
        for name in reversed(list(opened)):
            assert (opened[name] == whole[name]).all()


def test_commands_know_structured_motifs(tmp_path: Path) -> None:
    model = checkpoint_of({"w": convolution(), "v": convolution(1)})
    checkpoint.write(tmp_path / "model.safetensors", model)
    (tmp_path / "weights.json").write_text(json.dumps({"w": 4, "v": 1}))
    source, archive = str(tmp_path / "model.safetensors"), str(tmp_path / "model.momos")
    command = [
        "pack", source, "-o", archive, "--method", "trellis", "--target-size", "12kB",
        "--sensitivity", str(tmp_path / "weights.json"), "--json",
    ]  # fmt: skip
    packed = CliRunner().invoke(group, command)
    assert packed.exit_code == 0, packed.output
    report = json.loads(packed.output)
    assert 0.99 * 12_000 <= report["archive_bytes"] <= 12_000
    assert report["method"] == "trellis"
    assert report["motifs"] == report["motifs_used"] <= report["blocks"]
    errors_ = {each["names"][0]: each["relative_error"] for each in report["tensors"]}
    assert errors_["w"] < 0.6 * errors_["v"]
    shown = CliRunner().invoke(group, ["info", archive])
    assert "structured motifs" in shown.output
    verified = CliRunner().invoke(group, ["verify", archive, "--against", source])
    assert verified.exit_code == 0, verified.output
    both = CliRunner().invoke(group, [*command, "--force", "--bits", "3"])
    assert both.exit_code != 0
