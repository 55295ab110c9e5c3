"""The scripts of examples/ run, and print what they say they do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test() -> None:
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_pack_a_model(tmp_path: Path) -> None:
    printed = run("pack_a_model.py", tmp_path)
    found = re.search(r"([\d.]+)x smaller, relative error ([\d.]+)", printed)
    assert found is not None, printed
    assert float(found[1]) > 4
    assert 0 < float(found[2]) < 0.2
    assert "4 tensors, as packed" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "model.momos", "restored.pt"}


def test_measure_training() -> None:
    lines = run("measure_training.py").splitlines()
    assert len(lines) == 5
    losses = [float(re.search(r"loss ([\d.]+)", line)[1]) for line in lines]  # type: ignore[index]
    assert losses[-1] < losses[0]
    assert all(re.search(r"\d+ of \d+ motifs, BDM \d+ bits", line) for line in lines)
