"""Accuracy, bytes and complexity of trained mosaics on images and signals that need no download.

    python benches/bench_training.py [--task digits/mlp ...] [--seeds N] [--runs FILE.jsonl]
    python benches/bench_training.py --table FILE.md [--runs FILE.jsonl]

Every task is trained densely, by the paper's recipe (motifs drawn uniformly, a projection after
every epoch), the same with motifs drawn by distance, by one k-means projection half-way and then
fine-tuning, and through the mosaic; every method with the same epochs, learning rate and
cosine, and all trainable parameters in the mosaic. Every archive is checked to unpack to the
trained weights bit for bit. Runs are appended to the runs file as they end, and are not repeated if
it has them; --table makes the tables of the runs that are there, and trains nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import momos_rs
from momos_rs.experiments import RunConfig, train
from momos_rs.experiments.data import load_data
from momos_rs.experiments.measures import measure
from momos_rs.experiments.packing import pack_model

SIZES = ((4, 0.05), (8, 0.05), (4, 0.01), (8, 0.01))


@dataclass(frozen=True)
class Task:
    """A data set with a model, how long it is trained, and in which sizes of mosaics."""

    data: str
    model: str
    epochs: int
    sizes: tuple[tuple[int, float], ...] = SIZES
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.data}/{self.model}"


TASKS = (
    Task("digits", "mlp", 40),
    Task("digits", "convnet", 20),
    Task("mnist1d", "mlp", 40),
    Task("mnist1d", "convnet", 20, SIZES[:2]),
    Task("mnist5k", "mlp", 15, SIZES[:2]),
    Task("digits", "resnet20", 12, SIZES[:2], {"learning_rate": 3e-3}),
)


def methods(task: Task) -> Iterator[tuple[str, RunConfig]]:
    """The rows of a task's table and their settings."""
    base = RunConfig(
        model=task.model, data=task.data, epochs=task.epochs, threads=1, **task.settings
    )
    half = task.epochs // 2
    yield "dense", replace(base, method="baseline")
    for s, c in task.sizes:
        mosaic = replace(base, method="momos", s=s, capacity=c)
        yield f"s={s}, c={c:g}: paper", mosaic
        yield f"s={s}, c={c:g}: spread", replace(mosaic, selection="spread")
        yield (
            f"s={s}, c={c:g}: fine-tuned",
            replace(
                mosaic, selection="kmeans", epochs=task.epochs - half, tune_epochs=half,
                warmup=task.epochs - half - 1,
            ),
        )  # fmt: skip
        yield f"s={s}, c={c:g}: mosaic-aware", replace(mosaic, method="mosaic-aware")


def run(config: RunConfig, data: Any) -> dict[str, Any]:
    result = train(config, data=data)
    model = result.model
    before = copy.deepcopy(model)
    before.load_state_dict(result.initial)
    first, last = (measure(each, ["bdm", "qubd"]) for each in (before, model))
    figures: dict[str, Any] = {
        "accuracy": 100 * result.summary["test_accuracy"],
        "float32_bytes": result.summary["float32_bytes"],
        "bdm": last["bdm"] / first["bdm"],
        "qubd": last["qubd"] / first["qubd"],
    }
    if result.mosaic is not None:
        archive = pack_model(model, result.mosaic)
        unpacked = momos_rs.unpack(archive)
        assert all(torch.equal(unpacked[name], each) for name, each in model.state_dict().items())
        figures["bytes"] = len(archive)
    return figures


def table(rows: list[tuple[str, list[dict[str, Any]]]]) -> str:
    dense = statistics.fmean(each["accuracy"] for each in rows[0][1])
    header = ("method", "runs", "accuracy (%)", "loss", "archive (bytes)", "ratio", "BDM", "QuBD")
    lines = [header, tuple("---" for _ in header)]
    for name, runs in rows:
        accuracies = [each["accuracy"] for each in runs]
        mean = statistics.fmean(accuracies)
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        bytes_, ratio = "", ""
        if "bytes" in runs[0]:
            archive = statistics.fmean(each["bytes"] for each in runs)
            bytes_ = f"{archive:,.0f}"
            ratio = f"{runs[0]['float32_bytes'] / archive:.1f}x"
        complexity = [statistics.fmean(each[which] for each in runs) for which in ("bdm", "qubd")]
        lines.append(
            (
                name,
                str(len(runs)),
                f"{mean:.2f}{spread}",
                "" if name == rows[0][0] else f"{dense - mean:+.2f}",
                bytes_,
                ratio,
                *(f"{each:.3f}" for each in complexity),
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def key_of(config: RunConfig) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {entry["config"]: entry["figures"] for entry in entries}


def make_runs(tasks: list[Task], seeds: int, path: Path) -> None:
    """All methods with the first seed, then with the next: what is there first says most."""
    done = read_runs(path)
    for seed in range(seeds):
        for task in tasks:
            data = load_data(task.data)
            for name, config in methods(task):
                seeded = replace(config, seed=seed)
                if key_of(seeded) in done:
                    continue
                figures = run(seeded, data)
                with path.open("a") as file:
                    file.write(json.dumps({"config": key_of(seeded), "figures": figures}) + "\n")
                print(f"{task.name}, {name}, seed {seed}: {figures['accuracy']:.2f}%", flush=True)


def tables(path: Path, seeds: int) -> str:
    done = read_runs(path)
    text = ["# Trained mosaics", ""]
    for task in TASKS:
        rows = []
        for name, config in methods(task):
            keys = [key_of(replace(config, seed=seed)) for seed in range(seeds)]
            found = [done[key] for key in keys if key in done]
            if found:
                rows.append((name, found))
        if not rows or rows[0][0] != "dense":
            continue
        weights = rows[0][1][0]["float32_bytes"] // 4
        text += [
            f"## {task.data}, {task.model} of {weights:,} weights, {task.epochs} epochs",
            "",
            table(rows),
            "",
        ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("bench_training.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", action="append", help="such as digits/mlp; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table is None:
        chosen = [task for task in TASKS if not options.task or task.name in options.task]
        make_runs(chosen, options.seeds, options.runs)
    text = tables(options.runs, options.seeds)
    print(text)
    if options.table is not None:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
