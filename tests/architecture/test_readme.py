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


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    model = checkpoint_of({"weight": rng.standard_normal((64, 64)).astype(np.float32)})
    checkpoint.write(Path("model.safetensors"), model)
    lines = [line for block in fenced("console") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "momos"
        assert not group.main(args=arguments, prog_name="momos", standalone_mode=False), line


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
