"""The plan: its points are those that packing gives, and its picture and advice follow them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from momos_rs import checkpoint, errors, packing
from momos_rs.cli.main import group
from momos_rs.packing.plan import Plan, plan
from momos_rs.plots.plan import plot_plan
from support.models import checkpoint_of


def model() -> checkpoint.Checkpoint:
    rng = np.random.default_rng(0)
    return checkpoint_of(
        {
            "a.weight": rng.standard_normal((80, 60)).astype(np.float32),
            "b.weight": rng.standard_normal((40, 30)).astype(np.float32),
            "b.bias": rng.standard_normal(40).astype(np.float32),
        }
    )


@pytest.fixture(scope="module")
def result() -> Plan:
    return plan(
        model(),
        methods=("kmeans", "random", "trellis"),
        block_sizes=(2, 4),
        capacities=(0.02, 0.1),
        steps=(0.8, 0.2),
        iterations=3,
    )


def test_points_are_what_packing_gives(result: Plan) -> None:
    assert len(result.points) == 2 * 2 * 2 + 2
    for point in result.points:
        options: dict[str, Any] = {"method": point.method}
        if point.method == "kmeans":
            options["iterations"] = 3
        if point.step is not None:
            options["step"] = point.step
        else:
            options |= {"block_size": point.block_size, "capacity": point.capacity}
        archive = packing.pack(model(), **options)
        # K-means goes on from the capacity before.
        slack = 0.02 if point.method == "kmeans" else 0.0
        assert abs(len(archive) - point.archive_bytes) <= slack * len(archive)
        assert point.bits_per_weight == 8 * point.archive_bytes / model().numel


def test_the_best_are_beaten_by_none(result: Plan) -> None:
    best = [point for point in result.points if point.best]
    assert best
    for point in best:
        for other in result.points:
            assert other.relative_error >= point.relative_error or other.ratio <= point.ratio
    for point in set(result.points) - set(best):
        assert any(
            other.relative_error <= point.relative_error and other.ratio >= point.ratio
            for other in best
        )


def test_references_and_advice(result: Plan) -> None:
    assert [reference.name for reference in result.references] == ["zstd -19", "xz -9", "lossless"]
    assert all(0.9 < reference.ratio < 2 for reference in result.references)
    assert any("trellis" in line for line in result.advice)
    assert any("kmeans" in line for line in result.advice)


def test_the_command_prints_a_table_json_and_a_picture(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "model.safetensors", model())
    command = [
        "plan",
        str(tmp_path / "model.safetensors"),
        "-s",
        "4",
        "-c",
        "0.05",
        "--steps",
        "0.5",
        "--no-references",
    ]
    shown = CliRunner().invoke(group, command)
    assert shown.exit_code == 0, shown.output
    assert "kmeans -s 4 -c 0.05" in shown.output
    assert "trellis --step 0.5" in shown.output
    record = json.loads(CliRunner().invoke(group, [*command, "--json"]).output)
    assert len(record["points"]) == 2
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plan.png"
    assert CliRunner().invoke(group, [*command, "--plot", str(picture)]).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(group, [*command, "--plot", str(picture)])
    assert isinstance(again.exception, FileExistsError)
    assert CliRunner().invoke(group, [*command, "--plot", str(picture), "--force"]).exit_code == 0
    other = CliRunner().invoke(group, [*command, "--plot", str(tmp_path / "plan.gif")])
    assert isinstance(other.exception, errors.InvalidArgumentError)
    assert "pictures end in" in str(other.exception)


def test_the_picture_shows_every_line(result: Plan) -> None:
    pytest.importorskip("matplotlib")
    (part,) = plot_plan(result).subfigs
    (key,) = part.legends
    assert {text.get_text() for text in key.get_texts()} >= {
        "kmeans, s = 2",
        "kmeans, s = 4",
        "random, s = 2",
        "random, s = 4",
        "trellis",
        "at the paper's bound",
    }


@pytest.mark.parametrize(
    "options",
    [
        {"method": "grid"},
        {"bits": 3.0},
        {"methods": ("random",), "iterations": 3},
        {"steps": (0.0,)},
        {"motifs": 9},
        {"methods": ("magic",)},
        {"capacities": (2.0,)},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        plan(model(), **{"references": False, **options})


def test_a_model_without_matrices_is_refused() -> None:
    with pytest.raises(errors.InvalidArgumentError, match="no tensor"):
        plan(checkpoint_of({"bias": np.ones(3, np.float32)}))
