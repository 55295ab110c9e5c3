"""Progress on a terminal: what is shown, and that nothing is shown elsewhere."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import momos_rs
from momos_rs.cli.progress import ProgressBar

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals")


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _lines(text: str) -> list[str]:
    """What stood on the terminal at the end of each line."""
    return [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]


def test_phase_bar_share_rate_and_time_left() -> None:
    stream, clock = io.StringIO(), _Clock()
    bar = ProgressBar(stream, {"unpack": "B", "assign": "blocks"}, clock=clock)
    bar.show("unpack", 0, 100_000_000)
    clock.now += 2
    bar.show("unpack", 25_000_000, 100_000_000)
    shown = stream.getvalue().rsplit("\r", 1)[-1]
    assert re.fullmatch(r"unpack +\[#+-+\]  25%  12.5 MB/s  0:06 left *", shown), shown
    clock.now += 6
    bar.show("unpack", 100_000_000, 100_000_000)
    bar.show("assign", 0, 10**9)
    clock.now += 10
    bar.show("assign", 2_500_000, 10**9)
    bar.close()
    first, second, rest = _lines(stream.getvalue())
    assert re.fullmatch(r"unpack +\[#+\] 100%  12.5 MB/s  in 0:08", first), first
    assert re.fullmatch(r"assign +\[-+\]   0%  250 k blocks/s  1:06:30 left", second), second
    assert rest == ""


def test_the_rate_forgets_what_is_long_ago() -> None:
    stream, clock = io.StringIO(), _Clock()
    bar = ProgressBar(stream, {}, clock=clock)
    bar.show("work", 0, 10_000)
    for _ in range(100):
        clock.now += 1
        bar.show("work", 10, 10_000)
    for done in range(10, 1010, 10):
        clock.now += 1
        bar.show("work", done, 10_000)
    assert " 10/s " in stream.getvalue().rsplit("\r", 1)[-1]


def test_little_is_written_however_often_it_is_called() -> None:
    stream, clock = io.StringIO(), _Clock()
    bar = ProgressBar(stream, {}, clock=clock)
    for done in range(100_000):
        clock.now += 1e-5
        bar.show("work", done, 100_000)
    assert stream.getvalue().count("\r") < 15


def _on_terminal(arguments: list[str], columns: int = 80) -> tuple[int, str]:
    """Exit status and what a command writes to standard error, if that is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-m", "momos_rs", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env=environment,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # what Linux says at the end
            break
        if not part:
            break
        written += part
    os.close(leader)
    return process.wait(), written.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save({f"w{index}": torch.randn(300, 200) for index in range(3)}, path)
    momos_rs.pack_file(path, iterations=1)
    return path


@pytest.mark.parametrize(
    ("command", "phases"),
    [
        (
            ["pack", "{model}", "-o", "{out}.momos"],
            {"select": "B/s", "encode": "B/s", "measure": "B/s"},
        ),
        (["unpack", "{archive}", "-o", "{out}.safetensors"], {"unpack": "B/s"}),
        (["verify", "{archive}"], {"verify": "B/s"}),
        (["verify", "{archive}", "--against", "{model}"], {"verify": "B/s"}),
        (["complexity", "{model}", "--measure", "bdm"], {"measure": "weights/s"}),
        (["complexity", "{model}", "{archive}", "--measure", "bdm"], {"2 of 2": "weights/s"}),
        (["plan", "{model}", "--methods", "random", "--no-references"], {"plan": "trials/s"}),
    ],
    ids=lambda value: "-".join(value[:1]) if isinstance(value, list) else "",
)
def test_commands_show_their_phases(
    command: list[str], phases: dict[str, str], model: Path, tmp_path: Path
) -> None:
    names = {"model": model, "archive": model.with_suffix(".momos"), "out": tmp_path / "out"}
    arguments = [each.format(**names) for each in command]
    status, written = _on_terminal(arguments)
    assert status == 0, written
    lines = _lines(written)
    assert lines[-1] == ""
    assert max(map(len, lines)) < 80
    for phase, unit in phases.items():
        (line,) = [each for each in lines if each.startswith(f"{phase} ")][-1:]
        assert re.search(r"100%  .*  in [0-9]+:[0-9]{2}$", line), line
        assert unit in line


def test_elsewhere_nothing_is_shown(model: Path, tmp_path: Path) -> None:
    for arguments in (
        ["verify", str(model.with_suffix(".momos"))],
        ["unpack", str(model.with_suffix(".momos")), "-o", str(tmp_path / "out.pt")],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "momos_rs", *arguments], capture_output=True, check=True
        )
        assert result.stderr == b""


def test_an_error_begins_a_line_of_its_own(tmp_path: Path) -> None:
    archive = tmp_path / "model.momos"
    data = bytearray(momos_rs.pack({"w": np.ones((40, 40), np.float32), "b": np.ones(3)}))
    data[-1] ^= 1
    archive.write_bytes(data)
    status, written = _on_terminal(["verify", str(archive)])
    assert status == 1
    assert any(line.startswith("momos: error: ") for line in _lines(written))
