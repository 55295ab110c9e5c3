"""Published models, where the packages that bring them are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch

from momos_rs.checkpoint import read, to_state_dict, write

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"{name} is not installed")
    return Path(found.origin).parent


def check(path: Path, folder: Path, expected: Mapping[str, torch.Tensor], compare: Compare) -> None:
    """Reads a file, writes it in both formats, and has the official libraries read those."""
    checkpoint = read(path)
    assert len(expected) > 5
    compare(to_state_dict(checkpoint), expected)
    write(folder / "out.pt", checkpoint)
    write(folder / "out.safetensors", checkpoint)
    compare(torch.load(folder / "out.pt", weights_only=True), expected)
    loaded = safetensors.torch.load_file(folder / "out.safetensors")
    compare({name: loaded[name] for name in expected}, expected)


class TestSileroVad:
    def test_torchscript(self, tmp_path: Path, assert_identical: Compare) -> None:
        path = package_folder("silero_vad") / "data" / "silero_vad.jit"
        expected = torch.jit.load(path).state_dict()
        check(path, tmp_path, expected, assert_identical)

    def test_safetensors(self, tmp_path: Path, assert_identical: Compare) -> None:
        path = package_folder("silero_vad") / "data" / "silero_vad_16k.safetensors"
        loaded = safetensors.torch.load_file(path)
        expected = {entry.name: loaded[entry.name] for entry in read(path).entries}
        assert expected.keys() == loaded.keys()
        check(path, tmp_path, expected, assert_identical)


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_facenet(tmp_path: Path, assert_identical: Compare, name: str) -> None:
    path = package_folder("facenet_pytorch") / "data" / f"{name}.pt"
    check(path, tmp_path, torch.load(path, weights_only=True), assert_identical)


def test_a_training_checkpoint_of_torchvision(tmp_path: Path, assert_identical: Compare) -> None:
    package_folder("torchvision")
    import torchvision

    model = torchvision.models.mobilenet_v3_small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 5}
    torch.save({"checkpoint": saved, "best": torch.tensor(0.5)}, tmp_path / "in.pth")
    assert read(tmp_path / "in.pth").left_out == (
        "checkpoint.optimizer",
        "checkpoint.epoch",
        "best",
    )
    check(tmp_path / "in.pth", tmp_path, model.state_dict(), assert_identical)
    fresh = torchvision.models.mobilenet_v3_small()
    fresh.load_state_dict(to_state_dict(read(tmp_path / "out.safetensors")), strict=True)
    assert_identical(fresh.state_dict(), model.state_dict())
