"""Whole models through pack and unpack: they load strictly, and their tensors are what they were.

Models that packages ship are used where those packages are installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import momos_rs

CAPACITY = 0.05


def go_round(source: Path, suffix: str, **options: Any) -> tuple[dict[str, Tensor], float]:
    """Packs and unpacks a file; returns the state dict and the relative error."""
    archive = source.with_name("packed.momos")
    report = momos_rs.pack_file(source, archive, capacity=CAPACITY, overwrite=True, **options)
    restored = momos_rs.unpack_file(archive, source.with_name("restored" + suffix), overwrite=True)
    verification = momos_rs.verify_file(archive, source)
    assert verification.matches
    return momos_rs.load(restored), report.relative_error


def check(original: dict[str, Tensor], restored: dict[str, Tensor], relative_error: float) -> None:
    assert list(original) == list(restored)
    distortion = energy = 0.0
    counted = set()  # ties are stored, and reported, once
    for name, tensor in original.items():
        other = restored[name]
        assert (other.shape, other.dtype) == (tensor.shape, tensor.dtype), name
        if tensor.ndim < 2 or not tensor.is_floating_point():
            assert torch.equal(tensor, other), name
        elif tensor.numel() >= 4 and tensor.data_ptr() not in counted:
            counted.add(tensor.data_ptr())
            distortion += float(((tensor.double() - other.double()) ** 2).sum())
            energy += float((tensor.double() ** 2).sum())
    assert distortion == pytest.approx(relative_error * energy, rel=1e-9)
    assert relative_error < 0.6


class Tied(nn.Module):
    """A language model's skeleton: input and output embeddings are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.mix = nn.Linear(24, 24)
        self.norm = nn.BatchNorm1d(24)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embed.weight


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.second = nn.Conv2d(8, 8, 3)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("build", [Tied, Convolutions])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_modules(
    build: Callable[[], nn.Module], dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build().to(dtype)
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    restored, error = go_round(path, suffix)
    check(model.state_dict(), restored, error)
    build().to(dtype).load_state_dict(restored, strict=True)
    if build is Tied and suffix == ".pt":
        assert restored["embed.weight"].data_ptr() == restored["head.weight"].data_ptr()


def test_a_training_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.Adam(model.parameters())
    path = tmp_path / "last.ckpt"
    torch.save(
        {
            "epoch": 3,
            "model": {"state_dict": model.state_dict()},
            "optimizer": optimizer.state_dict(),
        },
        path,
    )
    report = momos_rs.pack_file(path, capacity=CAPACITY)
    assert set(report.left_out) >= {"epoch", "optimizer"}
    restored = momos_rs.load(momos_rs.unpack_file(tmp_path / "last.momos"))
    Tied().load_state_dict(restored, strict=True)


def test_a_packed_model_packs_again_without_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    torch.save(Tied().state_dict(), path)
    restored, _ = go_round(path, ".pt")
    torch.save(restored, path)
    again, error = go_round(path, ".pt")
    assert error == 0.0
    assert all(torch.equal(restored[name], again[name]) for name in restored)


def package_file(package: str, *parts: str) -> Path:
    """A file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["silero_vad_16k.safetensors", "silero_vad.jit"])
def test_silero_vad(name: str, suffix: str, tmp_path: Path) -> None:
    source = package_file("silero_vad", "data", name)
    path = tmp_path / name
    path.write_bytes(source.read_bytes())
    restored, error = go_round(path, suffix)
    if name.endswith(".jit"):
        module = torch.jit.load(str(path))
        check(module.state_dict(), restored, error)
        module.load_state_dict(restored, strict=True)
    else:
        check(momos_rs.load(path), restored, error)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_facenet(name: str, tmp_path: Path) -> None:
    source = package_file("facenet_pytorch", "data", f"{name}.pt")
    path = tmp_path / f"{name}.pt"
    path.write_bytes(source.read_bytes())
    restored, error = go_round(path, ".pt")
    check(torch.load(path, weights_only=True), restored, error)
    mtcnn = pytest.importorskip("facenet_pytorch.models.mtcnn")
    model = getattr(mtcnn, {"pnet": "PNet", "rnet": "RNet", "onet": "ONet"}[name])(pretrained=False)
    model.load_state_dict(restored, strict=True)


def test_a_torchvision_training_checkpoint(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.mobilenet_v3_small()
    path = tmp_path / "checkpoint.pth"
    torch.save({"model_state_dict": model.state_dict(), "epoch": 7}, path)
    restored, error = go_round(path, ".pth")
    check(model.state_dict(), restored, error)
    models.mobilenet_v3_small().load_state_dict(restored, strict=True)
