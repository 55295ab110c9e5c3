"""Options that take several values take them repeated, with commas, or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from momos_rs import checkpoint
from momos_rs.cli.main import main
from support.models import checkpoint_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((24, 20)).astype(np.float32) for name in ("a", "b")}
    checkpoint.write(tmp_path / "m.safetensors", checkpoint_of(arrays))
    return tmp_path / "m.safetensors"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    return json.loads(captured.out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-s", 2, "-s", 4, "-c", 0.05, "-c", 0.1],
        ["-s", "2,4", "-c", "0.05,0.1"],
        ["--block-sizes", "2", "--block-size", "4", "--capacity", "0.05", "--capacities", "0.1"],
    ],
)
def test_a_plan_tries_every_value(
    arguments: list[object], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for methods in (["--methods", "kmeans,grid"], ["--method", "kmeans", "--method", "grid"]):
        plan = printed(
            capsys, "plan", model, *arguments, *methods, "--steps", "0.5", "--no-references"
        )
        tried = [
            (each["method"], each["block_size"], each["capacity"], each["step"])
            for each in plan["points"]
        ]
        assert tried == [
            ("kmeans", 2, 0.05, None),
            ("kmeans", 2, 0.1, None),
            ("kmeans", 4, 0.05, None),
            ("kmeans", 4, 0.1, None),
            ("grid", None, None, 0.5),
        ]


@pytest.mark.parametrize("skip", [["--skip", "gzip,lzma"], ["--skip", "gzip", "--skip", "lzma"]])
def test_measures_are_chosen_and_skipped(
    skip: list[str], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for measures in (["--measure", "gzip,zstd"], ["--measure", "gzip", "--measures", "zstd"]):
        report = printed(capsys, "complexity", model, *measures, *skip)
        assert {each["name"] for each in report["compression"]} == {"zstd"}


@pytest.mark.parametrize(
    "patterns", [["--include", "a,b"], ["--include", "a", "--include", "b"], ["--include", "[a,b]"]]
)
def test_patterns_may_be_many(
    patterns: list[str], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = printed(capsys, "pack", model, "--force", *patterns)
    assert [each["stored"] for each in report["tensors"]] == ["mosaic", "mosaic"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "2,none"], "'none' is not a valid integer range"),
        (["-c", "0.1,2"], "2.0 is not in the range 0<x<=1"),
        (["--methods", "kmeans,magic"], "'magic' is not one of"),
    ],
)
def test_a_wrong_value_among_others_is_named(
    arguments: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(model), *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_training_takes_lists_for_a_sweep_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Several seeds without --sweep are several runs with one mean.
    for lists in (["-s", "2,4"], ["-s", "2", "-s", "4"], ["-c", "0.1,0.2"]):
        with pytest.raises(SystemExit) as ended:
            main(["train", "-o", str(tmp_path / "run"), *lists])
        assert ended.value.code == 2
        assert "--sweep" in capsys.readouterr().err
