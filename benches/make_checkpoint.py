"""Writes a synthetic checkpoint in shards, as large as is wanted, in bounded memory.

Its tensors are those of a transformer in bfloat16: an embedding, and layers of attention, a gated
feed-forward part and norms. Weights are heavy-tailed (Student's t with 5 degrees of freedom), the
deviations of tensors span more than an order of magnitude, and rows differ too.

    python benches/make_checkpoint.py FOLDER [--weights 1B] [--shard-size 2G] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momos_rs import checkpoint
from momos_rs.checkpoint import Base, Checkpoint, Entry
from momos_rs.runtime.budget import parse_size

Bytes = npt.NDArray[np.uint8]

CHUNK = 1 << 20
"""Weights that come from one generator."""

FREEDOM = 5.0
ITEMSIZE = 2


@dataclass(frozen=True)
class RandomTensor:
    """Weights that are made when they are read, the same whatever parts they are read in."""

    shape: tuple[int, ...]
    seed: tuple[int, int]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def part(self, start: int, stop: int) -> Bytes:
        first = start // CHUNK
        chunks = [self._chunk(number) for number in range(first, -(-stop // CHUNK))]
        weights = np.concatenate([np.empty(0, np.uint16), *chunks])
        return weights[start - first * CHUNK : stop - first * CHUNK].view(np.uint8)

    def base(self) -> Base:
        return Base(
            "BF16",
            self.numel,
            lambda: self.part(0, self.numel),
            read_part=self.part,
            chunk=CHUNK,
        )

    def _chunk(self, number: int) -> npt.NDArray[np.uint16]:
        start = number * CHUNK
        count = min(CHUNK, self.numel - start)
        if len(self.shape) == 1:  # a norm
            weights = 1 + 0.1 * np.random.default_rng((*self.seed, number)).standard_normal(count)
            return _bfloat16(weights.astype(np.float32))
        random = np.random.default_rng((*self.seed, number))
        normal = random.standard_normal(count, np.float32)
        chi = random.standard_gamma(FREEDOM / 2, count, np.float32)
        weights = normal / np.sqrt(chi * np.float32(2 / FREEDOM))
        own = np.random.default_rng(self.seed)
        deviation = math.exp(own.uniform(math.log(0.004), math.log(0.08)))
        rows = np.exp(0.3 * own.standard_normal(self.shape[0], np.float32))
        row = np.arange(start, start + count) // self.shape[1]
        return _bfloat16(weights * rows[row] * np.float32(deviation))


def _bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return rounded


def transformer(weights: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of a transformer of about so many weights."""
    layers = max(2, min(80, round(4 * (weights / 1e8) ** 0.6)))
    # 4 d^2 of attention and 8 d^2 of the feed-forward part in each layer, and an embedding.
    width = max(32, round(math.sqrt(0.94 * weights / (12 * layers)) / 32) * 32)
    hidden = max(32, round(8 * width / 3 / 32) * 32)
    per_layer = 4 * width * width + 3 * hidden * width + 2 * width
    rows = max(32, (weights - layers * per_layer) // width)
    yield "embed_tokens.weight", (rows, width)
    for layer in range(layers):
        prefix = f"layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}.self_attn.{name}.weight", (width, width)
        yield f"{prefix}.mlp.gate_proj.weight", (hidden, width)
        yield f"{prefix}.mlp.up_proj.weight", (hidden, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, hidden)
        yield f"{prefix}.input_layernorm.weight", (width,)
        yield f"{prefix}.post_attention_layernorm.weight", (width,)
    yield "norm.weight", (width,)


def make(folder: Path, weights: int, *, shard_bytes: int = 2 * 10**9, seed: int = 0) -> Path:
    """Writes the checkpoint.

    Args:
        folder: Where to; created if it is missing.
        weights: Number of weights, met within a share that the embedding leaves.
        shard_bytes: Most bytes of a shard, of more than one tensor.
        seed: Seed of the weights.

    Returns:
        The index of the shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[tuple[str, RandomTensor]]] = [[]]
    size = 0
    for index, (name, shape) in enumerate(transformer(weights)):
        tensor = RandomTensor(shape, (seed, index))
        if shards[-1] and size + ITEMSIZE * tensor.numel > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, tensor))
        size += ITEMSIZE * tensor.numel
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        entries = tuple(
            Entry(name, tensor.shape, index) for index, (name, tensor) in enumerate(shard)
        )
        bases = tuple(tensor.base() for _, tensor in shard)
        written = Checkpoint(entries, bases)
        checkpoint.write(folder / file, written, overwrite=True, piece_bytes=1 << 24)
        weight_map |= {name: file for name, _ in shard}
        total += written.nbytes
    index_file = folder / "model.safetensors.index.json"
    document = {"metadata": {"total_size": total}, "weight_map": weight_map}
    index_file.write_text(json.dumps(document, indent=2))
    return index_file


def number(text: str) -> int:
    """A number of weights: ``1B``, ``250M``, ``1e6``."""
    try:
        return int(float(text))
    except ValueError:
        return parse_size(text.upper().removesuffix("B") + ("G" if text[-1] in "bB" else ""))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=number, default=10**9)
    parser.add_argument("--shard-size", type=parse_size, default=2 * 10**9)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    index = make(
        arguments.folder,
        arguments.weights,
        shard_bytes=arguments.shard_size,
        seed=arguments.seed,
    )
    model = checkpoint.read(index)
    print(f"{index}: {len(model.entries)} tensors, {model.numel:,} weights, {model.nbytes:,} bytes")


if __name__ == "__main__":
    main()
