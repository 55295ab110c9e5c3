"""One MoMos projection against the chunked matmul-and-argmin formulation in torch.

    python benches/bench_projection.py [--output FILE.md] [--repeats N] [--threads N]

The other side is how the reference implementation assigns blocks: ||x||^2 + ||m||^2 - 2 x m^T by
``addmm`` over chunks of blocks within 4 GB, then ``argmin``; selection, statistics and writing back
included on both sides, the same motifs on both. Before any time is reported, the assignments are
compared: where they differ, the two motifs' distances in float64 must agree to float32 rounding.
On a machine with a CUDA device the same is measured there, at three sizes and two capacities.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from machine import processor
from momos_rs.projection import MoMos

S = 4
CHUNK_BYTES = 4 << 30


def mlp(weights: int) -> nn.Module:
    """An MLP on 784 inputs with four hidden layers and about so many weights."""
    width = int((-784 + (784**2 + 4 * 3 * weights) ** 0.5) / 6)
    torch.manual_seed(0)
    sizes = [784, width, width, width, width, 10]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(*layers)


def formulation(model: nn.Module, motifs: Tensor) -> Tensor:
    """A projection by chunked matmul and argmin; returns the assignment."""
    with torch.no_grad():
        parts, shapes = [], []
        for parameter in model.parameters():
            flat = parameter.detach().flatten()
            padded = nn.functional.pad(flat, (0, -len(flat) % S)).view(-1, S)
            parts.append(padded)
            shapes.append((parameter, len(flat), len(padded)))
        blocks = torch.cat(parts)
        rows = max(1, CHUNK_BYTES // (4 * len(motifs)))
        transposed = motifs.t().contiguous()
        norms = motifs.square().sum(dim=1)
        nearest = torch.empty(len(blocks), dtype=torch.long, device=blocks.device)
        for begin in range(0, len(blocks), rows):
            chunk = blocks[begin : begin + rows]
            base = chunk.square().sum(dim=1, keepdim=True) + norms
            nearest[begin : begin + rows] = torch.addmm(
                base, chunk, transposed, beta=1, alpha=-2
            ).argmin(dim=1)
        replaced = motifs[nearest]
        _ = (blocks - replaced).square().sum().item()
        _ = (blocks != replaced).sum().item()
        _ = torch.bincount(nearest, minlength=len(motifs)).cpu()
        begin = 0
        for parameter, numel, count in shapes:
            parameter.data.copy_(
                replaced[begin : begin + count].view(-1)[:numel].view_as(parameter)
            )
            begin += count
    return nearest


def timed(call: Callable[[], object], cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def check_equal(model: nn.Module, motifs: Tensor, ours: Tensor, theirs: Tensor) -> float:
    """The share of blocks with another motif; fails unless those are ties of float32 rounding."""
    flat = [
        nn.functional.pad(p.detach().flatten(), (0, -p.numel() % S)) for p in model.parameters()
    ]
    blocks = torch.cat(flat).view(-1, S)
    differ = (ours != theirs).nonzero()[:, 0]
    x = blocks[differ].double()
    near = (x - motifs[ours[differ]].double()).square().sum(dim=1)
    far = (x - motifs[theirs[differ]].double()).square().sum(dim=1)
    # The formulation cancels: its error is relative to the norms, not to the distance.
    scale = x.square().sum(dim=1) + motifs[theirs[differ]].double().square().sum(dim=1)
    assert bool((near <= far).all()), "the formulation found a nearer motif"
    assert bool((far - near <= 16 * 2.0**-24 * scale).all()), "more than rounding"
    return len(differ) / len(blocks)


def compare(weights: int, capacity: float, device: str, repeats: int) -> tuple[str, ...]:
    cuda = device == "cuda"
    model = mlp(weights).to(device)
    n = sum(each.numel() for each in model.parameters())
    copies = [copy.deepcopy(model) for _ in range(repeats + 1)]
    results = [MoMos(S, capacity=capacity)(copies[0])]  # warms up, and gives the motifs
    assert results[0].mosaic is not None
    motifs, ours = results[0].mosaic.motifs, results[0].mosaic.indices
    theirs: list[Tensor] = []
    their_seconds = timed(lambda: theirs.append(formulation(copy.deepcopy(model), motifs)), cuda)
    if cuda:  # the first call chose kernels and allocated
        their_seconds = timed(lambda: formulation(copy.deepcopy(model), motifs), cuda)
    our_seconds = [
        timed(lambda each=each: MoMos(S, capacity=capacity)(each), cuda)  # type: ignore[misc]
        for each in copies[1:]
    ]
    seconds = statistics.median(our_seconds)
    differing = check_equal(model, motifs, ours, theirs[0])
    return (
        device,
        f"{n / 1e6:.2f} M",
        f"{capacity:g}",
        f"{len(motifs):,}",
        f"{1e3 * seconds:.1f}",
        f"{1e3 * their_seconds:,.0f}",
        f"{their_seconds / seconds:,.0f}x",
        f"{differing:.2e}",
    )


def machine() -> str:
    name = processor()
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{name}, {os.cpu_count()} CPUs; torch {torch.__version__}, {threads} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = [(1_000_000, 0.05, "cpu")]
    if torch.cuda.is_available():
        cases += [
            (weights, capacity, "cuda")
            for weights in (1_000_000, 25_000_000, 100_000_000)
            for capacity in (0.01, 0.05)
        ]
    header = (
        "device", "weights", "c", "k", "momos (ms)", "matmul and argmin (ms)", "ratio",
        "differing ties",
    )  # fmt: skip
    rows = [header, tuple("---" for _ in header)]
    for case in cases:
        rows.append(compare(*case, repeats=options.repeats))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    text = (
        f"# One projection at s={S}\n\n{machine()}. Median of {options.repeats} projections "
        "(selection, search, statistics, writing back) against one of the formulation.\n\n"
        f"{table}\n"
    )
    print(text)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)


if __name__ == "__main__":
    main()
