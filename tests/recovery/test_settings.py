"""Every setting has one truth: a method takes its own, and refuses the others by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import momos_rs
from momos_rs import checkpoint, defaults, errors, packing
from momos_rs.archive import open_archive
from momos_rs.cli.main import main
from momos_rs.mosaic.methods import (
    METHODS_BY_NAME,
    Exact,
    Grid,
    KMeans,
    Method,
    RandomMotifs,
    Trellis,
    make_method,
    settings_of,
)
from momos_rs.mosaic.targets import Targets
from momos_rs.packing.options import MethodKeywords, PackKeywords
from support.models import checkpoint_of

MODEL = checkpoint_of({"w": np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)})


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (KMeans(block_size=2, capacity=0.2, iterations=2, seed=3), {"method": "kmeans"}),
        (KMeans(motifs=9, mini_batch=100, force_zero=False), {}),
        (RandomMotifs(motifs=9, motif_dtype="float16"), {"method": "random"}),
        (Grid(step=0.3, step_exponent=0.2), {"method": "grid"}),
        (Trellis(targets=Targets(bits=4)), {"method": "trellis"}),
        (Exact(block_size=2), {"lossless": True}),
    ],
)
def test_an_object_and_its_settings_pack_alike(method: Method, settings: dict[str, Any]) -> None:
    usual = type(method)()
    for each in dataclasses.fields(method):
        value = getattr(method, each.name)
        if value != getattr(usual, each.name):
            settings |= (
                {one.name: one.value for one in value.arguments}
                if isinstance(value, Targets)
                else {each.name: value}
            )
    assert packing.pack(MODEL, method=method) == packing.pack(MODEL, **settings)


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "step of k-means": (
        {"step": 0.3},
        "method='kmeans' does not take step=0.3; grid and trellis do",
    ),
    "capacity of a trellis": (
        {"method": "trellis", "capacity": 0.1},
        "method='trellis' does not take capacity=0.1; kmeans and random do",
    ),
    "iterations of a draw": (
        {"method": "random", "iterations": 3},
        "method='random' does not take iterations=3; kmeans does",
    ),
    "a capacity and a target": (
        {"capacity": 0.1, "target_ratio": 9},
        "give either capacity=0.1 or target_ratio=9, not both: each chooses the number of motifs",
    ),
    "a capacity and a number": (
        {"capacity": 0.1, "motifs": 9},
        "give either capacity=0.1 or motifs=9, not both: each chooses the number of motifs",
    ),
    "a step and a target": (
        {"method": "grid", "step": 0.2, "bits": 6},
        "give either step=0.2 or bits=6, not both: each chooses the step",
    ),
    "two targets": ({"bits": 6, "max_error": 0.1}, "give either bits=6 or max_error=0.1, not both"),
    "a capacity of what is there": (
        {"lossless": True, "capacity": 0.1},
        "lossless=True keeps every bit and does not take capacity=0.1",
    ),
    "a method that is not needed": (
        {"lossless": True, "method": "grid"},
        "give either lossless=True or method='grid', not both: lossless packing chooses no motifs",
    ),
    "a size that is none": ({"memory": "much"}, "'much' is not a size like 1500, 512M"),
    "no thread": ({"threads": 0}, "threads must be at least 1, not 0"),
    "no such option": ({"colour": "blue"}, "unknown option colour; there are all_parameters, "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_method_does_not_take_is_refused_in_one_line(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(errors.InvalidArgumentError) as caught:
        packing.pack(MODEL, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--method", "trellis", "-c", "0.1"],
            "--method trellis does not take --capacity 0.1; kmeans and random do",
        ),
        (["--step", "0.3"], "--method kmeans does not take --step 0.3; grid and trellis do"),
        # A default does not count as given, its value does.
        (["--step", "0.25"], "--method kmeans does not take --step 0.25; grid and trellis do"),
        (
            ["--target-ratio", "9", "-c", "0.1"],
            "give either --capacity 0.1 or --target-ratio 9, not both: each chooses the number of "
            "motifs",
        ),
        (
            ["--target-size", "9k", "-k", "4"],
            "give either --motifs 4 or --target-size 9000, not both: each chooses the number of "
            "motifs",
        ),
        (
            ["--method", "random", "--no-force-zero", "--tolerance", "0"],
            "--method random does not take --tolerance 0; kmeans does",
        ),
        (
            ["--method", "grid", "--no-force-zero"],
            "--method grid does not take --no-force-zero; kmeans and random do",
        ),
        (["--lossless", "-k", "3"], "--lossless keeps every bit and does not take --motifs 3"),
    ],
)
def test_the_command_refuses_in_terms_of_options(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.write(tmp_path / "m.safetensors", MODEL)
    with pytest.raises(SystemExit) as ended:
        main(["pack", str(tmp_path / "m.safetensors"), *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"momos: error: {message}; see momos pack --help\n"
    assert not (tmp_path / "m.momos").exists()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--method", "trellis"], {"method": "trellis"}),
        (["--bits", "6", "--iterations", "1"], {"bits": 6, "iterations": 1}),
        (["--lossless", "-s", "2"], {"lossless": True, "block_size": 2}),
    ],
)
def test_the_command_packs_what_the_function_does(
    arguments: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint.write(tmp_path / "m.safetensors", MODEL)
    with pytest.raises(SystemExit) as ended:
        main(["pack", str(tmp_path / "m.safetensors"), "--quiet", *arguments])
    assert ended.value.code == 0
    model = checkpoint.read(tmp_path / "m.safetensors")
    assert (tmp_path / "m.momos").read_bytes() == packing.pack(model, **options)


def test_errors_of_the_command_speak_of_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.write(tmp_path / "m.safetensors", MODEL)
    for arguments, said in (
        (["--memory", "1M"], "allow it more (--memory "),
        (["--bits", "200"], "--bits 200 cannot be met"),
        (["--memory", "1k", "--method", "grid"], "more than the 1,000 of --memory;"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["pack", str(tmp_path / "m.safetensors"), *arguments, "--quiet"])
        assert ended.value.code == 1
        assert said in capsys.readouterr().err
    for options, said in (
        ({"memory": "1M"}, "allow it more (memory='"),
        ({"memory": 1_000_000}, "allow it more (memory='"),
        ({"bits": 200}, "bits=200 cannot be met"),
        ({"memory": "1k", "method": "grid"}, "more than the 1,000 of memory;"),
    ):
        with pytest.raises(errors.InvalidArgumentError) as caught:
            packing.pack_file(tmp_path / "m.safetensors", **options)
        assert said in str(caught.value)


def test_settings_belong_into_the_object() -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"capacity=0.1 cannot be added to KMean"):
        packing.pack(MODEL, method=KMeans(), capacity=0.1)
    with pytest.raises(errors.InvalidArgumentError, match="reaches no target"):
        momos_rs.build_mosaic([np.ones(9, np.float32)], method=KMeans(targets=Targets(bits=3)))


def test_impossible_mixtures_cannot_be_written() -> None:
    for kind, settings in (
        (KMeans, {"capacity": 0.1, "targets": Targets(bits=3)}),
        (KMeans, {"mini_batch": 9, "sensitivity": {"w": 1.0}}),
        (Grid, {"step": 0.1, "targets": Targets(max_error=0.1)}),
        (Trellis, {"step_exponent": 0.1, "sensitivity": {"w": 1.0}}),
        (RandomMotifs, {"block_size": 0}),
        (Exact, {"block_size": 5000}),
    ):
        with pytest.raises(errors.InvalidArgumentError):
            kind(**settings)


def test_keywords_are_those_of_the_methods() -> None:
    known = frozenset(MethodKeywords.__annotations__)
    assert frozenset.union(*map(settings_of, METHODS_BY_NAME.values())) == known
    assert known < PackKeywords.__annotations__.keys()
    names = set(get_type_hints(defaults)) | set(METHODS_BY_NAME)
    assert {*defaults.FREE_METHODS, *defaults.STRUCTURED_METHODS, "exact"} <= names
    for name in METHODS_BY_NAME:
        assert make_method(name).name == name


def test_the_archive_says_what_was_asked() -> None:
    for method, said in (
        (
            KMeans(capacity=0.2),
            {"capacity": 0.2, "method": "kmeans", "iterations": defaults.ITERATIONS},
        ),
        (RandomMotifs(motifs=9, seed=4), {"capacity": None, "iterations": 0, "seed": 4}),
        (Grid(), {"method": "grid", "step": 0.25, "step_exponent": 0.5}),
    ):
        with open_archive(packing.pack(MODEL, method=method)) as archive:
            record = archive.document.grid or archive.document.mosaic
            assert record is not None
            assert said.items() <= record.settings.items()
