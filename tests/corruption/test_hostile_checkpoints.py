"""Checkpoints made to harm: memory, time, and bytes that are not theirs. Each is refused by one
line, within a limit of memory and time."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from momos_rs.checkpoint import read, to_state_dict, write
from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError, MomosError

STATE = {"w": torch.arange(64.0), "b": torch.ones(4, dtype=torch.bfloat16)}
MAGIC = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]


def legacy(body: bytes, keys: Any = (), storages: bytes = b"") -> bytes:
    head = b"".join(pickle.dumps(each, 2) for each in MAGIC)
    return head + body + pickle.dumps(list(keys), 2) + storages


def zipped(value: Any = STATE) -> bytearray:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return bytearray(buffer.getvalue())


def refused(
    folder: Path, data: bytes | bytearray, message: str = "", kind: type = CorruptionError
) -> None:
    path = folder / "in.pt"
    path.write_bytes(data)
    with pytest.raises(kind, match=message) as caught:
        to_state_dict(read(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


class TestLegacyFiles:
    """What ``torch.load`` would fill with memory of the process."""

    def body(self) -> tuple[bytes, bytes]:
        buffer = io.BytesIO()
        torch.save({"w": torch.arange(64.0)}, buffer, _use_new_zipfile_serialization=False)
        data = buffer.getvalue()
        start = data.rindex(b"\x80\x02]")
        return data[:start], data[start:]

    def test_a_storage_that_is_not_listed(self, tmp_path: Path) -> None:
        head, _ = self.body()
        refused(tmp_path, head + pickle.dumps([], 2), "does not list its storage")

    def test_a_storage_listed_twice(self, tmp_path: Path) -> None:
        head, tail = self.body()
        keys = pickle.loads(tail)
        storage = tail[tail.index(b".") + 1 :]
        refused(tmp_path, head + pickle.dumps(keys * 2, 2) + storage * 2, "twice")

    @pytest.mark.parametrize("numel", [0, 3, 63, 65, 2**62, -1])
    def test_a_storage_of_another_length(self, tmp_path: Path, numel: int) -> None:
        head, tail = self.body()
        storage = tail[tail.index(b".") + 1 :]
        forged = struct.pack("<q", numel) + storage[8:]
        refused(tmp_path, head + tail[: tail.index(b".") + 1] + forged, "elements instead of 64")


class TestRecords:
    def test_one_flipped_bit_in_the_weights(self, tmp_path: Path) -> None:
        data = zipped()
        start = data.index(STATE["w"].numpy().tobytes())
        for position in (start, start + 100, start + 255):
            damaged = bytearray(data)
            damaged[position] ^= 1
            refused(tmp_path, damaged, "checksum does not match")

    def test_files_whose_checksums_torch_left_out(self, tmp_path: Path) -> None:
        torch.serialization.set_crc32_options(False)
        try:
            data = zipped()
        finally:
            torch.serialization.set_crc32_options(True)
        (tmp_path / "in.pt").write_bytes(data)
        assert torch.equal(to_state_dict(read(tmp_path / "in.pt"))["w"], STATE["w"])

    def test_a_record_shorter_than_its_storage(self, tmp_path: Path) -> None:
        path = tmp_path / "in.pt"
        with zipfile.ZipFile(io.BytesIO(zipped())) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, content[:16] if name.endswith("data/0") else content)
        with pytest.raises(InsufficientDataError, match="has 16 bytes instead of 256"):
            read(path)

    def test_a_directory_that_points_elsewhere(self, tmp_path: Path) -> None:
        data = zipped()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickled = next(
                each for each in archive.infolist() if each.filename.endswith("data.pkl")
            )
            weights = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
        entry = data.rindex(weights.filename.encode())
        struct.pack_into("<I", data, entry - 4, pickled.header_offset)
        refused(tmp_path, data, "overlaps|not where it should|truncated")

    def test_records_that_overlap(self, tmp_path: Path) -> None:
        data = zipped()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            version = next(
                each for each in archive.infolist() if each.filename.endswith("/version")
            )
            weights = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
        entry = data.rindex(version.filename.encode())
        struct.pack_into("<I", data, entry - 4, weights.header_offset + 40)
        refused(tmp_path, data, "overlaps|truncated")

    @pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
    def test_ways_of_compressing_that_torch_has_not(self, tmp_path: Path, method: int) -> None:
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(zipped())) as old, zipfile.ZipFile(target, "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name), method)
        refused(tmp_path, target.getvalue(), "in a way torch never writes")

    def test_records_that_inflate(self, tmp_path: Path) -> None:
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(zipped())) as old, zipfile.ZipFile(target, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name.endswith("data/0"):
                    content = bytes(300 << 20)
                new.writestr(name, content, zipfile.ZIP_DEFLATED, 1)
        refused(tmp_path, target.getvalue(), "justify .* at most")


DOUBLED = b"(" + b")" + b"q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(60)) + b"0"
"""A tuple that holds itself twice at 60 levels: 2^60 values to look at, 62 to keep."""

DEEP = b")" + b"\x85" * 400_000
"""A tuple nested 400,000 deep, which hashing would follow."""


class TestPickles:
    """In a process with a limit of memory and an alarm: nothing may hang, crash or grow."""

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"}" + DEEP + b"K\x01s.", "nested too deeply"),
            (b"}(h\x00K\x01u.", "damaged"),
            (DOUBLED + b"}h\x00K\x01s.", "nested too deeply|damaged"),
            (DOUBLED + b"h\x00h\x00\x93.", "no text"),
            (b"\x80\x02" + b"\x8f" * 700_000 + b".", "too many containers"),
            (
                b"\x80\x02("
                + b"K\x00" * 9000
                + b"lq\x00"
                + b"c__builtin__\nlist\nh\x00\x85R0" * 600,
                "copies more|truncated",
            ),
            (b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "truncated|damaged"),
            (
                b"\x80\x02}("
                + b"".join(
                    b"\x8a\x10" + ((2**61 - 1) * n + 5).to_bytes(16, "little") + b"N"
                    for n in range(1, 20_000)
                )
                + b"u.",
                "large numbers",
            ),
        ],
        ids=["deep", "mark", "doubled-key", "doubled-global", "sets", "copies", "bytes", "hashes"],
    )
    def test_bombs(self, tmp_path: Path, body: bytes, message: str) -> None:
        (tmp_path / "in.pt").write_bytes(legacy(body))
        said = limited(tmp_path / "in.pt", megabytes=400)
        assert said.startswith("refused"), said
        import re

        assert re.search(message, said), said

    @pytest.mark.parametrize("at", ["shape", "key", "type"])
    def test_tuples_that_double_as_fields_of_a_tensor(self, tmp_path: Path, at: str) -> None:
        doubled = DOUBLED + b"h\x00"
        key = b"X\x01\x00\x00\x000"
        fields = {"shape": b"K\x04\x85", "key": key, "type": b"ctorch\nFloatStorage\n", at: doubled}
        storage = b"(X\x07\x00\x00\x00storage" + fields["type"] + fields["key"]
        storage += b"X\x03\x00\x00\x00cpuK\x04tQ"
        body = b"}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        body += storage + b"K\x00" + fields["shape"] + b"K\x01\x85\x89}tRs."
        data = zipped()
        with (
            zipfile.ZipFile(io.BytesIO(data)) as old,
            zipfile.ZipFile(tmp_path / "in.pt", "w") as z,
        ):
            for name in old.namelist():
                z.writestr(name, body if name.endswith("data.pkl") else old.read(name))
        assert limited(tmp_path / "in.pt", megabytes=400).startswith("refused")


def limited(path: Path, *, megabytes: int) -> str:
    """What reading says in a process that may grow by so much and take 60 s of work."""
    code = """
import resource, sys
import torch
import momos_rs.checkpoint.torch_file
from momos_rs.checkpoint import read, to_state_dict
from momos_rs.errors import MomosError
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = size + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
try:
    to_state_dict(read(sys.argv[1]))
except MomosError as error:
    print("refused", str(error)[:500])
else:
    print("read")
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(path), str(megabytes)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-500:])
    return result.stdout


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_change_while_they_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    torch.save(STATE, tmp_path / "in.pt")
    if suffix == ".safetensors":
        write(path, read(tmp_path / "in.pt"))
    model = read(path)
    content = path.read_bytes()
    path.write_bytes(content[:-64])
    with pytest.raises(InsufficientDataError, match="has become shorter"):
        to_state_dict(model)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(CorruptionError, match="has changed"):
        to_state_dict(model)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InvalidArgumentError, match="is a pipe or a device"):
            read(name)


def test_one_descriptor_for_any_number_of_tensors(tmp_path: Path) -> None:
    state = {str(index): torch.randn(3, 3) for index in range(300)}
    torch.save(state, tmp_path / "in.pt")
    write(tmp_path / "in.safetensors", read(tmp_path / "in.pt"))
    code = f"""
import resource
import torch, momos_rs
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for name in ("in.pt", "in.safetensors"):
    source = r"{tmp_path}/" + name
    momos_rs.pack_file(source, source + ".momos")
    momos_rs.unpack_file(source + ".momos", source + ".out.pt")
    from momos_rs.archive.verification import verify_file
    assert verify_file(source + ".momos", source).matches
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_errors_are_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"w": "%s.safetensors"}}' % ("x" * 300))
    with pytest.raises((MomosError, FileNotFoundError), match="is missing"):
        read(path)
