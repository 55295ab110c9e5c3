"""Mutants of archives and checkpoints end in a result or in an error of the package, within limits
of memory and time, and two independent readers agree on those that both accept."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from momos_rs.errors import MomosError
from support import mutants
from support.reference_reader import read_archive

TESTS = Path(__file__).parents[1]
MUTANTS = 250


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits of memory as Linux has them"
)
@pytest.mark.parametrize("kind", ["archives", "checkpoints"])
def test_mutants_are_refused_or_read(kind: str) -> None:
    program = TESTS / "support" / "mutants.py"
    result = subprocess.run(
        [sys.executable, program, kind, "--seed", "7", "--count", str(MUTANTS), "--seconds", "60"],
        cwd=TESTS,
        env={"PYTHONPATH": str(TESTS), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert " 0 faults" in result.stdout


def test_two_readers_agree_on_what_both_accept() -> None:
    agreed = 0
    for seed in range(120):
        data = mutants.archive_mutant(random.Random(seed))
        try:
            ours = mutants.decode_archive(data)
        except MomosError:
            continue
        if sum(map(len, ours.values())) > 1 << 16:
            continue
        try:
            theirs = read_archive(data)
        except Exception:  # noqa: BLE001 - it checks by assertions, and knows no grids
            continue
        assert theirs == ours, seed
        agreed += 1
    assert agreed > 2
