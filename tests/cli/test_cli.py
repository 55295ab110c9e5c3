"""The commands as a user types them: what they print, how they end, what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from momos_rs import checkpoint
from momos_rs.cli.main import COMMANDS, group, main
from support.models import checkpoint_of, small_model


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = exit_info.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    checkpoint.write(path, small_model())
    return path


def test_a_model_goes_round(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, _ = run(capsys, "pack", model, "-s", 4, "-c", 0.2)
    assert status == 0
    for word in ("motifs (k), used", "relative error", "paper's bound", "worst tensors"):
        assert word in output
    archive = tmp_path / "model.momos"
    status, output, _ = run(capsys, "info", archive)
    assert status == 0
    assert "hidden.bias" in output
    status, output, _ = run(capsys, "verify", archive, "--against", model)
    assert status == 0
    assert "0 wrong" in output
    for suffix in (".pt", ".safetensors"):
        target = tmp_path / f"restored{suffix}"
        status, output, _ = run(capsys, "unpack", archive, "-o", target)
        assert status == 0
        restored = checkpoint.read(target)
        assert [entry.name for entry in restored.entries] == [
            entry.name for entry in small_model().entries
        ]


def test_json_is_complete(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run(capsys, "pack", model, "--json", "--motifs", 9)
    report = json.loads(output)
    assert status == 0
    assert report["motifs"] == 9
    assert report["archive_bytes"] == model.with_suffix(".momos").stat().st_size
    _, output, _ = run(capsys, "info", model.with_suffix(".momos"), "--json")
    assert json.loads(output)["mosaic"]["motifs_used"] == report["motifs_used"]
    _, output, _ = run(capsys, "verify", model.with_suffix(".momos"), "--against", model, "--json")
    assert json.loads(output)["matches"] is True


def test_quiet_says_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "pack", model, "--quiet") == (0, "", "")


def test_verify_tells_another_model_apart(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "pack", model, "--quiet")
    archive = model.with_suffix(".momos")
    other = tmp_path / "other.safetensors"
    checkpoint.write(other, small_model(seed=1))
    status, output, _ = run(capsys, "verify", archive, "--against", other)
    assert status == 1
    assert "differs, though it is stored exactly" in output
    fewer = tmp_path / "fewer.safetensors"
    checkpoint.write(fewer, checkpoint_of({"embed.weight": np.zeros((3, 3), np.float32)}))
    status, output, _ = run(capsys, "verify", archive, "--against", fewer)
    assert status == 1
    assert "is not in the model" in output
    assert "F32 [12, 10] in the archive and F32 [3, 3] in the model" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "missing.pt"], "missing.pt"),
        (["pack", "empty"], "empty"),
        (["unpack", "missing.momos"], "missing.momos"),
        (["info", "model.safetensors"], "plain safetensors file"),
        (["pack", "model.safetensors", "-o", "nowhere/x.momos"], "nowhere"),
        (["pack", "model.safetensors", "--force", "--include", "zzz"], "'zzz'"),
        (["unpack", "model.momos", "-o", "x.docx"], "x.docx"),
    ],
)
def test_failures_are_one_line(
    arguments: Sequence[str],
    message: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    run(capsys, "pack", model, "--quiet")
    (model.parent / "empty").mkdir()
    before = sorted(model.parent.iterdir())
    status, output, error = run(capsys, *arguments)
    assert status == 1
    assert output == ""
    assert error.startswith("momos: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(model.parent.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["pack"],
        ["pack", "m.pt", "-c", "0"],
        ["pack", "m.pt", "-c", "1.5"],
        ["pack", "m.pt", "-s", "0"],
        ["pack", "m.pt", "-k", "0"],
        ["pack", "m.pt", "-k", "3", "-c", "0.1"],
        ["pack", "m.pt", "--method", "magic"],
        ["frobnicate"],
        ["info", "a.momos", "--colour"],
    ],
)
def test_command_lines_that_are_not_valid(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, error = run(capsys, *arguments)
    assert status == 2
    assert output == ""
    (line,) = error.splitlines()
    assert line.startswith("momos: error: ")
    assert line.endswith("--help")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_options_of_a_command_are_told_apart(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """click warns of an option that is there twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status, output, _ = run(capsys, name, "--help")
    assert status == 0
    assert f"momos {name}" in output


def test_an_existing_target_is_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = model.with_suffix(".momos")
    archive.write_bytes(b"precious")
    status, _, error = run(capsys, "pack", model)
    assert status == 1
    assert "--force" in error
    assert archive.read_bytes() == b"precious"
    assert run(capsys, "pack", model, "--force", "--quiet")[0] == 0
    target = tmp_path / "precious.pt"
    target.write_bytes(b"precious")
    assert run(capsys, "unpack", archive, "-o", target)[0] == 1
    assert target.read_bytes() == b"precious"


def test_a_damaged_archive_leaves_no_checkpoint(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "pack", model, "--quiet")
    archive = model.with_suffix(".momos")
    data = bytearray(archive.read_bytes())
    data[-1] ^= 1
    archive.write_bytes(data)
    for command in (["unpack", archive, "-o", tmp_path / "x.pt"], ["verify", archive]):
        status, _, error = run(capsys, *command)
        assert status == 1
        assert "digest" in error
    assert not (tmp_path / "x.pt").exists()


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        main(["pack", "missing.pt", "--debug"])


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = run(capsys, "--help")
    assert status == 0
    for name, (_, text) in COMMANDS.items():
        assert name in output
        assert text.split()[0] in output
        status, help_text, _ = run(capsys, name, "--help")
        assert status == 0
        assert "--debug" in help_text
        command = group.commands.get(name) or group.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help


def test_light_commands_do_not_import_torch(model: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from momos_rs.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    archive = str(model.with_suffix(".momos"))
    for arguments in (
        ["--help"],
        ["pack", str(model), "--quiet"],
        ["info", archive],
        ["verify", archive, "--against", str(model)],
        ["unpack", archive, "-o", str(tmp_path / "again.safetensors")],
        ["complexity", str(model)],
    ):
        subprocess.run(
            [sys.executable, "-c", program, *arguments], check=True, stdout=subprocess.DEVNULL
        )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_within_a_second_and_leaves_nothing(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    # Half a minute of work on two fast cores.
    rng = np.random.default_rng(0)
    path = tmp_path / "big.safetensors"
    checkpoint.write(
        path, checkpoint_of({"w": rng.standard_normal((16_000, 1000)).astype(np.float32)})
    )
    before = sorted(tmp_path.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "momos_rs", "pack", str(path), "-s", "16", "-c", "0.3"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    time.sleep(3)
    assert process.poll() is None, "the work must take longer than the test waits"
    start = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert time.monotonic() - start < 1.5  # a second, and some for a busy machine
    assert process.returncode == status
    assert error.decode().strip() == {130: "momos: stopped", 143: "momos: terminated"}[status]
    assert sorted(tmp_path.iterdir()) == before


def test_output_into_a_closed_pipe_ends_quietly(model: Path) -> None:
    subprocess.run([sys.executable, "-m", "momos_rs", "pack", str(model), "-q"], check=True)
    command = f"{sys.executable} -m momos_rs info {model.with_suffix('.momos')} | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert result.stderr == b""
