"""What is done within a small budget of memory is what is done in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import momos_rs
from momos_rs import checkpoint
from momos_rs.archive.verification import VerifyReport, verify_file
from momos_rs.complexity import ComplexityReport
from momos_rs.complexity.measurement import MEASURES, measure
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.budget import parse_size

FEW = 600_000_000
"""So little that large tensors are cut into the smallest pieces there are."""


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    wide = torch.randn(700, 1001) * torch.rand(700, 1)
    wide[5, 7] = 0
    return {
        "wide.weight": wide,
        "long.weight": torch.randn(5, 150_001),
        "half.weight": torch.randn(900, 801).bfloat16(),
        "double.weight": torch.randn(400_000).double(),
        "view": wide[2:600],
        "transposed": torch.randn(300, 400).t(),
        "bias": torch.randn(17),
        "counts": torch.arange(700_000),
        "empty": torch.zeros(0, 3),
    }


@pytest.fixture(scope="module")
def model(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module", params=["mosaic", "lossless"])
def archive(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.momos"
    options: dict[str, Any] = {"motifs": 200, "method": "random"}
    momos_rs.pack_file(
        model, path, **({"lossless": True} if request.param == "lossless" else options)
    )
    return path


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves nothing to pieces beyond the least."""
    monkeypatch.setattr("momos_rs.runtime.resources.LARGEST_PIECE", 1 << 20)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.usefixtures("small_pieces")
def test_unpacked_files_are_the_same(archive: Path, suffix: str, tmp_path: Path) -> None:
    whole = momos_rs.unpack(archive.read_bytes())
    path = momos_rs.unpack_file(archive, tmp_path / f"out{suffix}", memory=FEW)
    again = checkpoint.to_state_dict(checkpoint.read(path))
    assert list(again) == list(whole)
    for name, tensor in whole.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor), name


def _without_time(report: VerifyReport | ComplexityReport) -> VerifyReport | ComplexityReport:
    return dataclasses.replace(report, seconds=0.0)


def test_reports_of_verify_are_the_same(
    archive: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = verify_file(archive, model)
    assert whole.matches
    monkeypatch.setattr("momos_rs.runtime.resources.LARGEST_PIECE", 1 << 20)
    assert _without_time(verify_file(archive, model, memory=FEW)) == _without_time(whole)


def test_differences_are_found_in_any_piece(
    archive: Path, state: dict[str, torch.Tensor], tmp_path: Path, small_pieces: None
) -> None:
    changed = dict(state)
    changed["counts"] = state["counts"].clone()
    changed["counts"][-3] = 0
    changed["long.weight"] = state["long.weight"].clone()
    changed["long.weight"][4, -1] = float("nan")
    path = tmp_path / "changed.pt"
    torch.save(changed, path)
    report = verify_file(archive, path, memory=FEW)
    problems = {each.name: each.problem for each in report.comparison if each.problem}
    assert problems["counts"] == "differs, though it is stored exactly"
    assert problems.keys() == {"counts", "long.weight"}


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "gaussian", "seeds": 1, "skip": ["lzma", "bz2", "gzip"]},
        {"baseline": "shuffled", "seeds": 1, "measures": ["bdm", "bdm_2d"]},
        {"robust": True, "measures": ["qubd"], "bits": 5},
        {"per_tensor_compression": True, "measures": ["zstd", "bz2"], "sample": 1 << 18},
    ],
    ids=["gaussian", "shuffled", "robust", "per tensor"],
)
def test_figures_of_complexity_are_the_same(
    options: dict[str, Any], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compare_figures(model, options, monkeypatch)


def test_figures_of_an_archive_are_the_same(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compare_figures(archive, {"measures": ["sparsity", "norm", "bdm", "bdm_2d"]}, monkeypatch)


def _compare_figures(
    source: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(options)
    skipped = options.pop("skip", [])
    if skipped:
        options["measures"] = [each for each in MEASURES if each not in skipped]
    whole = measure(source, **options)
    monkeypatch.setattr("momos_rs.runtime.resources.LARGEST_PIECE", 1 << 20)
    assert _without_time(measure(source, memory=FEW, **options)) == _without_time(whole)


@pytest.mark.parametrize("policy", ["skip", "zero"])
def test_what_is_not_finite_is_dealt_with_in_pieces(
    policy: Any, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = {name: state[name].clone() for name in ("wide.weight", "half.weight", "bias")}
    damaged["wide.weight"][699, 1000] = float("inf")
    damaged["half.weight"][0, 0] = float("nan")
    options: dict[str, Any] = {"measures": ["norm", "bdm", "bdm_2d", "qubd", "zstd"]}
    whole = measure(damaged, non_finite=policy, **options)
    monkeypatch.setattr("momos_rs.runtime.resources.LARGEST_PIECE", 1 << 20)
    cut = measure(damaged, non_finite=policy, memory=FEW, **options)
    assert _without_time(cut) == _without_time(whole)


def test_too_little_memory_is_told_with_what_would_do(archive: Path, tmp_path: Path) -> None:
    tries: list[Any] = [
        lambda memory: momos_rs.unpack_file(archive, tmp_path / "x.pt", memory=memory),
        lambda memory: verify_file(archive, memory=memory),
        lambda memory: measure(archive, measures=["bdm", "zstd"], memory=memory),
    ]
    for attempt in tries:
        with pytest.raises(InvalidArgumentError, match=r"memory=.[0-9.]+[MG].\)") as caught:
            attempt(1_000_000)
        assert "\n" not in str(caught.value)
        enough = parse_size(str(caught.value).rsplit("=", 1)[1].strip("')"))
        attempt(enough)


def test_large_records_of_torch_files_are_marked_so(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("momos_rs.checkpoint.torch_writer._ZIP64_LIMIT", 1000)
    path = tmp_path / "model.pt"
    checkpoint.write(path, checkpoint.from_state_dict(state))
    again = torch.load(path, weights_only=True, mmap=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    data = np.memmap(path, np.uint8, "r")
    storage = again["wide.weight"].untyped_storage()
    assert storage.data_ptr() % 64 == 0
    assert data.size > 0
