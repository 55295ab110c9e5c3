"""The threads a run uses: those it is given, whatever the machine has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from momos_rs import archive, checkpoint, errors, packing
from momos_rs.checkpoint import Checkpoint
from momos_rs.complexity import measure
from momos_rs.runtime.resources import Resources
from momos_rs.runtime.team import SOLO
from support.models import checkpoint_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    model: dict[str, np.ndarray[Any, Any]] = {
        "a.weight": rng.standard_normal((300, 200)).astype(np.float32),
        "b.weight": rng.standard_normal((200, 100)).astype(np.float16),
        "a.bias": rng.standard_normal(300).astype(np.float32),
        "c": rng.integers(0, 9, (400, 500)),
    }
    path = tmp_path_factory.mktemp("threads")
    checkpoint.write(path / "model.safetensors", checkpoint_of(model))
    packing.pack_file(path / "model.safetensors", motifs=60, iterations=1)
    return path


def test_processes_share_the_cores_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Four(type(SOLO)):  # type: ignore[misc]
        size = local_size = 4

    monkeypatch.setattr(os, "cpu_count", lambda: 18)
    assert Resources(team=Four()).threads == 4
    assert Resources(threads=7, team=Four()).threads == 7
    assert Resources().threads is None
    assert Resources("1G", team=Four()).budget == 250_000_000


def test_memory_and_threads_take_the_same_forms_everywhere(folder: Path, tmp_path: Path) -> None:
    model, packed = folder / "model.safetensors", folder / "model.momos"
    small: Checkpoint = checkpoint_of({"w": np.arange(900, dtype=np.float32).reshape(30, 30)})
    for memory in ("1G", 1_000_000_000, " 0.5 GiB", None):
        for threads in (1, None):
            packing.pack(small, memory=memory, threads=threads)
            target = tmp_path / "m.safetensors"
            packing.unpack_file(packed, target, overwrite=True, memory=memory, threads=threads)
            assert archive.verify_file(packed, model, memory=memory, threads=threads).matches
            assert measure(small, measures=["bdm"], memory=memory, threads=threads).n == 900
    for memory, said in (
        ("much", "'much' is not a size like"),
        (0, "memory must be at least one byte, not 0"),
        ("1M", r"allow it more \(memory='[0-9.]+[MG]'\)"),
        (1_000_000, r"allow it more \(memory='[0-9.]+[MG]'\)"),
    ):
        for work in (
            lambda memory=memory: packing.unpack_file(packed, tmp_path / "n.pt", memory=memory),
            lambda memory=memory: archive.verify_file(packed, memory=memory),
            lambda memory=memory: measure(small, memory=memory),
        ):
            with pytest.raises(errors.InvalidArgumentError, match=said):
                work()
    with pytest.raises(errors.InvalidArgumentError, match="threads must be at least 1"):
        measure(small, threads=0)
