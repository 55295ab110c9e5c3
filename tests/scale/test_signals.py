"""Ctrl-C and SIGTERM: in every phase of every long command they end it at once and leave nothing.

A command that is run in a process of its own sends itself the signal as soon as its progress comes
to a phase, or after a while.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import momos_rs

PROGRAM = """
import contextlib, json, os, sys, time

number, phase, report, *arguments = sys.argv[1:]
seen = []

@contextlib.contextmanager
def progress_bar(**_):
    def show(name, done, total):
        if name not in seen:
            seen.append(name)
        if name == phase:
            os.kill(os.getpid(), int(number))
            time.sleep(0.01)  # long enough for the signal to come
    yield show

import momos_rs.cli.console
momos_rs.cli.console.progress_bar = progress_bar
from momos_rs.cli.main import main
try:
    main(arguments)
finally:
    with open(report, "w") as file:
        json.dump(seen, file)
"""

ENDINGS = {signal.SIGINT: (130, "momos: stopped"), signal.SIGTERM: (143, "momos: terminated")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of several tensors, one of them of several chunks, and its archive."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    state = {f"w{index}": torch.randn(100, 200) for index in range(3)}
    torch.save(state | {"large": torch.randn(600, 1000)}, folder / "model.pt")
    momos_rs.pack_file(folder / "model.pt", method="random")
    return folder


def _listing(*folders: Path) -> list[tuple[str, int, int]]:
    """Every file, its size and when it was changed."""
    return sorted(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    )


def _run(
    tmp_path: Path, number: int, phase: str, arguments: list[str]
) -> tuple[int, str, list[str]]:
    """Exit status, standard error and the phases that were seen."""
    temporary, reports = tmp_path / "tmp", tmp_path / "reports"
    temporary.mkdir(exist_ok=True)
    reports.mkdir(exist_ok=True)
    report = reports / "seen.json"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(number)), phase, str(report), *arguments],
        capture_output=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        check=False,
    )
    assert not list(temporary.iterdir())
    return result.returncode, result.stderr.decode().strip(), json.loads(report.read_text())


COMMANDS = {
    "pack": ["pack", "{folder}/model.pt", "-o", "{folder}/new.momos", "--iterations", "1"],
    "pack grid": ["pack", "{folder}/model.pt", "-o", "{folder}/new.momos", "--method", "grid"],
    "unpack": ["unpack", "{folder}/model.momos", "-o", "{folder}/new.safetensors"],
    "complexity": ["complexity", "{folder}/model.pt", "--csv", "{folder}/new.csv"],
}


def _arguments(name: str, folder: Path) -> list[str]:
    return [each.format(folder=folder) for each in COMMANDS[name]]


def _check_new_files(folder: Path) -> int:
    """Removes the files that are new, which must be whole; how many there were."""
    found = list(folder.glob("new*"))
    for path in found:
        if path.suffix == ".momos":
            assert momos_rs.verify_file(path).matches
        elif path.suffix == ".safetensors":
            assert momos_rs.load(path)
        else:
            assert path.read_text().count("\n") == 2
        path.unlink()
    return len(found)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_signals_in_every_phase_leave_nothing(name: str, folder: Path, tmp_path: Path) -> None:
    arguments = _arguments(name, folder)
    before = _listing(folder)
    status, error, phases = _run(tmp_path, 0, "", arguments)
    assert (status, error) == (0, "")
    assert phases
    assert _check_new_files(folder) == 1
    stopped = 0
    for index, phase in enumerate(phases):
        number = list(ENDINGS)[index % 2]
        status, error, seen = _run(tmp_path, number, phase, arguments)
        if phase not in seen:  # progress is told every 50 ms, and this time it took less
            assert (status, error) == (0, "")
            assert _check_new_files(folder) == 1
            continue
        stopped += 1
        assert (status, error) == ENDINGS[number], (phase, seen)
        assert seen[-1] == phase
        assert _listing(folder) == before
    assert stopped


@pytest.mark.parametrize("share", [0.5, 0.75])
@pytest.mark.parametrize("name", ["pack", "unpack", "complexity"])
def test_signals_at_any_moment_leave_nothing(
    name: str, share: float, folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "momos_rs", *_arguments(name, folder), "-q"]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    before = _listing(folder)
    start = time.monotonic()
    subprocess.run(command, env=environment, check=True)
    seconds = time.monotonic() - start
    _check_new_files(folder)
    for number, (expected, message) in ENDINGS.items():
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        time.sleep(share * seconds)
        process.send_signal(number)
        _, error = process.communicate(timeout=20)
        assert not list(temporary.iterdir())
        if process.returncode == expected:
            assert error.decode().strip() == message
        else:  # it was done, or had not come to handle signals yet
            assert process.returncode in (0, 1, -number)
        # What is there although the command was stopped was complete before.
        _check_new_files(folder)
        assert _listing(folder) == before


def test_a_second_signal_does_not_interrupt_clearing_up(tmp_path: Path) -> None:
    program = (
        "import importlib, os, signal, sys\n"
        "from pathlib import Path\n"
        "cli = importlib.import_module('momos_rs.cli.main')\n"
        "from momos_rs.runtime.atomic_file import replacing\n"
        "def run(*_, **__):\n"
        "    with replacing(Path(sys.argv[1]), overwrite=False) as file:\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        finally:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.group.main = run\n"
        "cli.main([])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")], capture_output=True, check=False
    )
    assert (result.returncode, result.stderr.decode().strip()) == ENDINGS[signal.SIGINT]
    assert not list(tmp_path.iterdir())
