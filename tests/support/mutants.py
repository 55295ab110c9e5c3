"""Archives and checkpoints changed at random, but by their structure: digests, checksums and
lengths are made right again, so that a change is believed until what it means is looked at.

As a program it tries mutants for as long as it is told, each within a limit of memory and time::

    python tests/support/mutants.py archives --seconds 600 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import os
import pickle
import pickletools
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import zstandard

from momos_rs import packing
from momos_rs.archive import open_archive
from momos_rs.archive.document import SECTIONS
from momos_rs.archive.writer import DIGEST_KEY, NO_DIGEST, VERSION_KEY, section_digest
from momos_rs.checkpoint import read, to_state_dict
from momos_rs.checkpoint.safetensors_layout import encode_header, parse_header
from momos_rs.errors import MomosError

SECONDS_PER_MUTANT = 20
BYTES_PER_MUTANT = 2 << 30
MAX_DECODED = 64 << 20
"""Bytes of tensors that archives may announce here, so that no time goes into large ones."""

NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 255, 256, 4095, 4096, 4097, 65535, 65536, -1, -2),
    *(2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "F32", "F64", "BF16", "F16", "U8", "exact", "mosaic", "grid", "path"),
    *(
        "prefix",
        [],
        {},
        [[]],
        [0],
        0.5,
        -0.0,
        1e308,
        "x" * 300,
        "\ud800",
        "\x1b[31m",
        "__metadata__",
    ),
)

Mutate = Callable[[random.Random], bytes]


# ---- archives


@functools.cache
def archives() -> tuple[bytes, ...]:
    """Small archives of every kind of section and codec."""
    torch.manual_seed(3)
    weight = torch.randn(24, 16)
    state = {
        "a.weight": weight,
        "tied": weight,
        "rows": weight[2:5],
        "a.bias": torch.randn(16),
        "half": torch.randn(12, 8).half(),
        "b16": torch.randn(12, 8).bfloat16(),
        "double": torch.randn(6, 8).double(),
        "steps": torch.arange(9),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
    }
    ways: tuple[dict[str, Any], ...] = (
        {"capacity": 0.3},
        {"capacity": 0.3, "effort": "fast"},
        {"capacity": 0.3, "effort": "best", "block_size": 3},
        {"method": "grid"},
        {"method": "trellis"},
        {"lossless": True},
        {"motifs": 1},
    )
    return tuple(packing.pack(state, **way) for way in ways)


def archive_mutant(rng: random.Random) -> bytes:
    """An archive with a document, a stream or a section changed."""
    data = rng.choice(archives())
    header = parse_header(data, source="mutant")
    parts = {
        name: bytearray(data[header.data_start + info.start : header.data_start + info.stop])
        for name, info in header.tensors.items()
    }
    document = json.loads(zstandard.ZstdDecompressor().decompress(bytes(parts["document"])))
    version = "1.1"
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        kind = rng.random()
        if kind < 0.45:
            _mutate_stream(rng, document, parts)
        elif kind < 0.95:
            _mutate_json(rng, document)
        elif kind < 0.97:
            version = rng.choice(("1.0", "1.9", "2.0", "", "1", "x.y"))
        else:
            name = rng.choice(list(parts))
            parts[name] = _mutate_bytes(rng, parts[name])
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    packed = zstandard.ZstdCompressor(level=1).compress(text)
    if rng.random() < 0.01:
        packed = bytes(_mutate_bytes(rng, bytearray(packed)))
    return _assembled(packed, parts, version)


def _assembled(document: bytes, parts: dict[str, bytearray], version: str) -> bytes:
    rest = {name: bytes(part) for name, part in parts.items() if name != "document" and part}
    listed = [
        (name, "U8", (len(part),), len(part))
        for name, part in {"document": document, **rest}.items()
    ]

    def encode(digest: str) -> bytes:
        metadata = {DIGEST_KEY: digest, VERSION_KEY: version}
        return encode_header(listed, metadata, by_itemsize=False).data + document

    head = encode(section_digest(np.frombuffer(encode(NO_DIGEST), np.uint8)))
    return head + b"".join(rest.values())


def _mutate_stream(
    rng: random.Random, document: dict[str, Any], parts: dict[str, bytearray]
) -> None:
    """Changes the bytes of a stream, and its length and digest with them."""
    streams = document.get("streams")
    mosaic = document.get("mosaic")
    if isinstance(mosaic, dict) and "motifs" in parts and rng.random() < 0.3:
        parts["motifs"] = _mutate_bytes(rng, parts["motifs"])
        mosaic["digest"] = section_digest(np.frombuffer(bytes(parts["motifs"]), np.uint8))
        return
    if not isinstance(streams, list) or not streams:
        return
    at = rng.randrange(len(streams))
    chosen = streams[at]
    try:
        section = SECTIONS[chosen["kind"]]
        start = sum(each["bytes"] for each in streams[:at] if each["kind"] == chosen["kind"])
        stop = start + chosen["bytes"]
        content = _mutate_bytes(rng, parts[section][start:stop])
        parts[section][start:stop] = content
        chosen["bytes"] = len(content)
        chosen["digest"] = section_digest(np.frombuffer(bytes(content), np.uint8))
    except (KeyError, TypeError, ValueError):
        return  # an earlier change has left nothing to change here


def _mutate_bytes(rng: random.Random, data: bytearray) -> bytearray:
    """A few bytes changed, taken out, put in, or the end cut off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            return bytearray(rng.randbytes(rng.randrange(1, 9)))
        # The first bytes say what the others are.
        at = rng.randrange(min(len(data), 16)) if rng.random() < 0.4 else rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.35:
            data[at] = rng.randrange(256)
        elif kind < 0.6:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            del data[at : at + rng.randrange(1, 9)]
        elif kind < 0.8:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind < 0.9:
            width = rng.choice((2, 4, 8))
            data[at : at + width] = (rng.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(
                width, "little"
            )
        else:
            del data[at:]
    return data


def _mutate_json(rng: random.Random, document: Any) -> None:
    """Changes a value anywhere in a JSON document."""
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        each = waiting.pop()
        keys: Iterator[Any] = iter(each) if isinstance(each, dict) else iter(range(len(each)))
        for key in keys:
            places.append((each, key))
            if isinstance(each[key], (dict, list)):
                waiting.append(each[key])
    if not places:
        return
    container, key = rng.choice(places)
    value = container[key]
    kind = rng.random()
    if kind < 0.1:
        del container[key]
    elif kind < 0.2 and isinstance(container, list):
        container.insert(key, value)
    elif kind < 0.3 and isinstance(container, dict):
        container[rng.choice(("of", "strides", "offset", "error", "modules", "bytes"))] = value
    elif isinstance(value, int) and kind < 0.8:
        container[key] = value + rng.choice((-1, 1, 2, 8)) if kind < 0.5 else rng.choice(NUMBERS)
    else:
        other, other_key = rng.choice(places)
        container[key] = rng.choice(
            (rng.choice(VALUES), rng.choice(NUMBERS), json.loads(json.dumps(other[other_key])))
        )


# ---- checkpoints


@functools.cache
def checkpoints() -> tuple[bytes, ...]:
    """Files of every format that is read."""
    torch.manual_seed(3)
    weight = torch.randn(6, 4)
    state = {"w": weight, "tied": weight.t(), "b": torch.ones(4).bfloat16(), "n": np.arange(4.0)}
    wrapped = {
        "state_dict": collections.OrderedDict(state),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "args": argparse.Namespace(lr=0.1),
        "epoch": 4,
    }
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    found = []
    for value in (state, wrapped, model.state_dict()):
        for zipped in (True, False):
            for protocol in (2, 4):
                buffer = io.BytesIO()
                torch.save(
                    value,
                    buffer,
                    pickle_protocol=protocol,
                    _use_new_zipfile_serialization=zipped,
                )
                found.append(buffer.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = io.BytesIO()
        torch.jit.save(torch.jit.script(model), script)
    found.append(script.getvalue())
    header = encode_header([("w", "F32", [6, 4], 96), ("b", "BF16", [4], 8)], {"format": "pt"})
    found.append(header.data + bytes(104))
    return tuple(found)


def checkpoint_mutant(rng: random.Random) -> bytes:
    """A checkpoint with its pickle, its directory or its header changed."""
    data = rng.choice(checkpoints())
    if data.startswith(b"PK"):
        return _zip_mutant(rng, data)
    if data[8:9] == b"{":
        return _safetensors_mutant(rng, data)
    return _legacy_mutant(rng, data)


def _zip_mutant(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        return bytes(_mutate_bytes(rng, bytearray(data)))
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        names = old.namelist()
        drop, double = (rng.choice(names) if rng.random() < 0.03 else None for _ in range(2))
        for name in names:
            content = old.read(name)
            if name.endswith(".pkl") and rng.random() < 0.9:
                content = _pickle_mutant(rng, content)
            elif rng.random() < 0.05:
                content = bytes(_mutate_bytes(rng, bytearray(content)))
            method = zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range((name != drop) + (name == double)):
                    new.writestr(name, content, method)
    result = target.getvalue()
    if rng.random() < 0.1:
        start = result.rindex(b"PK\1\2") if b"PK\1\2" in result else 0
        return result[:start] + bytes(_mutate_bytes(rng, bytearray(result[start:])))
    return result


def _safetensors_mutant(rng: random.Random, data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    document = json.loads(data[8 : 8 + length])
    for _ in range(rng.choice((1, 1, 2, 3))):
        _mutate_json(rng, document)
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        text = bytes(_mutate_bytes(rng, bytearray(text)))
    announced = rng.choice(NUMBERS) % 2**64 if rng.random() < 0.03 else len(text)
    return announced.to_bytes(8, "little") + text + data[8 + length :]


def _legacy_mutant(rng: random.Random, data: bytes) -> bytes:
    """One of the five pickles, or what follows them, changed."""
    file = io.BytesIO(data)
    parts = []
    for _ in range(5):
        start = file.tell()
        for opcode, _, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                break
        parts.append(data[start : file.tell()])
    parts.append(data[file.tell() :])
    at = rng.choice((3, 3, 3, 3, 4, 4, 5, 2))
    if at == 5:
        parts[5] = bytes(_mutate_bytes(rng, bytearray(parts[5])))
    else:
        parts[at] = _pickle_mutant(rng, parts[at])
    return b"".join(parts)


OPCODES = [code for code in pickletools.opcodes if code.name not in ("STOP", "PROTO")]


def _pickle_mutant(rng: random.Random, data: bytes) -> bytes:
    """A pickle with opcodes changed, doubled, swapped, put in or taken out."""
    try:
        ops = list(pickletools.genops(data))
    except Exception:  # noqa: BLE001 - the file is no pickle but of the same name
        return bytes(_mutate_bytes(rng, bytearray(data)))
    ends = [*(position for _, _, position in ops[1:]), len(data)]
    pieces = [data[position:end] for (_, _, position), end in zip(ops, ends, strict=True)]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(max(len(pieces) - 1, 1))
        kind = rng.random()
        if kind < 0.15:
            del pieces[at]
        elif kind < 0.3:
            pieces.insert(at, pieces[rng.randrange(len(pieces) - 1)])
        elif kind < 0.4:
            other = rng.randrange(len(pieces) - 1)
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind < 0.6:
            pieces[at] = pickle.dumps(rng.choice(NUMBERS), 2)[2:-1]
        elif kind < 0.7:
            code = rng.choice(OPCODES).code.encode("latin-1")
            pieces.insert(at, code + rng.randbytes(rng.choice((0, 0, 1, 4))))
        elif kind < 0.8:
            name = rng.choice(GLOBALS)
            pieces[at] = b"c" + name.replace(".", "\n", 0).encode() + b"\n"
        elif kind < 0.9:
            pieces[at] = bytes(_mutate_bytes(rng, bytearray(pieces[at])))
        else:
            depth = rng.choice((2, 30, 3000))
            pieces.insert(at, b")" + b"2\x86" * depth if depth < 100 else b")" + b"\x85" * depth)
        if len(pieces) < 2:
            break
    return b"".join(pieces)


GLOBALS = (
    "torch._utils\n_rebuild_tensor_v2",
    "torch._utils\n_rebuild_tensor_v3",
    "torch._utils\n_rebuild_parameter",
    "torch._utils\n_rebuild_sparse_tensor",
    "torch._utils\n_rebuild_qtensor",
    "torch._tensor\n_rebuild_from_type_v2",
    "torch._utils\n_rebuild_device_tensor_from_numpy",
    "numpy.core.multiarray\n_reconstruct",
    "numpy.core.numeric\n_frombuffer",
    "numpy\ndtype",
    "_codecs\nencode",
    "collections\nOrderedDict",
    "builtins\nset",
    "builtins\nlist",
    "builtins\ncomplex",
    "torch\nFloatStorage",
    "torch\nDoubleStorage",
    "torch\nSize",
    "os\nsystem",
)


# ---- trying them


@dataclass
class Findings:
    """What became of mutants.

    Attributes:
        rejected: Refused by an error of the package.
        decoded: Read to the end.
        faults: Seed of each that ended otherwise, and how.
        slowest: Longest time of one, in seconds.
        memory: Most memory that one took beyond what it decodes to, over the size of its file.
        seconds: Time in all.
    """

    rejected: int = 0
    decoded: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    memory: float = 0.0
    seconds: float = 0.0


def decode_archive(data: bytes) -> dict[str, bytes]:
    """Every tensor of an archive."""
    with open_archive(data, max_bytes=MAX_DECODED) as archive:
        archive.threads = 1
        for index in range(len(archive.document.bases)):
            archive.codec(index)
        return {
            entry.name: archive.read_base(entry.base).tobytes()
            for entry in archive.document.entries
        }


def decode_checkpoint(data: bytes, path: Path) -> None:
    """Every tensor of a checkpoint."""
    path.write_bytes(data)
    to_state_dict(read(path))


class _TooLongError(Exception):
    pass


def _ring(_number: int, _frame: object) -> NoReturn:
    raise _TooLongError


def try_one(kind: str, seed: int, path: Path, findings: Findings) -> bytes:
    """Tries the mutant of a seed; returns it."""
    rng = random.Random(seed)
    data = archive_mutant(rng) if kind == "archives" else checkpoint_mutant(rng)
    before = _peak_memory(reset=True)
    begin = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_MUTANT)
    try:
        if kind == "archives":
            decode_archive(data)
        else:
            decode_checkpoint(data, path)
    except MomosError as error:
        findings.rejected += 1
        if "\n" in str(error) or len(str(error)) > 2000:
            findings.faults.append((seed, f"a message of several lines: {error}"))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        findings.faults.append((seed, f"{type(error).__name__}: {error}"[:300]))
    else:
        findings.decoded += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    findings.slowest = max(findings.slowest, time.perf_counter() - begin)
    taken = _peak_memory() - before
    findings.memory = max(findings.memory, taken / max(len(data), 1))
    return data


def _peak_memory(*, reset: bool = False) -> int:
    """Most bytes resident since the last reset; 0 where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main() -> int:
    """Tries mutants and prints what became of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kind", choices=("archives", "checkpoints"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + BYTES_PER_MUTANT
    (archives if chosen.kind == "archives" else checkpoints)()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _ring)
    findings = Findings()
    begin = time.perf_counter()
    seed = chosen.seed << 40
    with tempfile.TemporaryDirectory() as folder:
        # A process that dies leaves the seed of what killed it.
        log = os.open(Path(folder) / "seed", os.O_CREAT | os.O_WRONLY)
        path = Path(folder) / "in.pt"
        while time.perf_counter() - begin < chosen.seconds and (
            chosen.count is None or seed - (chosen.seed << 40) < chosen.count
        ):
            os.pwrite(log, b"%d\n" % seed, 0)
            try_one(chosen.kind, seed, path, findings)
            seed += 1
    findings.seconds = time.perf_counter() - begin
    total = findings.rejected + findings.decoded + len(findings.faults)
    print(
        f"{chosen.kind}: {total:,} mutants in "
        f"{findings.seconds:.0f} s: {findings.rejected:,} rejected, {findings.decoded:,} decoded, "
        f"{len(findings.faults)} faults; slowest {findings.slowest:.2f} s, most memory "
        f"{findings.memory:.0f} times the file"
    )
    for found, what in findings.faults[:20]:
        print(f"  seed {found}: {what}")
    return bool(findings.faults)


if __name__ == "__main__":
    sys.exit(main())
