"""Targets: each is met within 1%, or the error says what is possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import defaults, errors, packing
from momos_rs.archive import open_archive
from momos_rs.checkpoint import Checkpoint
from momos_rs.mosaic.targets import Targets
from momos_rs.packing.targets import TOLERANCE, MissedError, search
from support.models import checkpoint_of


def model(seed: int = 0) -> Checkpoint:
    """A few matrices of different scales, a convolution and a bias."""
    rng = np.random.default_rng(seed)
    return checkpoint_of(
        {
            "a.weight": rng.standard_normal((120, 100)).astype(np.float32),
            "b.weight": (0.1 * rng.standard_normal((90, 64))).astype(np.float32),
            "c.weight": (0.3 * rng.standard_normal((24, 20, 3, 3))).astype(np.float32),
            "c.bias": rng.standard_normal(24).astype(np.float32),
        }
    )


MODEL = model()

FEW: dict[str, Any] = {"kmeans": {"iterations": 1}}
"""Of what takes long."""


def relative_errors(archive: bytes, original: Checkpoint = MODEL) -> tuple[float, list[float]]:
    """The relative error over all packed tensors, and of each, from the decoded weights."""
    distortions, energies = [], []
    with open_archive(archive) as opened:
        for index, base in enumerate(original.bases):
            if original.entries[index].name.endswith("weight"):
                weights = base.read().view(np.float32).astype(np.float64)
                decoded = opened.read_base(index).view(np.float32).astype(np.float64)
                distortions.append(float(((weights - decoded) ** 2).sum()))
                energies.append(float((weights**2).sum()))
    each = [d / e for d, e in zip(distortions, energies, strict=True)]
    return sum(distortions) / sum(energies), each


@pytest.mark.parametrize("method", ["grid", "trellis", "kmeans", "random"])
@pytest.mark.parametrize(
    ("option", "value"), [("target_ratio", 5.0), ("target_size", 14_000), ("bits", 5.5)]
)
def test_a_size_is_met_within_one_per_cent(
    method: defaults.MethodName, option: str, value: float
) -> None:
    wish: dict[str, Any] = {option: value}
    archive = packing.pack(MODEL, method=method, **FEW.get(method, {}), **wish)
    limit = Targets(**wish).most_bytes(MODEL.nbytes, MODEL.numel)
    assert limit is not None
    assert limit * (1 - TOLERANCE) <= len(archive) <= limit


@pytest.mark.parametrize("method", ["grid", "trellis", "kmeans", "random"])
def test_an_error_is_met_within_one_per_cent(method: defaults.MethodName) -> None:
    target = 0.02 if method in ("grid", "trellis") else 0.2
    archive = packing.pack(MODEL, method=method, **FEW.get(method, {}), max_error=target)
    assert target * (1 - TOLERANCE) <= relative_errors(archive)[0] <= target


@pytest.mark.parametrize("method", ["grid", "trellis", "kmeans"])
def test_an_error_per_tensor_is_met_by_the_worst(method: defaults.MethodName) -> None:
    target = 0.02 if method in ("grid", "trellis") else 0.2
    archive = packing.pack(MODEL, method=method, **FEW.get(method, {}), max_tensor_error=target)
    worst = max(relative_errors(archive)[1])
    assert target * (1 - TOLERANCE) <= worst <= target


def test_both_errors_hold_at_once() -> None:
    for overall, each in [(0.01, 0.05), (0.03, 0.01), (0.02, 0.021)]:
        archive = packing.pack(MODEL, method="trellis", max_error=overall, max_tensor_error=each)
        total, tensors = relative_errors(archive)
        assert total <= overall
        assert max(tensors) <= each
        assert total >= overall * (1 - TOLERANCE) or max(tensors) >= each * (1 - TOLERANCE)


def test_the_report_says_what_was_chosen(tmp_path: Path) -> None:
    from momos_rs import checkpoint

    folder = tmp_path
    checkpoint.write(folder / "model.safetensors", MODEL)
    wanted: list[tuple[defaults.MethodName, str]] = [("trellis", "step of"), ("kmeans", "k = ")]
    for method, what in wanted:
        report = packing.pack_file(
            folder / "model.safetensors", overwrite=True, method=method, bits=6
        )
        note = next(note for note in report.notes if note.startswith("at most 6 bits per weight: "))
        assert what in note
        assert 0.99 * 6 <= report.bits_per_weight <= 6


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("trellis", {"target_size": 100}),
        ("kmeans", {"target_size": 100}),
        ("trellis", {"target_ratio": 1000}),
        ("kmeans", {"max_error": 1e-9}),
        ("grid", {"bits": 200}),
    ],
)
def test_what_cannot_be_met_is_answered_by_what_can(
    method: defaults.MethodName, options: dict[str, Any]
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="the nearest possible") as caught:
        packing.pack(MODEL, method=method, **FEW.get(method, {}), **options)
    assert "\n" not in str(caught.value)
    ((option, value),) = options.items()
    assert str(caught.value).startswith(f"{option}={value!r} cannot be met")


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 3, "max_error": 0.1},
        {"bits": 3, "target_size": 1000},
        {"bits": -1},
        {"bits": math.nan},
        {"max_error": 1.0},
        {"max_tensor_error": 0},
        {"step": 0},
        {"step_exponent": math.inf},
    ],
)
def test_impossible_wishes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgumentError):
        packing.pack(MODEL, method="trellis", **options)


def falling(shift: float, power: float) -> Callable[[float], tuple[float, float]]:
    return lambda setting: (shift * setting**-power, setting)


@given(
    shift=st.floats(1e-3, 1e3),
    power=st.floats(0.5, 3),
    target=st.floats(1e-2, 1e2),
    start=st.floats(1e-2, 1e2),
    rising=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_search_finds_what_there_is(
    shift: float, power: float, target: float, start: float, rising: bool
) -> None:
    trial = falling(shift, -power if rising else power)
    found = search(trial, target, start=start, low=1e-12, high=1e12, rising=rising)
    assert target * (1 - TOLERANCE) <= found.value <= target
    assert trial(found.setting)[0] == found.value


def test_the_search_steps_over_whole_numbers() -> None:
    found = search(
        lambda k: (100 * k, None), 12_345, start=3, low=1, high=1000, rising=True, whole=True
    )
    assert found.setting == 123
    with pytest.raises(MissedError) as caught:
        search(lambda k: (100 * k, None), 250, start=3, low=1, high=9, rising=True, whole=True)
    below, above = caught.value.nearest_below, caught.value.nearest_above
    assert below is not None
    assert above is not None
    assert (below.setting, above.setting) == (2, 3)
