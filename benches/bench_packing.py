"""Packing and unpacking a model of 22M parameters: seconds per phase, memory and throughput.

    python benches/bench_packing.py [MODEL ...]

Without arguments the model is random weights of the size of a ViT-Small. Every archive is verified
against its model before its figures are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from momos_rs import checkpoint, packing, verify_file
from momos_rs.checkpoint import Base, Checkpoint, Entry

# Imports and numpy's own memory are no part of packing; a run that packs nothing measures them.
BASELINE = (
    "import momos_rs.packing, momos_rs.checkpoint;"
    "from momos_rs.runtime.stopwatch import peak_memory; print(peak_memory())"
)
PACK = """
import json, sys
import momos_rs
report = momos_rs.pack_file(
    sys.argv[1], sys.argv[2], overwrite=True, capacity=float(sys.argv[3]), effort=sys.argv[4]
)
print(json.dumps(report.to_dict()))
"""
REPEATS = 3


def vision_transformer(path: Path) -> None:
    """Random weights with the shapes and the deviations of a ViT-Small, 22M parameters."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 197, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "patch_embed.proj.bias": (384,),
    }
    for block in range(12):
        for name, shape in (
            ("norm1.weight", (384,)),
            ("attn.qkv.weight", (1152, 384)),
            ("attn.qkv.bias", (1152,)),
            ("attn.proj.weight", (384, 384)),
            ("mlp.fc1.weight", (1536, 384)),
            ("mlp.fc1.bias", (1536,)),
            ("mlp.fc2.weight", (384, 1536)),
        ):
            shapes[f"blocks.{block}.{name}"] = shape
    shapes["head.weight"] = (1000, 384)
    arrays = {
        name: (rng.standard_normal(shape) * rng.uniform(0.01, 0.1)).astype(np.float32)
        for name, shape in shapes.items()
    }

    def base(array: np.ndarray) -> Base:
        return Base("F32", array.size, lambda: np.frombuffer(array.tobytes(), np.uint8))

    checkpoint.write(
        path,
        Checkpoint(
            tuple(Entry(name, array.shape, i) for i, (name, array) in enumerate(arrays.items())),
            tuple(map(base, arrays.values())),
        ),
    )


def measure(model: Path, folder: Path, capacity: float, effort: str) -> dict[str, object]:
    archive, restored = folder / "model.momos", folder / "restored.safetensors"
    baseline = int(subprocess.check_output([sys.executable, "-c", BASELINE]))
    packed = [
        json.loads(
            subprocess.check_output(
                [sys.executable, "-c", PACK, str(model), str(archive), str(capacity), effort]
            )
        )
        for _ in range(REPEATS)
    ]
    report = sorted(packed, key=lambda each: sum(each["seconds"].values()))[REPEATS // 2]
    assert verify_file(archive, model).matches
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        packing.unpack_file(archive, restored, overwrite=True)
        seconds.append(time.perf_counter() - start)
    unpacking = statistics.median(seconds)
    nbytes = report["tensor_bytes"]
    return {
        "model": model.name,
        "capacity": capacity,
        "effort": effort,
        "weights": report["weights"],
        "ratio": report["ratio"],
        "relative error": report["relative_error"],
        "pack seconds": sum(report["seconds"].values()),
        "phases": report["seconds"],
        "peak over model": (report["peak_memory"] - baseline) / nbytes,
        "peak in all": report["peak_memory"],
        "unpack seconds": unpacking,
        "unpack MB/s": nbytes / unpacking / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--capacity", type=float, nargs="*", default=[0.01, 0.05])
    parser.add_argument("--effort", nargs="*", default=["fast", "default"])
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = arguments.models
        if not models:
            models = [folder / "vit_small_random.safetensors"]
            vision_transformer(models[0])
        rows = [
            measure(model, folder, capacity, effort)
            for model in models
            for capacity in arguments.capacity
            for effort in arguments.effort
        ]
    lines = [
        f"{platform.machine()}, {os.cpu_count()} threads; medians of {REPEATS} runs",
        "",
        "| model | weights | c | effort | ratio | relative error | pack s | peak / model "
        "| unpack s | unpack MB/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['weights']:,} | {row['capacity']} | {row['effort']} | "
            f"{row['ratio']:.2f} | {row['relative error']:.4g} | {row['pack seconds']:.2f} | "
            f"{row['peak over model']:.2f} | {row['unpack seconds']:.3f} | "
            f"{row['unpack MB/s']:.0f} |"
        )
    lines.append("")
    for row in rows:
        phases = row["phases"]
        assert isinstance(phases, dict)
        listed = ", ".join(f"{phase} {value:.2f} s" for phase, value in phases.items())
        lines.append(f"- {row['model']}, c={row['capacity']}, {row['effort']}: {listed}")
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
