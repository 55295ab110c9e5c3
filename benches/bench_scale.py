"""Cost against size: the search from 1M weights on, and packing a model larger than the memory.

The search: gaussian weights in blocks of 4, motifs that are blocks of them, capacities 0.01 and
0.05, beside the chunked matrix product of the reference implementation (float32, torch). All blocks
are searched in one call, as packing does where there is room, laying out the motifs included; the
median of as many runs as fit into two seconds. What would take the matrix product longer than the
limit is timed on as many blocks as it allows, spread over all, against all motifs, and scaled up;
the table says so. Answers are compared with float64 brute force on a sample. The exponent is that
of the line through the logarithms, by least squares.

Packing: a synthetic checkpoint (see make_checkpoint.py) is packed, verified and unpacked by
``momos`` in processes of their own under ``--memory``, and what comes out is compared.

    python benches/bench_scale.py search [--most 256M] [--seconds 30] [--clock cpu] [-o FILE.md]
    python benches/bench_scale.py pack [--weights 1B] [--memory 4G] [--folder DIR] [-o FILE.md]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from machine import processor
from make_checkpoint import make, number
from momos_rs import _core
from momos_rs.runtime.budget import parse_size

Rows = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]

SIZE = 4
CAPACITIES = (0.01, 0.05)
SMALLEST = 10**6
PIECE = 1 << 22
"""Blocks that are generated at once."""

ROUNDING = 1e-7
"""What float32 may cost the matrix product, in squared distance: norms are about 0.04."""

REPEATED_SECONDS = 2.0
MOST_RUNS = 15

LARGEST = 1.0
"""No weight is as large: the deviation is 0.02."""

CHECKED = 40
"""Blocks whose answers are compared with float64 brute force."""

DISTANCES_AT_ONCE = 1 << 25
"""Distances of a chunk of the matrix product: the reference's chunks of blocks, in memory."""

Search = Callable[[Rows], Indices]


class _Clock:
    now = time.perf_counter


@dataclass(frozen=True)
class Timing:
    """One row of the table.

    Attributes:
        what: What was timed.
        weights: Number of weights, n.
        capacity: Motifs per block, c.
        motifs: Number of motifs, k.
        seconds: For all weights.
        searched: Share of the blocks that was timed.
        kernel: What the cost model chose.
    """

    what: str
    weights: int
    capacity: float
    motifs: int
    seconds: float
    searched: float
    kernel: str = ""


def pieces_of(blocks: int) -> Iterator[tuple[int, int]]:
    """Number and length of each piece."""
    for piece in range(-(-blocks // PIECE)):
        yield piece, min(PIECE, blocks - piece * PIECE)


def generate(piece: int, count: int) -> Rows:
    random = np.random.default_rng((SIZE, piece))
    return random.standard_normal((count, SIZE), np.float32) * np.float32(0.02)


def draw_motifs(blocks: int, motifs: int) -> Rows:
    """Blocks drawn without replacement, from each piece as many as it has a share of."""
    chosen = []
    drawn = 0
    for piece, count in pieces_of(blocks):
        until = round(motifs * (piece * PIECE + count) / blocks)
        rows = np.random.default_rng((7, piece)).choice(count, until - drawn, replace=False)
        chosen.append(generate(piece, count)[np.sort(rows)])
        drawn = until
    return np.concatenate(chosen)


def parts_from_all_over(blocks: int, length: int) -> Iterator[Rows]:
    """All blocks, so many at a time, in an order of which any beginning is a fair sample."""
    pieces = list(pieces_of(blocks))
    for position in np.random.default_rng(3).permutation(len(pieces)).tolist():
        data = generate(*pieces[position])
        for start in range(0, len(data), length):
            yield data[start : start + length]


def check(blocks: Rows, motifs: Rows, answers: Indices, *, rounding: float = 0.0) -> None:
    """Compares answers with float64 brute force; the lowest index among equals, if exact."""
    wide = motifs.astype(np.float64)
    for block, answer in zip(blocks, answers, strict=True):
        distances = np.square(wide - block.astype(np.float64)).sum(axis=1)
        if rounding:
            assert distances[answer] <= distances.min() + rounding, "an answer is far too far"
        else:
            assert answer == int(distances.argmin()), "an answer is not the nearest motif"


def time_momos(weights: int, capacity: float, motifs: Rows, threads: int | None) -> Timing:
    blocks = weights // SIZE
    rows = np.concatenate([generate(*piece) for piece in pieces_of(blocks)])
    timings: list[float] = []
    while sum(timings) < REPEATED_SECONDS and len(timings) < MOST_RUNS:
        begin = _Clock.now()
        prepared = _core.MotifSearch(motifs, blocks=blocks, largest=LARGEST, threads=threads)
        found = prepared.nearest(rows, threads=threads)
        timings.append(_Clock.now() - begin)
    sample = slice(None, None, max(1, blocks // CHECKED))
    check(rows[sample], motifs, found[sample])
    kernel = f"{prepared.kernel}, {prepared.isa}"
    seconds = statistics.median(timings)
    return Timing("momos", weights, capacity, len(motifs), seconds, 1.0, kernel=kernel)


def time_matrix_product(
    weights: int, capacity: float, motifs: Rows, seconds: float, threads: int | None
) -> Timing:
    """The reference's formulation: ``|x|^2 - 2 x m + |m|^2`` in chunks, then the least."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    columns = torch.from_numpy(motifs).T.contiguous()
    norms = torch.from_numpy(motifs).square().sum(dim=1)
    chunk = max(1, DISTANCES_AT_ONCE // len(motifs))

    def search(rows: Rows) -> Indices:
        answers = []
        for part in torch.split(torch.from_numpy(rows), chunk):
            distances = part.square().sum(dim=1, keepdim=True) - 2 * part @ columns + norms
            answers.append(distances.argmin(dim=1))
        found: Indices = torch.cat(answers).numpy().astype(np.uint32)
        return found

    first = generate(0, chunk)
    check(first[:CHECKED], motifs, search(first)[:CHECKED], rounding=ROUNDING)
    blocks = weights // SIZE
    spent = 0.0
    searched = 0
    for part in parts_from_all_over(blocks, 8 * chunk):
        begin = _Clock.now()
        search(part)
        spent += _Clock.now() - begin
        searched += len(part)
        if spent > seconds:
            break
    return Timing(
        "matrix product",
        weights,
        capacity,
        len(motifs),
        spent * blocks / searched,
        searched / blocks,
    )


def exponent(timings: Sequence[Timing]) -> float:
    """The power of the number of weights that the seconds grow with."""
    if len(timings) < 2:
        return math.nan
    logarithms = np.log([[timing.weights, timing.seconds] for timing in timings])
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])


def search_table(timings: Sequence[Timing]) -> list[str]:
    lines = [
        "| weights | c | motifs | momos | ns per weight | kernel | matrix product | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    products = {
        (each.weights, each.capacity): each for each in timings if each.what == "matrix product"
    }
    for timing in timings:
        if timing.what != "momos":
            continue
        other = products.get((timing.weights, timing.capacity))
        lines.append(
            f"| {timing.weights / 1e6:g}M | {timing.capacity:g} | {timing.motifs:,} "
            f"| {_seconds(timing)} | {1e9 * timing.seconds / timing.weights:.3g} "
            f"| {timing.kernel} | {_seconds(other) if other else '-'} "
            f"| {f'{other.seconds / timing.seconds:.3g}x' if other else '-'} |"
        )
    return lines


def _seconds(timing: Timing) -> str:
    mark = "" if timing.searched == 1 else f" ({100 * timing.searched:.2g}% searched)"
    return f"{timing.seconds:.3g} s{mark}"


def series(timings: Sequence[Timing]) -> dict[str, list[Timing]]:
    found: dict[str, list[Timing]] = {}
    for timing in timings:
        found.setdefault(f"{timing.what}, c={timing.capacity:g}", []).append(timing)
    return found


def draw(timings: Sequence[Timing], path: Path) -> None:
    from momos_rs.plots.style import finish, new_sheet, save, style_of

    sheet = new_sheet([2.8])
    (axes,) = sheet.panels
    for position, (name, points) in enumerate(series(timings).items()):
        axes.plot(
            [point.weights for point in points],
            [point.seconds for point in points],
            label=f"{name}: n^{exponent(points):.2f}",
            markersize=4,
            linewidth=1.2,
            **style_of(position),
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(axes, title="Nearest motifs, s=4", xlabel="weights (n)", ylabel="seconds")
    with path.open("wb") as file:
        save(sheet.fit(), file, path.suffix[1:])


def bench_search(arguments: argparse.Namespace) -> list[str]:
    if arguments.clock == "cpu":
        _Clock.now = time.process_time
    timings: list[Timing] = []
    sizes = []
    weights = SMALLEST
    while weights <= arguments.most:
        sizes.append(weights)
        weights *= 4
    for capacity in CAPACITIES:
        for weights in sizes:
            blocks = weights // SIZE
            motifs = draw_motifs(blocks, max(1, int(capacity * blocks)))
            common = (weights, capacity, motifs)
            timings.append(time_momos(*common, arguments.threads))
            print(search_table(timings)[-1], file=sys.stderr)
            if weights <= arguments.most_product:
                timings.append(time_matrix_product(*common, arguments.seconds, arguments.threads))
    if arguments.picture:
        draw(timings, arguments.picture)
    threads = arguments.threads or os.cpu_count()
    lines = [
        f"Exact search of gaussian blocks, s=4, threads: {threads}, {processor()}, "
        f"{arguments.clock} clock; "
        f"{CHECKED} answers of each row compared with float64 brute force.",
        "",
        *search_table(timings),
        "",
        "| | exponent of n |",
        "|---|---|",
    ]
    lines += [f"| {name} | {exponent(points):.3f} |" for name, points in series(timings).items()]
    return lines


PROGRAM = """
import sys, time
start = time.perf_counter()
from momos_rs.cli.main import main
import momos_rs.packing
try:
    if len(sys.argv) > 1:
        main(sys.argv[1:])
finally:
    seconds = time.perf_counter() - start
    try:
        with open("/proc/self/status") as status:
            peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:  # not Linux: the peak of the parent may be in it
        from momos_rs.runtime.stopwatch import peak_memory
        peak = peak_memory() or 0
    print(f"peak {peak} {seconds}", file=sys.stderr)
"""


@dataclass(frozen=True)
class Ran:
    """A command that has run: its seconds, its peak memory in bytes and what it printed."""

    seconds: float
    peak: int
    output: str


def run(*command: object) -> Ran:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, command)], capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    _, peak, seconds = result.stderr.decode().split()[-3:]
    return Ran(float(seconds), int(peak), result.stdout.decode())


def report_of(ran: Ran) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ran.output)
    return document


def bench_pack(arguments: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        return _pack_in(Path(folder), arguments)


def _pack_in(folder: Path, arguments: argparse.Namespace) -> list[str]:
    begin = time.perf_counter()
    index = make(folder / "model", arguments.weights)
    print(f"made in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    archive, restored = folder / "model.momos", folder / "restored.safetensors"
    budget = ("--memory", arguments.memory)
    threads = () if arguments.threads is None else ("--threads", arguments.threads)
    fixed = replace(run(), output="")
    packed = run(
        "pack", index, "-o", archive, *budget, *threads, *arguments.options.split(), "--json"
    )
    report = report_of(packed)
    verified = run("verify", archive, "--against", index, *budget, "--json")
    assert report_of(verified)["matches"]
    unpacked = run("unpack", archive, "-o", restored, *budget, "--quiet")
    again = report_of(run("verify", archive, "--against", restored, *budget, "--json"))
    assert all(each["exact"] for each in again["comparison"]), "unpacking is not decoding"
    rows: list[tuple[str, float, int | None]] = [
        (f"pack: {phase}", seconds, None) for phase, seconds in report["seconds"].items()
    ]
    rows += [
        ("pack", packed.seconds, packed.peak),
        ("verify, against the model", verified.seconds, verified.peak),
        ("unpack", unpacked.seconds, unpacked.peak),
    ]
    lines = [
        f"{report['weights']:,} weights in bfloat16 ({report['tensor_bytes'] / 1e9:.3g} GB) within "
        f"--memory {arguments.memory}, on {processor()}: `momos pack "
        f"{arguments.options}` to {report['bits_per_weight']:.3f} bits per weight, relative error "
        f"{report['relative_error']:.4f}. Libraries alone take {fixed.peak / 1e6:.0f} MB. Every "
        "tensor was verified against the model, and the unpacked file against the archive.",
        "",
        "| phase | seconds | MB/s | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for name, seconds, peak in rows:
        rate = f"{report['tensor_bytes'] / 1e6 / seconds:.0f}" if seconds > 0.1 else "-"
        shown = "" if peak is None else f"{peak / 1e6:.0f}"
        lines.append(f"| {name} | {seconds:.1f} | {rate} | {shown} |")
    allowed = parse_size(arguments.memory) + fixed.peak
    for name, _, peak in rows:
        assert peak is None or peak <= allowed, f"{name} took {peak:,} bytes"
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    search = commands.add_parser("search", help="cost of the search against size")
    search.add_argument("--most", type=number, default=256 * 10**6, help="most weights")
    search.add_argument("--most-product", type=number, default=64 * 10**6)
    search.add_argument("--seconds", type=float, default=30, help="limit of a matrix product")
    search.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor time, for a machine that is busy with other things",
    )
    search.add_argument("--picture", type=Path, help="file of the picture")
    search.set_defaults(bench=bench_search)
    pack = commands.add_parser("pack", help="a checkpoint within bounded memory")
    pack.add_argument("--weights", type=number, default=10**9)
    pack.add_argument("--memory", default="4G")
    pack.add_argument("--options", default="-s 4 -c 0.01", help="options of momos pack")
    pack.add_argument("--folder", type=Path, help="where there is room for all files")
    pack.set_defaults(bench=bench_pack)
    for each in (search, pack):
        each.add_argument("--threads", type=int)
        each.add_argument("-o", "--output", type=Path, help="file of the table")
    arguments = parser.parse_args()
    text = "\n".join(arguments.bench(arguments)) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
