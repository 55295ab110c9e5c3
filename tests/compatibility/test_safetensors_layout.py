"""The safetensors layout: parity with the reference library, round trips, and broken files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from momos_rs.checkpoint.safetensors_layout import (
    MAX_HEADER_BYTES,
    Header,
    dtype_bits,
    encode_header,
    parse_header,
)
from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError

Array = npt.NDArray[Any]
Spec = tuple[str, str, Sequence[int], int]


def deserialize(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The reference library's own parser."""
    result: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(data)
    return result


def raw_file(document: object, data: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def written(specs: list[Spec], payloads: list[bytes], **options: bool) -> bytes:
    header = encode_header(specs, {"format": "pt"}, **options)
    return header.data + b"".join(payloads[index] for index in header.order)


def parse_or_message(data: bytes | bytearray) -> tuple[Header | None, str]:
    try:
        return parse_header(data, source="the-file"), ""
    except CorruptionError as error:
        return None, str(error)


SMALL_SPECS: list[Spec] = [
    ("a", "U8", [3], 3),
    ("b.weight", "F32", [2, 1], 8),
    ("c", "F64", [0], 0),
]
SMALL = written(SMALL_SPECS, [b"\1\2\3", np.array([1, 2], "<f4").tobytes(), b""])


class TestParity:
    def test_the_reference_library_reads_what_is_written(self) -> None:
        tensors = {
            "half": torch.randn(3, 2).half(),
            "wide": torch.randn(5, dtype=torch.float64),
            "flags": torch.tensor([True, False, True]),
            "brain": torch.randn(7).bfloat16(),
            "nothing": torch.empty(0, 4),
            "count": torch.tensor(7),
            "é.weight": torch.randn(1, 1, 1),
        }
        names = {
            torch.float16: "F16",
            torch.float64: "F64",
            torch.bool: "BOOL",
            torch.bfloat16: "BF16",
            torch.float32: "F32",
            torch.int64: "I64",
        }
        payloads = [bytes(each.reshape(-1).view(torch.uint8).numpy()) for each in tensors.values()]
        specs: list[Spec] = [
            (name, names[each.dtype], list(each.shape), each.nbytes)
            for name, each in tensors.items()
        ]
        for by_itemsize in (True, False):
            loaded = safetensors.torch.load(written(specs, payloads, by_itemsize=by_itemsize))
            assert loaded.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert loaded[name].dtype == tensor.dtype
                assert torch.equal(loaded[name], tensor)

    def test_what_the_reference_library_writes_is_read(self) -> None:
        arrays: dict[str, Array] = {
            "x": np.arange(6, dtype=np.float32).reshape(2, 3),
            "y": np.array([1 + 2j], np.complex64),
            "z": np.array(3, np.uint16),
        }
        data = safetensors.numpy.save(arrays, metadata={"who": "reference"})
        header = parse_header(data, source="file")
        assert header.metadata == {"who": "reference"}
        assert header.tensors.keys() == arrays.keys()
        for name, array in arrays.items():
            info = header.tensors[name]
            assert info.shape == array.shape
            start = header.data_start + info.start
            assert data[start : start + info.nbytes] == array.tobytes()

    def test_the_bytes_equal_the_reference_writers(self) -> None:
        arrays: dict[str, Array] = {
            "a": np.arange(3, dtype=np.float64),
            "b": np.arange(2, dtype=np.float32),
        }
        specs: list[Spec] = [("a", "F64", [3], 24), ("b", "F32", [2], 8)]
        header = encode_header(specs)
        ours = header.data + arrays["a"].tobytes() + arrays["b"].tobytes()
        assert ours == safetensors.numpy.save(arrays)

    @pytest.mark.parametrize("name", ["F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "U64", "C64"])
    def test_the_rare_types_pass_the_reference_validator(self, name: str) -> None:
        nbytes = 8 * dtype_bits(name) // 8
        header = encode_header([("t", name, [8], nbytes)])
        [(key, value)] = deserialize(header.data + bytes(nbytes))
        assert (key, value["dtype"], value["shape"]) == ("t", name, [8])

    def test_sub_byte_types_count_bits(self) -> None:
        header = parse_header(
            raw_file({"t": described(dtype="F6_E2M3", shape=[4], data_offsets=[0, 3])}, bytes(3)),
            source="file",
        )
        assert header.tensors["t"].nbytes == 3


class TestRoundTrip:
    dtypes = ("F64", "F32", "BF16", "U8", "BOOL", "C64", "F8_E4M3")
    tensors = st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda s: s != "__metadata__"),
            st.sampled_from(dtypes),
            st.lists(st.integers(0, 4), max_size=4),
        ),
        max_size=6,
        unique_by=lambda each: each[0],
    )

    @given(
        tensors, st.dictionaries(st.text(st.characters(codec="utf-8")), st.just("v")), st.booleans()
    )
    def test_header(
        self, listed: list[tuple[str, str, list[int]]], metadata: dict[str, str], by_itemsize: bool
    ) -> None:
        specs = [
            (name, dtype, shape, int(np.prod(shape, dtype=int)) * dtype_bits(dtype) // 8)
            for name, dtype, shape in listed
        ]
        encoded = encode_header(specs, metadata, by_itemsize=by_itemsize)
        data = encoded.data + bytes(encoded.data_bytes)
        header = parse_header(data, source="file")
        assert header.metadata == metadata
        assert list(header.tensors) == [spec[0] for spec in specs]
        assert header.data_start == len(encoded.data)
        assert header.data_start % 8 == 0
        assert data[8 : header.data_start] == header.raw
        for spec in specs:
            info = header.tensors[spec[0]]
            assert (info.dtype, info.shape, info.nbytes) == (spec[1], tuple(spec[2]), spec[3])
            if by_itemsize:
                assert info.start % (dtype_bits(info.dtype) // 8) == 0
        starts = [header.tensors[specs[index][0]].start for index in encoded.order]
        assert starts == sorted(starts)
        assert len(deserialize(data)) == len(specs)

    def test_given_order_lays_out_back_to_back(self) -> None:
        encoded = encode_header(SMALL_SPECS, by_itemsize=False)
        assert encoded.order == (0, 1, 2)
        tensors = parse_header(encoded.data + bytes(11), source="file").tensors
        assert [each.start for each in tensors.values()] == [0, 3, 11]


BROKEN: list[tuple[object, str]] = [
    (b" {}", "starts with b' '"),
    (b"[]", "starts with"),
    (b"{", "not valid JSON"),
    (b"{}x", "not valid JSON"),
    (b'{"a":NaN}', "holds NaN"),
    (b'{"\xff": 1}', "not UTF-8"),
    (b'{"a":1,"a":1}', "'a' twice"),
    (b'{"\\ud800":1}', "invalid Unicode"),
    (b'{"a":' * 100_000, "too deeply|not valid JSON"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too deeply|not described"),
    (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
    (b'{"__metadata__":[]}', "not an object"),
    (b'{"__metadata__":{"a":1}}', "not a string"),
    ({"t": 1}, "not described"),
    ({"t": {"dtype": "F32", "shape": [2]}}, "not described"),
    ({"t": described(extra=1)}, "not described"),
    ({"t": described(dtype="F31")}, "'F31'"),
    ({"t": described(dtype=["F32"])}, "element type"),
    ({"t": described(dtype=None)}, "element type"),
    ({"t": described(shape=None)}, "impossible shape"),
    ({"t": described(shape=[2.0])}, "impossible shape"),
    ({"t": described(shape=[True, 2])}, "impossible shape"),
    ({"t": described(shape=[-2])}, "impossible shape"),
    ({"t": described(shape=["2"])}, "impossible shape"),
    ({"t": described(shape=[2**64 + 2])}, "impossible shape"),
    ({"t": described(shape=[2**62, 2**62])}, "impossible shape"),
    ({"t": described(shape=[0, 2**62, 2**62], data_offsets=[0, 0])}, "impossible shape"),
    ({"t": described(shape=[[[[[[2]]]]]])}, "impossible shape"),
    ({"t": described(dtype="F4", shape=[3], data_offsets=[0, 2])}, "impossible shape"),
    ({"t": described(data_offsets=[0])}, "impossible data offsets"),
    ({"t": described(data_offsets=[8, 0])}, "impossible data offsets"),
    ({"t": described(data_offsets=[0, 8.0])}, "impossible data offsets"),
    ({"t": described(data_offsets=[0, 4])}, "span 4"),
    ({"t": described(data_offsets=[4, 12])}, "gap"),
    ({"t": described(), "u": described()}, "overlaps"),
    ({"t": described(shape=[1], data_offsets=[0, 4])}, "4 bytes after its tensors"),
    ({"t": described(), "u": described(data_offsets=[8, 16])}, "truncated"),
]


class TestCorruption:
    def test_truncation_at_every_length_is_told(self) -> None:
        for length in range(len(SMALL)):
            with pytest.raises(InsufficientDataError, match="the-file"):
                parse_header(SMALL[:length], source="the-file")

    def test_every_flip_is_told_or_harmless(self) -> None:
        intact = parse_header(SMALL, source="file")
        for position in range(len(SMALL)):
            for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
                broken = bytearray(SMALL)
                broken[position] ^= mask
                header, message = parse_or_message(broken)
                if header is None:
                    assert "the-file" in message
                    assert "\n" not in message
                elif position >= intact.data_start:
                    assert header == intact
                else:  # a flip in a name, a type of the same size, or a size-preserving shape
                    assert header.raw != intact.raw
                    assert sum(each.nbytes for each in header.tensors.values()) == 11

    @given(st.binary(max_size=200))
    def test_random_bytes_never_crash(self, data: bytes) -> None:
        with pytest.raises(CorruptionError):
            parse_header(data, source="file")

    @given(st.binary(max_size=100))
    @example(b"}")
    @example(b'"__metadata__": {}}')
    def test_random_headers_never_crash(self, text: bytes) -> None:
        try:
            header = parse_header(raw_file(b"{" + text), source="file")
        except CorruptionError:
            return
        # What chance may make of it is a file without tensors.
        json.loads(b"{" + text)
        assert not header.tensors

    @pytest.mark.parametrize(
        ("document", "message"),
        BROKEN,
        ids=[message for _, message in BROKEN],
    )
    def test_contradictions_are_named(self, document: object, message: str) -> None:
        with pytest.raises(CorruptionError, match=message) as caught:
            parse_header(raw_file(document, bytes(8)), source="the-file")
        assert "the-file" in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_absurd_lengths_allocate_nothing(self) -> None:
        for length, kind in (
            (2**64 - 1, CorruptionError),
            (MAX_HEADER_BYTES + 1, CorruptionError),
            (MAX_HEADER_BYTES, InsufficientDataError),
        ):
            with pytest.raises(kind):
                parse_header(length.to_bytes(8, "little") + b"{}", source="file")

    def test_zero_size_tensors_may_stand_anywhere(self) -> None:
        empty = described(shape=[0], data_offsets=[8, 8])
        header = parse_header(raw_file({"t": described(), "e": empty}, bytes(8)), source="file")
        assert header.tensors["e"].nbytes == 0


class TestWriterRefuses:
    @pytest.mark.parametrize(
        ("specs", "metadata", "message"),
        [
            ([("a", "U8", [1], 1), ("a", "U8", [1], 1)], {}, "'a'"),
            ([("__metadata__", "U8", [1], 1)], {}, "__metadata__"),
            ([("a", "U8", [1], 2)], {}, "cannot take 2"),
            ([("a", "U8", [-1], -1)], {}, "cannot take"),
            ([("a", "C128", [1], 16)], {}, "C128"),
            ([("\ud800", "U8", [1], 1)], {}, "Unicode"),
            ([], {"a": 1}, "strings only"),
        ],
    )
    def test_what_a_reader_would_refuse(
        self, specs: list[Spec], metadata: dict[str, str], message: str
    ) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            encode_header(specs, metadata)

    def test_too_long_a_header(self) -> None:
        with pytest.raises(InvalidArgumentError, match="header of"):
            encode_header([], {"a": "x" * MAX_HEADER_BYTES})


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, momos_rs.checkpoint, momos_rs.checkpoint.safetensors_layout;"
        "import momos_rs.runtime.atomic_file;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
