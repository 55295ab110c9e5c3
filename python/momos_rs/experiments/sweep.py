"""Many runs of one recipe: over block sizes, capacities and seeds, with baselines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.atomic_file import replacing
from momos_rs.runtime.event_log import read_log

from .checkpoints import LOG_NAME, settings_of
from .config import RunConfig, TrainingMethod
from .data import Data, load_data
from .trainer import Progress, train

__all__ = ["SUMMARY_NAME", "SweepRow", "finished_summary", "run_name", "summarise", "sweep"]

SUMMARY_NAME = "sweep.json"


@dataclass(frozen=True)
class SweepRow:
    """The runs that differ by their seed alone.

    Attributes:
        method: Training method.
        s: Block size, None without a mosaic.
        capacity: Motifs per block asked for, None without a mosaic or with a given k.
        k: Number of motifs of the first run, None without a mosaic.
        runs: Number of seeds.
        accuracy: Mean test accuracy.
        accuracy_deviation: Its sample deviation over the seeds, 0 for one.
        distortion: Mean distortion of the last projection, None without one.
        archive_bytes: Mean bytes of the archives, None without a mosaic.
        float32_bytes: Bytes of the weights in float32.
    """

    method: str
    s: int | None
    capacity: float | None
    k: int | None
    runs: int
    accuracy: float
    accuracy_deviation: float
    distortion: float | None
    archive_bytes: float | None
    float32_bytes: int

    @property
    def ratio(self) -> float | None:
        """How many times smaller the archive is than the float32 weights."""
        return None if self.archive_bytes is None else self.float32_bytes / self.archive_bytes


def sweep(
    config: RunConfig,
    folder: Path,
    *,
    sizes: Sequence[int],
    capacities: Sequence[float],
    seeds: Sequence[int],
    baseline: bool = True,
    data: Data | None = None,
    data_folder: Path | None = None,
    download: bool = False,
    begin: Callable[[RunConfig, int, int], None] | None = None,
    progress: Progress | None = None,
) -> list[SweepRow]:
    """Trains every combination, and for each seed the run without a mosaic if wanted.

    Runs that are finished are not repeated, and one that was interrupted goes on, so a sweep that
    was stopped is completed by starting it again.

    Args:
        config: Everything that is common; its method must project.
        folder: One subfolder per run, and the table as ``sweep.json``.
        sizes: Block sizes.
        capacities: Capacities.
        seeds: Seeds.
        baseline: Whether to train without a mosaic as well.
        data: The task, if it is loaded already.
        data_folder: Where torchvision's data sets lie.
        download: Whether to download them.
        begin: Told of every run as it begins, with its number and their number.
        progress: Told of every epoch.

    Raises:
        InvalidArgumentError: If the method does not project, or a list is empty.
    """
    if not config.projects and baseline:
        raise InvalidArgumentError("a sweep is over mosaics; choose a method that makes one")
    if not (sizes and capacities and seeds):
        raise InvalidArgumentError("a sweep needs at least one block size, capacity and seed")
    configs = _configs(config, sizes, capacities, seeds, baseline=baseline)
    task = data or load_data(config.data, data_folder, download=download)
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for number, each in enumerate(configs, start=1):
        if begin is not None:
            begin(each, number, len(configs))
        path = folder / run_name(each)
        summary = finished_summary(path, each)
        if summary is None:
            summary = train(each, folder=path, data=task, resume=True, progress=progress).summary
        runs.append((each, summary))
    rows = summarise(runs)
    with replacing(folder / SUMMARY_NAME, overwrite=True) as file:
        text = json.dumps([asdict(row) for row in rows], indent=2)
        file.write(text.encode() + b"\n")
    return rows


def _configs(
    config: RunConfig,
    sizes: Sequence[int],
    capacities: Sequence[float],
    seeds: Sequence[int],
    *,
    baseline: bool,
) -> list[RunConfig]:
    """The runs of a sweep, those without a mosaic first."""
    if not config.projects:
        return [replace(config, seed=seed) for seed in seeds]
    plain: TrainingMethod = "qat" if config.quantizes else "baseline"
    configs = []
    if baseline:
        configs = [replace(config, method=plain, tune_epochs=0, seed=seed) for seed in seeds]
    if config.k is not None:
        sized = [replace(config, s=s) for s in sizes]
    else:
        sized = [replace(config, s=s, capacity=c) for s in sizes for c in capacities]
    return configs + [replace(each, seed=seed) for each in sized for seed in seeds]


def run_name(config: RunConfig) -> str:
    """The folder of a run within a sweep."""
    if not config.projects:
        return f"{config.method}-seed{config.seed}"
    size = f"k{config.k}" if config.k is not None else f"c{config.capacity:g}"
    return f"s{config.s}-{size}-seed{config.seed}"


def finished_summary(path: Path, config: RunConfig) -> dict[str, Any] | None:
    """The figures of a run with these settings that has come to its end, None if it has not."""
    if not (path / LOG_NAME).is_file():
        return None
    events = read_log(path / LOG_NAME)
    if not events or events[-1]["event"] != "end" or events[0]["event"] != "start":
        return None
    if RunConfig.from_dict(settings_of(events)) != config:
        return None
    return {name: value for name, value in events[-1].items() if name != "event"}


def summarise(runs: Sequence[tuple[RunConfig, dict[str, Any]]]) -> list[SweepRow]:
    """One row for all runs that differ by their seed alone, in order of appearance."""
    groups: dict[RunConfig, list[tuple[RunConfig, dict[str, Any]]]] = {}
    for config, summary in runs:
        groups.setdefault(replace(config, seed=0), []).append((config, summary))
    rows = []
    for config, members in groups.items():
        summaries = [summary for _, summary in members]
        accuracies = [each["test_accuracy"] for each in summaries]
        projects = config.projects
        rows.append(
            SweepRow(
                method=config.method,
                s=config.s if projects else None,
                capacity=config.capacity if projects else None,
                k=summaries[0]["k"] if projects else None,
                runs=len(summaries),
                accuracy=statistics.fmean(accuracies),
                accuracy_deviation=statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                distortion=_mean(summaries, "distortion"),
                archive_bytes=_mean(summaries, "archive_bytes"),
                float32_bytes=summaries[0]["float32_bytes"],
            )
        )
    return rows


def _mean(summaries: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [each[name] for each in summaries if name in each]
    return statistics.fmean(values) if values else None
