"""Accuracy, bytes and complexity of trained mosaics on digits and mnist1d.

    python benches/bench_training.py [--output FILE.md] [--runs FILE.jsonl] [--seeds N]

For an MLP (4 hidden layers of 256) and a small convolutional network: training without a mosaic,
quantisation-aware training, the paper's MoMos (motifs drawn anew at every epoch's projection, all
trainable parameters), and one projection after training followed by motif fine-tuning. Every
method gets the same number of epochs in all. Every archive is checked to unpack to the trained
weights bit for bit. Runs are appended to the runs file as they end, and are not repeated if it has
them.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import momos_rs
from momos_rs.experiments import RunConfig, train
from momos_rs.experiments.data import load_data
from momos_rs.experiments.measures import measure
from momos_rs.experiments.packing import pack_model

# Norms are one-dimensional, few and sensitive; fine-tuned runs keep them out of the mosaic.
NORMS = ("1.*", "4.*", "7.*", "10.*")


@dataclass(frozen=True)
class Task:
    """A data set with a model, and how long it is trained."""

    data: str
    model: str
    epochs: int
    tune_epochs: int
    exclude: tuple[str, ...] = ()
    few: bool = False  # only the methods that tell the story

    @property
    def base(self) -> RunConfig:
        return RunConfig(model=self.model, data=self.data, threads=1)


@dataclass(frozen=True)
class Method:
    """A row of the tables."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tuned: bool = False

    def config(self, task: Task, seed: int) -> RunConfig:
        epochs = task.epochs + task.tune_epochs
        settings = {"method": "baseline", "epochs": epochs, "seed": seed, **self.settings}
        if self.tuned:
            settings.update(epochs=task.epochs, tune_epochs=task.tune_epochs, exclude=task.exclude)
            if settings.pop("once", False):
                settings.update(selection="kmeans", warmup=task.epochs - 1)
        return replace(task.base, **settings)


TASKS = (
    Task("digits", "mlp", 20, 20),
    Task("digits", "convnet", 10, 10, NORMS),
    Task("mnist1d", "mlp", 40, 40, few=True),
    Task("mnist1d", "convnet", 12, 12, NORMS, few=True),
)


def paper(s: int, c: float) -> Method:
    return Method(f"MoMos s={s}, c={c:g}", {"method": "momos", "s": s, "capacity": c})


def tuned(s: int, c: float, **settings: Any) -> Method:
    settings = {"method": "momos", "s": s, "capacity": c, "once": True, **settings}
    return Method(f"MoMos s={s}, c={c:g}, tuned", settings, tuned=True)


METHODS = (
    Method("baseline"),
    Method("QAT, 8 bits", {"method": "qat", "q": 8}),
    Method("QAT, 4 bits", {"method": "qat", "q": 4}),
    paper(4, 0.05),
    paper(4, 0.01),
    paper(8, 0.05),
    tuned(4, 0.01),
    tuned(8, 0.05),
    tuned(16, 0.07),
    replace(
        tuned(8, 0.05, method="momos+qat", q=8), name="MoMos s=8, c=0.05, tuned, with 8-bit QAT"
    ),
)


FEW = (
    "baseline",
    "QAT, 8 bits",
    "MoMos s=4, c=0.05",
    "MoMos s=8, c=0.05",
    "MoMos s=4, c=0.01, tuned",
    "MoMos s=8, c=0.05, tuned",
)


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
    baseline = statistics.fmean(each["accuracy"] for each in rows[0][1])
    header = ("method", "accuracy (%)", "loss", "archive (bytes)", "ratio", "BDM", "QuBD")
    lines = [header, tuple("---" for _ in header)]
    for name, runs in rows:
        accuracies = [each["accuracy"] for each in runs]
        mean = statistics.fmean(accuracies)
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        bytes_, ratio = "", ""
        if "bytes" in runs[0]:
            archive = statistics.fmean(each["bytes"] for each in runs)
            bytes_ = f"{archive:,.0f}"
            ratio = f"{runs[0]['float32_bytes'] / archive:.1f}x"
        complexity = [statistics.fmean(each[which] for each in runs) for which in ("bdm", "qubd")]
        lines.append(
            (
                name,
                f"{mean:.2f} ± {spread:.2f}",
                "" if name == rows[0][0] else f"{baseline - mean:+.2f}",
                bytes_,
                ratio,
                *(f"{each:.3f}" for each in complexity),
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("bench_training.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", action="append", help="such as digits/mlp; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cache: dict[str, Any] = {}
    if options.runs.exists():
        for line in options.runs.read_text().splitlines():
            entry = json.loads(line)
            cache[entry["config"]] = entry["figures"]
    text = ["# Trained mosaics on digits and mnist1d", ""]
    for task in TASKS:
        name = f"{task.data}/{task.model}"
        if options.task and name not in options.task:
            continue
        data = load_data(task.data)
        rows: list[tuple[str, list[dict[str, Any]]]] = []
        for method in METHODS:
            if task.few and method.name not in FEW:
                continue
            runs = []
            for seed in range(options.seeds):
                config = method.config(task, seed)
                key = json.dumps(config.to_dict(), sort_keys=True)
                if key not in cache:
                    cache[key] = run(config, data)
                    with options.runs.open("a") as file:
                        file.write(json.dumps({"config": key, "figures": cache[key]}) + "\n")
                runs.append(cache[key])
            rows.append((method.name, runs))
            mean = statistics.fmean(each["accuracy"] for each in runs)
            print(f"{name}: {method.name}: {mean:.2f}%", flush=True)
        weights = rows[0][1][0]["float32_bytes"] // 4
        text += [
            f"## {task.data}, {task.model} of {weights:,} weights",
            "",
            f"{task.epochs + task.tune_epochs} epochs in all, {options.seeds} seeds.",
            "",
            table(rows),
            "",
        ]
    print("\n".join(text))
    if options.output is not None:
        options.output.write_text("\n".join(text))


if __name__ == "__main__":
    main()
