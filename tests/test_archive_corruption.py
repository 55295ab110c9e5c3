"""Damaged, truncated, hostile and foreign archives each end in their own error."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import checkpoint_of, small_model
from momos_rs import _core, errors, packing
from momos_rs.archive import open_archive
from momos_rs.archive.writer import DIGEST_KEY, DOCUMENT_KEY, NO_DIGEST
from momos_rs.safetensors_format import encode_header, parse_header

ARCHIVE = packing.pack(small_model(), capacity=0.3, iterations=2)


def decode_everything(data: bytes) -> None:
    with open_archive(data) as archive:
        for index in range(len(archive.document.bases)):
            archive.read_base(index)
        archive.mosaic()


def tampered(change: Callable[[dict[str, Any]], object], data: bytes = ARCHIVE) -> bytes:
    """The archive with its document changed and all digests of the header right again."""
    header = parse_header(data, source="test")
    document = json.loads(header.metadata[DOCUMENT_KEY])
    change(document)
    return assembled(document, sections(data))


def sections(data: bytes) -> dict[str, bytes]:
    header = parse_header(data, source="test")
    return {
        name: data[header.data_start + info.start : header.data_start + info.stop]
        for name, info in header.tensors.items()
    }


def assembled(document: object, parts: dict[str, bytes]) -> bytes:
    listed = [(name, "U8", (len(part),), len(part)) for name, part in parts.items()]

    def encode(digest: str) -> bytes:
        metadata = {DIGEST_KEY: digest, DOCUMENT_KEY: json.dumps(document)}
        return encode_header(listed, metadata, by_itemsize=False).data

    blank = np.frombuffer(encode(NO_DIGEST), np.uint8)
    return encode(_core.digest(blank)) + b"".join(parts.values())


def with_section(name: str, content: bytes, data: bytes = ARCHIVE) -> bytes:
    """The archive with another section, its digest right."""
    parts = sections(data)
    parts[name] = content
    document = json.loads(parse_header(data, source="test").metadata[DOCUMENT_KEY])
    digest = _core.digest(np.frombuffer(content, np.uint8))
    if name == "motifs":
        document["mosaic"]["digest"] = digest
    else:
        document["bases"][int(name.split("/")[1])]["digest"] = digest
    return assembled(document, parts)


def test_the_helpers_rebuild_the_archive_itself() -> None:
    decode_everything(ARCHIVE)
    decode_everything(tampered(lambda document: document))
    for name, content in sections(ARCHIVE).items():
        decode_everything(with_section(name, content))


def test_truncation() -> None:
    for length in range(len(ARCHIVE)):
        with pytest.raises(errors.InsufficientDataError):
            decode_everything(ARCHIVE[:length])


def test_flipped_bytes() -> None:
    rng = np.random.default_rng(1)
    for position in range(len(ARCHIVE)):
        damaged = bytearray(ARCHIVE)
        damaged[position] ^= int(rng.integers(1, 256))
        with pytest.raises(errors.MomosError, match="the archive"):
            decode_everything(bytes(damaged))


def test_appended_bytes() -> None:
    with pytest.raises(errors.CorruptionError):
        decode_everything(ARCHIVE + b"x")


def test_a_damaged_section_is_named_and_spares_the_others() -> None:
    header = parse_header(ARCHIVE, source="test")
    damaged = bytearray(ARCHIVE)
    damaged[header.data_start + header.tensors["exact/2"].start] ^= 1
    with open_archive(bytes(damaged)) as archive:
        assert archive.read_base(3).size > 0
        with pytest.raises(errors.CorruptionError, match=r"section 'exact/2'.*digest"):
            archive.read_base(2)


def test_other_versions() -> None:
    for version in ([2, 0], [0, 9]):
        hostile = tampered(partial(dict.update, version=version))
        with pytest.raises(errors.UnsupportedVersionError, match=f"version {version[0]}"):
            decode_everything(hostile)
    decode_everything(tampered(lambda d: d.update(version=[1, 7], novelty=3)))
    with pytest.raises(errors.UnsupportedVersionError, match="'teleportation'"):
        decode_everything(tampered(lambda d: d.update(requires=["teleportation"])))


def test_missing_and_unknown_sections() -> None:
    document = json.loads(parse_header(ARCHIVE, source="test").metadata[DOCUMENT_KEY])
    parts = sections(ARCHIVE)
    with pytest.raises(errors.CorruptionError, match="'extra' belongs to nothing"):
        decode_everything(assembled(document, {**parts, "extra": b"x"}))
    for name in parts:
        fewer = {key: part for key, part in parts.items() if key != name}
        with pytest.raises(errors.CorruptionError, match=f"'{name}' is missing"):
            decode_everything(assembled(document, fewer))


def test_unknown_codecs() -> None:
    for name, content in sections(ARCHIVE).items():
        with pytest.raises(errors.UnsupportedVersionError, match=f"'{name}'.*codec 99"):
            decode_everything(with_section(name, bytes([99]) + content[1:]))


def test_streams_with_too_little_or_too_much() -> None:
    for name, content in sections(ARCHIVE).items():
        if len(content) > 1:
            with pytest.raises(errors.CorruptionError, match=f"'{name}'"):
                decode_everything(with_section(name, content[:-1]))
        with pytest.raises(errors.CorruptionError, match=f"'{name}'"):
            decode_everything(with_section(name, content + b"\0"))


def set_code_lengths(lengths: list[int], document: dict[str, Any]) -> None:
    document["mosaic"]["code_lengths"] = lengths


def test_incomplete_codes() -> None:
    motifs = json.loads(parse_header(ARCHIVE, source="test").metadata[DOCUMENT_KEY])["mosaic"][
        "motifs"
    ]
    for lengths in ([0, motifs], [0, 0, motifs], [motifs], [0] * 60 + [motifs]):
        with pytest.raises(errors.CorruptionError):
            decode_everything(tampered(partial(set_code_lengths, lengths)))


@pytest.mark.parametrize("elements", [2**31, 2**40, 2**62, 2**63, 2**200, -1])
def test_absurd_sizes(elements: int) -> None:
    def change(document: dict[str, Any]) -> None:
        for base in document["bases"]:
            base["elements"] = elements
        for tensor in document["tensors"]:
            tensor["shape"] = [elements]

    tracemalloc.start()
    with pytest.raises(errors.CorruptionError):
        decode_everything(tampered(change))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_frame_that_announces_more_than_its_tensor_is_refused_unread() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 28))
    tracemalloc.start()
    with pytest.raises(errors.CorruptionError, match="instead of"):
        decode_everything(with_section("exact/2", b"\x01" + bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_mosaic_of_one_motif_expands_without_limit_only_if_allowed() -> None:
    constant = checkpoint_of({"w": np.ones((1 << 12, 1 << 10), np.float32)})
    data = packing.pack(constant)

    def change(document: dict[str, Any]) -> None:
        document["bases"][0]["elements"] = 1 << 29
        document["tensors"][0]["shape"] = [1 << 29]
        document["mosaic"]["blocks"] = 1 << 27

    hostile = tampered(change, data)
    with pytest.raises(errors.CorruptionError, match="max_bytes"):
        open_archive(hostile)
    with open_archive(hostile, max_bytes=1 << 31) as archive:
        assert archive.document.bases[0].elements == 1 << 29


def test_foreign_files() -> None:
    with pytest.raises(errors.InsufficientDataError):
        open_archive(b"")
    with pytest.raises(errors.CorruptionError):
        open_archive(b"PK\x03\x04" + bytes(100))
    plain = encode_header([("w", "F32", (2,), 8)], {}).data + bytes(8)
    with pytest.raises(errors.CorruptionError, match="plain safetensors"):
        open_archive(plain)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(-1, 9), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_document_is_read_or_refused(data: st.DataObject) -> None:
    """Replaces one value anywhere in the document; digests are right."""

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            deeper = place[key]
            if isinstance(deeper, (dict, list)) and deeper and data.draw(st.booleans()):
                place = deeper
                continue
            if data.draw(st.booleans()):
                place[key] = data.draw(VALUES)
            elif isinstance(place, dict):
                del place[key]
            return

    with contextlib.suppress(errors.MomosError):
        decode_everything(tampered(change))
