"""Peak memory of commands, measured in processes of their own, stays within --memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from momos_rs import checkpoint, pack_file
from momos_rs.checkpoint import Base, Checkpoint, Entry
from momos_rs.runtime.budget import parse_size

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the peak of a process of its own is not known"
)

WEIGHTS = 120_000_000

PROGRAM = """
import sys
from momos_rs.cli.main import main
import momos_rs.packing, momos_rs.archive, momos_rs.complexity
if sys.argv[1] == "torch":
    import torch
try:
    if len(sys.argv) > 2:
        main(sys.argv[2:])
finally:
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def _peak(libraries: str, *arguments: object) -> int:
    """Most bytes that were resident in a process that runs a command."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, libraries, *map(str, arguments)],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return 1024 * int(result.stdout.decode().split()[-1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 240 MB, nearly all of them in one tensor, and its archive."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    part = np.random.default_rng(0).standard_normal(WEIGHTS // 40, np.float32)
    half = np.tile((part.view(np.uint32) >> 16).astype(np.uint16), 40)
    layout = {"embedding": (WEIGHTS // 1000, 1000), "norm": (1000,)}
    bases = (
        Base("BF16", WEIGHTS, lambda: half.view(np.uint8)),
        Base("BF16", 1000, lambda: half[:1000].view(np.uint8)),
    )
    entries = tuple(Entry(name, shape, index) for index, (name, shape) in enumerate(layout.items()))
    checkpoint.write(path, Checkpoint(entries, bases))
    pack_file(path, motifs=64, method="random", effort="fast")
    return path


@pytest.mark.parametrize(
    ("libraries", "command", "memory"),
    [
        ("", ["unpack", "{archive}", "-o", "{out}.safetensors"], "140M"),
        ("torch", ["unpack", "{archive}", "-o", "{out}.pt"], "140M"),
        ("", ["verify", "{archive}", "-q"], "140M"),
        ("", ["verify", "{archive}", "--against", "{model}", "-q"], "140M"),
        ("", ["complexity", "{model}", "-q", "--measure", "bdm", "--measure", "qubd"], "140M"),
        ("", ["complexity", "{archive}", "-q", "--measure", "bdm_2d"], "170M"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_peak_memory(
    libraries: str, command: list[str], memory: str, model: Path, tmp_path: Path
) -> None:
    names = {"model": model, "archive": model.with_suffix(".momos"), "out": tmp_path / "out"}
    arguments = [each.format(**names) for each in command]
    taken = _peak(libraries, *arguments, "--memory", memory) - _peak(libraries)
    assert taken < parse_size(memory), f"{taken / 1e6:.0f} MB"
