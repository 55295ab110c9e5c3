"""The README's examples run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from momos_rs import checkpoint
from momos_rs.cli.main import group
from support.models import checkpoint_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = fenced("python")
    assert examples
    namespace: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), namespace)


def commands() -> list[tuple[str, list[str]]]:
    """The commands, each with the lines that the README says it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(fenced("console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line.strip())
    return found


NUMBER = r"\d+\\\.\d{3,}|\d{3,}|\d+\\\.\d+(?=%)"
"""Long numbers and shares, in an escaped word: processors may differ in their last digits."""


def pattern_of(line: str) -> str:
    """The words of a line in their order."""
    words = [re.escape(word) for word in line.split()]
    return r"\s+".join(re.sub(NUMBER, r"[\\d.,]+", word) for word in words)


def test_the_commands_print_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    model = checkpoint_of({"weight": rng.standard_normal((64, 64)).astype(np.float32)})
    checkpoint.write(Path("model.safetensors"), model)
    assert len(commands()) >= 9
    for command, expected in commands():
        program, *arguments = shlex.split(command)
        assert program == "momos"
        assert not group.main(args=arguments, prog_name="momos", standalone_mode=False), command
        printed = capsys.readouterr().out
        position = 0
        for line in expected:
            found = re.search(pattern_of(line), printed[position:])
            assert found is not None, f"{command} does not print {line!r}:\n{printed}"
            position += found.end()
        if "test accuracy" in "".join(expected):
            accuracy = re.search(r"test accuracy\s+([\d.]+)%", printed)
            promised = re.search(r"test accuracy ([\d.]+)%", "".join(expected))
            assert accuracy is not None
            assert promised is not None
            assert abs(float(accuracy[1]) - float(promised[1])) < 1.5


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"make (\w+)", README)
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_defaults_in_the_table_are_the_defaults() -> None:
    from momos_rs import defaults

    for option, value in (
        ("--block-size", defaults.BLOCK_SIZE),
        ("--capacity", defaults.CAPACITY),
        ("--method", defaults.METHOD),
        ("--seed", defaults.SEED),
    ):
        row = next(line for line in README.splitlines() if f"`{option}`" in line)
        assert row.split("|")[-2].strip().strip("`") == str(value)
