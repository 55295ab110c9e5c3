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
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from momos_rs import errors, packing
from momos_rs.archive import open_archive
from momos_rs.archive.document import SECTIONS
from momos_rs.archive.writer import DIGEST_KEY, NO_DIGEST, VERSION_KEY, section_digest
from momos_rs.checkpoint.safetensors_layout import encode_header, parse_header
from support.models import checkpoint_of, small_model

ARCHIVE = packing.pack(small_model(), capacity=0.3, iterations=2)
FAST_ARCHIVE = packing.pack(small_model(), capacity=0.3, iterations=2, effort="fast")


def decode_everything(data: bytes) -> None:
    with open_archive(data) as archive:
        for index in range(len(archive.document.bases)):
            archive.read_base(index)
        archive.mosaic()


def document_of(data: bytes) -> dict[str, Any]:
    text = zstandard.ZstdDecompressor().decompress(sections(data)["document"])
    document: dict[str, Any] = json.loads(text)
    return document


def tampered(
    change: Callable[[dict[str, Any]], object], data: bytes = ARCHIVE, version: str = "1.0"
) -> bytes:
    """The archive with its document changed and the digest of its head right again."""
    document = document_of(data)
    change(document)
    return assembled(document, sections(data), version)


def sections(data: bytes) -> dict[str, bytes]:
    header = parse_header(data, source="test")
    return {
        name: data[header.data_start + info.start : header.data_start + info.stop]
        for name, info in header.tensors.items()
    }


def assembled(document: object, parts: dict[str, bytes], version: str = "1.0") -> bytes:
    text = json.dumps(document).encode()
    return with_head(zstandard.ZstdCompressor(level=1).compress(text), parts, version)


def with_head(document: bytes, parts: dict[str, bytes], version: str = "1.0") -> bytes:
    """An archive of a compressed document and other sections."""
    rest = {name: part for name, part in parts.items() if name != "document"}
    parts = {"document": document, **rest}
    listed = [(name, "U8", (len(part),), len(part)) for name, part in parts.items()]

    def encode(digest: str) -> bytes:
        metadata = {DIGEST_KEY: digest, VERSION_KEY: version}
        return encode_header(listed, metadata, by_itemsize=False).data + document

    head = encode(section_digest(np.frombuffer(encode(NO_DIGEST), np.uint8)))
    return head + b"".join(rest.values())


def streams(data: bytes = ARCHIVE) -> list[tuple[str, bytes]]:
    """Every stream with its section; the last one is that of the motifs."""
    document, parts = document_of(data), sections(data)
    rest = {"mosaic": parts["indices"], "exact": parts["exact"]}
    found = []
    for stream in document["streams"]:
        kind = stream["kind"]
        found.append((SECTIONS[kind], rest[kind][: stream["bytes"]]))
        rest[kind] = rest[kind][stream["bytes"] :]
    return [*found, ("motifs", parts["motifs"])]


def with_stream(at: int, content: bytes, data: bytes = ARCHIVE) -> bytes:
    """The archive with another stream in the place of one, its size and digest right."""
    document, parts, found = document_of(data), sections(data), streams(data)
    found[at] = (found[at][0], content)
    record = [*document["streams"], document["mosaic"]][at]
    record["digest"] = section_digest(np.frombuffer(content, np.uint8))
    if "bytes" in record:
        record["bytes"] = len(content)
    for name in ("indices", "exact", "motifs"):
        parts[name] = b"".join(part for section, part in found if section == name)
    return assembled(document, parts)


def test_the_helpers_rebuild_the_archive_itself() -> None:
    decode_everything(ARCHIVE)
    decode_everything(tampered(lambda document: document))
    for at, (_, content) in enumerate(streams()):
        decode_everything(with_stream(at, content))


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


def test_a_damaged_stream_is_named_and_spares_the_others() -> None:
    header = parse_header(ARCHIVE, source="test")
    damaged = bytearray(ARCHIVE)
    damaged[header.data_start + header.tensors["exact"].start] ^= 1
    with open_archive(bytes(damaged)) as archive:
        assert archive.read_base(1).size > 0
        with pytest.raises(
            errors.CorruptionError, match=r"section 'exact', 'hidden.bias' and 2 more.*digest"
        ):
            archive.read_base(2)


def test_other_versions() -> None:
    for version in ("2.0", "0.9"):
        hostile = tampered(lambda document: document, version=version)
        with pytest.raises(errors.UnsupportedVersionError, match=f"version {version}"):
            decode_everything(hostile)
    for nonsense in ("1", "one.zero", "", "-1.0", "1.0.0", "1" * 5000 + ".0"):
        with pytest.raises(errors.CorruptionError, match="version"):
            decode_everything(tampered(lambda document: document, version=nonsense))
    decode_everything(tampered(lambda d: d.update(novelty=3), version="1.7"))
    with pytest.raises(errors.UnsupportedVersionError, match="'teleportation'"):
        decode_everything(tampered(lambda d: d.update(requires=["teleportation"])))


def test_missing_and_unknown_sections() -> None:
    document, parts = document_of(ARCHIVE), sections(ARCHIVE)
    with pytest.raises(errors.CorruptionError, match="'extra' belongs to nothing"):
        decode_everything(assembled(document, {**parts, "extra": b"x"}))
    for name in ("motifs", "indices", "exact"):
        fewer = {key: part for key, part in parts.items() if key != name}
        with pytest.raises(errors.CorruptionError, match=f"'{name}' is missing"):
            decode_everything(assembled(document, fewer))
        longer = {**parts, name: parts[name] + b"x"}
        with pytest.raises(errors.CorruptionError, match=f"'{name}'"):
            decode_everything(assembled(document, longer))
    document["mosaic"] = None
    with pytest.raises(errors.CorruptionError, match="mosaic that is not there"):
        decode_everything(assembled(document, parts))


def test_bases_stored_twice_or_never() -> None:
    def change(how: Callable[[list[Any]], object], document: dict[str, Any]) -> None:
        how(document["streams"][-1]["bases"])

    for how in (list.pop, lambda bases: bases.append(0), list.clear):
        with pytest.raises(errors.CorruptionError):
            decode_everything(tampered(partial(change, how)))


def test_unknown_codecs() -> None:
    for at, (section, content) in enumerate(streams()):
        with pytest.raises(errors.UnsupportedVersionError, match=f"'{section}'.*codec 99"):
            decode_everything(with_stream(at, bytes([99]) + content[1:]))


def test_streams_with_too_little_or_too_much() -> None:
    for at, (section, content) in enumerate(streams()):
        if len(content) > 1:
            with pytest.raises(errors.CorruptionError, match=f"'{section}'"):
                decode_everything(with_stream(at, content[:-1]))
        with pytest.raises(errors.CorruptionError, match=f"'{section}'"):
            decode_everything(with_stream(at, content + b"\0"))


def test_a_document_that_announces_too_much_is_refused_unread() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 28))
    unknown = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(1 << 20))
    tracemalloc.start()
    for document in (bomb, unknown, b"(\xb5/\xfd", b"{}"):
        with pytest.raises(errors.CorruptionError, match="document"):
            open_archive(with_head(document, sections(ARCHIVE)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def set_code_lengths(lengths: list[int], document: dict[str, Any]) -> None:
    document["mosaic"]["code_lengths"] = lengths


def test_incomplete_codes() -> None:
    motifs = document_of(FAST_ARCHIVE)["mosaic"]["motifs"]
    for lengths in ([0, motifs], [0, 0, motifs], [motifs], [0] * 60 + [motifs]):
        with pytest.raises(errors.CorruptionError):
            decode_everything(tampered(partial(set_code_lengths, lengths), FAST_ARCHIVE))


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
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 28))
    tracemalloc.start()
    with pytest.raises(errors.CorruptionError, match="instead of"):
        decode_everything(with_stream(-2, b"\x01" + bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_mosaic_of_one_motif_expands_without_limit_only_if_allowed() -> None:
    constant = checkpoint_of({"w": np.ones((1 << 12, 1 << 10), np.float32)})
    data = packing.pack(constant)

    def change(document: dict[str, Any]) -> None:
        document["bases"][0]["elements"] = 1 << 29
        document["tensors"][0]["shape"] = [1 << 29]
        document["mosaic"]["blocks"] = (1 << 29) // document["mosaic"]["block_size"]

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
