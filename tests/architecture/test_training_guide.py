"""The examples of the training guide run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from momos_rs.cli.main import group

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_python_examples_run() -> None:
    examples = fenced("python")
    assert len(examples) >= 4
    namespace: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "training.md", "exec"), namespace)


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in fenced("console") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "momos"
        assert not group.main(args=arguments, prog_name="momos", standalone_mode=False), line
