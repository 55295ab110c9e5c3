"""Files that are damaged, hostile or something else: one clear error each, and no code is run."""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs.checkpoint import read, to_state_dict
from momos_rs.checkpoint.pickle_tree import Global, PickledObject, read_pickle
from momos_rs.errors import (
    CorruptionError,
    InsufficientDataError,
    InvalidArgumentError,
    MomosError,
    UnsafeFileError,
    UnsupportedVersionError,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:TypedStorage"
)

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]

STATE = {"w": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)
        return result


def as_torch_file(value: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def as_torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Tiny()), buffer)
    return buffer.getvalue()


SAMPLES: dict[str, Callable[[], bytes]] = {
    "torch": lambda: as_torch_file(STATE),
    "torch-with-company": lambda: as_torch_file({"model": STATE, "args": argparse.Namespace(a=1)}),
    "legacy": lambda: as_torch_file(STATE, zipped=False),
    "torchscript": as_torchscript,
}


class TestDamage:
    """Every outcome is a result or one line by a MomosError; anything else fails the test."""

    @pytest.mark.parametrize("sample", SAMPLES)
    def test_truncation(self, tmp_path: Path, sample: str) -> None:
        data = SAMPLES[sample]()
        path = tmp_path / "in.pt"
        for length in range(0, len(data), 1 if sample == "legacy" else 7):
            path.write_bytes(data[:length])
            with pytest.raises(MomosError, match=r"in\.pt") as caught:
                read(path)
            assert "\n" not in str(caught.value)
            if length > 600 or (sample != "legacy" and length > 3):
                assert isinstance(caught.value, InsufficientDataError)

    @pytest.mark.parametrize("sample", SAMPLES)
    def test_flips(self, tmp_path: Path, sample: str) -> None:
        data = SAMPLES[sample]()
        path = tmp_path / "in.pt"
        intact = damaged = 0
        for position in range(0, len(data), 1 if sample == "legacy" else 7):
            broken = bytearray(data)
            broken[position] ^= 0xFF if position % 2 else 1 << position % 8
            path.write_bytes(broken)
            try:
                to_state_dict(read(path))
            except MomosError as error:
                damaged += 1
                assert_one_line(error)
            else:
                intact += 1
        assert damaged > 20
        assert intact > 20

    @settings(max_examples=200, deadline=None)
    @given(
        st.binary(max_size=64),
        st.sampled_from([b"", b"PK\3\4", b"\x80\x02", b"{", b"\x08" + bytes(7) + b"{"]),
    )
    def test_random_bytes(
        self, tmp_path_factory: pytest.TempPathFactory, tail: bytes, head: bytes
    ) -> None:
        path = tmp_path_factory.mktemp("random") / "in.pt"
        path.write_bytes(head + tail)
        with pytest.raises(MomosError, match=r"in\.pt"):
            read(path)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=64))
    def test_random_pickles(self, data: bytes) -> None:
        try:
            read_pickle(data + b".", source="it")
        except CorruptionError as error:
            assert_one_line(error)


def assert_one_line(error: MomosError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 700


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
            (b"<!DOCTYPE html><html></html>", "web page"),
            (b"\n<html>", "web page"),
            (b"Not found", "text file"),
            ("größer".encode(), "text file"),
            (b"GGUF" + bytes(50), "GGUF"),
            (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
            (b"\x93NUMPY\1\0" + bytes(50), "NumPy"),
            (b"\x1f\x8b\x08" + bytes(50), "gzip"),
            (pickle.dumps({"w": [1.0]}), "plain pickle"),
            (bytes(range(256)), "recognised"),
            (bytes(100), "recognised"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".pt", ".bin"])
    def test_are_recognised(self, tmp_path: Path, data: bytes, message: str, suffix: str) -> None:
        path = tmp_path / f"in{suffix}"
        path.write_bytes(data)
        with pytest.raises(MomosError, match=message):
            read(path)

    @pytest.mark.parametrize(
        "data", [b"", b"x", bytes(8), b"\x08" + bytes(7) + b"{", b"\xff" * 20, b"text, no weights"]
    )
    def test_broken_safetensors(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "in.safetensors").write_bytes(data)
        with pytest.raises(MomosError, match=r"in\.safetensors"):
            read(tmp_path / "in.safetensors")

    def test_the_content_decides_not_the_suffix(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        import safetensors.torch

        safetensors.torch.save_file(STATE, tmp_path / "in.pt")
        torch.save(STATE, tmp_path / "in.safetensors")
        assert read(tmp_path / "in.pt").format == "safetensors"
        assert read(tmp_path / "in.safetensors").format == "torch"
        assert_identical(to_state_dict(read(tmp_path / "in.safetensors")), STATE)

    def test_six_bit_floats(self, tmp_path: Path) -> None:
        from momos_rs.checkpoint.safetensors_layout import encode_header

        header = encode_header([("w", "F6_E2M3", [4], 3)])
        (tmp_path / "in.safetensors").write_bytes(header.data + bytes(3))
        with pytest.raises(InvalidArgumentError, match=r"'w' .*F6_E2M3"):
            read(tmp_path / "in.safetensors")

    def test_zip_archives_of_something_else(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "in.npz", w=np.ones(3))
        with pytest.raises(InvalidArgumentError, match=r"no data\.pkl"):
            read(tmp_path / "in.npz")


class TestZip:
    def test_an_archive_packed_anew_with_compression(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        for company in ({}, {"args": argparse.Namespace()}):
            path = repacked(
                tmp_path, as_torch_file({"model": STATE, **company}), zipfile.ZIP_DEFLATED
            )
            assert_identical(to_state_dict(read(path)), STATE)

    def test_an_archive_packed_anew_without_alignment(
        self, tmp_path: Path, assert_identical: Compare
    ) -> None:
        state = {"a": torch.ones(1, dtype=torch.int8), "b": torch.randn(5, dtype=torch.float64)}
        for company in ({}, {"args": argparse.Namespace()}):
            path = repacked(
                tmp_path, as_torch_file({"model": state, **company}), zipfile.ZIP_STORED
            )
            assert_identical(to_state_dict(read(path)), state)

    def test_a_record_that_is_missing(self, tmp_path: Path) -> None:
        path = repacked(tmp_path, as_torch_file(STATE), zipfile.ZIP_STORED, drop="data/1")
        with pytest.raises(CorruptionError, match="lacks its record 'data/1'"):
            read(path)

    def test_the_other_byte_order(self, tmp_path: Path) -> None:
        data = as_torch_file({"model": STATE, "args": argparse.Namespace()})
        path = tmp_path / "in.pt"
        path.write_bytes(data.replace(b"little", b"big\0\0\0"))
        with pytest.raises(CorruptionError, match="checksum does not match"):
            read(path)
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
        with pytest.raises(UnsupportedVersionError, match="big-endian"):
            read(path)


def repacked(folder: Path, data: bytes, method: int, drop: str = "nothing") -> Path:
    path = folder / "in.pt"
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            if not name.endswith(drop):
                new.writestr(name, old.read(name))
    return path


class Call:
    """Pickles as a call, as an attacker's file would."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attack(folder: Path) -> tuple[Call, Path]:
    proof = folder / "code-was-run"
    return Call(open, str(proof), "w"), proof


class TestNoCodeIsRun:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda call: call,
            lambda call: {"state_dict": STATE, "x": call},
            lambda call: {"state_dict": {**STATE, "x": call}},
            lambda call: {"model": call},
            lambda call: [call, STATE],
        ],
    )
    def test_of_pickles(
        self, tmp_path: Path, zipped: bool, wrap: Callable[[Any], Any], assert_identical: Compare
    ) -> None:
        call, proof = attack(tmp_path)
        (tmp_path / "in.pt").write_bytes(as_torch_file(wrap(call), zipped=zipped))
        try:
            found = to_state_dict(read(tmp_path / "in.pt"))
        except MomosError as error:
            assert_one_line(error)
        else:
            assert_identical(found, STATE)
        assert not proof.exists()

    def test_of_attributes(self, tmp_path: Path) -> None:
        """Building on a global must not reach the real thing."""
        body = b"\x80\x02ctorch\nTensor\n}X\x04\0\0\0evilK\1sb."
        value = read_pickle(body, source="it")
        assert value == Global("torch", "Tensor")
        assert not hasattr(torch.Tensor, "evil")

    def test_the_attack_itself_works(self, tmp_path: Path) -> None:
        call, proof = attack(tmp_path)
        pickle.loads(pickle.dumps(call)).close()
        assert proof.exists()

    @pytest.mark.parametrize("protocol", range(6))
    def test_calls_are_recorded(self, protocol: int) -> None:
        value = read_pickle(pickle.dumps({"x": Call(open, "a", "b")}, protocol), source="it")
        assert isinstance(value["x"], PickledObject)
        assert value["x"].kind.name == "open"
        assert value["x"].arguments == ("a", "b")

    @pytest.mark.parametrize("shape", [(10**9,), (2**62, 2**62), (4,)])
    def test_tensors_beyond_their_storage(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        """The fields of a tensor are not to be trusted: reading past the storage is refused."""

        class Evil:
            def __reduce__(self) -> Any:
                storage = torch.zeros(3).storage()
                strides = (1,) * len(shape)
                return torch._utils._rebuild_tensor_v2, (storage, 0, shape, strides, False, {})

        for company in ({}, {"args": argparse.Namespace()}):
            (tmp_path / "in.pt").write_bytes(as_torch_file({"w": Evil(), **company}))
            with pytest.raises(CorruptionError, match="outside its storage"):
                read(tmp_path / "in.pt")

    def test_only_on_request(self, tmp_path: Path) -> None:
        call, proof = attack(tmp_path)
        (tmp_path / "in.pt").write_bytes(as_torch_file({"model": Holder(call)}))
        with pytest.raises(UnsafeFileError, match="--allow-pickle"):
            read(tmp_path / "in.pt")
        assert not proof.exists()
        with pytest.raises(InvalidArgumentError, match="no named tensors"):
            read(tmp_path / "in.pt", allow_pickle=True)
        assert proof.exists()


class Holder:
    """An object of a class of the user's with a tensor in it."""

    def __init__(self, content: Any) -> None:
        self.content = content
        self.tensor = torch.ones(1)


class TestPickles:
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary(max_size=300)
        | st.complex_numbers(allow_nan=False),
        lambda inner: (
            st.lists(inner)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(), inner)
            | st.sets(st.integers())
            | st.frozensets(st.integers())
        ),
        max_leaves=20,
    )

    @settings(max_examples=100, deadline=None)
    @given(values, st.integers(0, 5))
    def test_plain_values_are_read_as_pickle_reads_them(self, value: Any, protocol: int) -> None:
        read_back = read_pickle(pickle.dumps(value, protocol), source="it")
        if protocol >= 3 or not holds_bytes(value):
            assert read_back == value


def holds_bytes(value: Any) -> bool:
    """Which older protocols write as calls of codecs, that are only recorded."""
    if isinstance(value, dict):
        return any(map(holds_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_bytes, value))
    return isinstance(value, bytes)
