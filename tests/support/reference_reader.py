"""A slow reader of archives, written from docs/format.md and nothing else.

It knows the codecs that `momos pack` writes for free motifs and exact tensors at the efforts
`fast` and `default`; the mixed predictions of `best` and tensors on grids are left out.
"""

from __future__ import annotations

import json
import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

Floats = npt.NDArray[np.float64]

ITEM_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
EXPONENT_BITS = {"F64": 11, "F32": 8, "F16": 5, "BF16": 8}


def read_archive(data: bytes) -> dict[str, bytes]:
    """The elements of every tensor (in C order of its base) by name."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    sections = {
        name: data[8 + length :][slice(*entry["data_offsets"])] for name, entry in header.items()
    }
    document = json.loads(zstandard.ZstdDecompressor().decompress(sections["document"]))
    mosaic = document["mosaic"]
    numbering = Numbering(mosaic, sections["motifs"]) if mosaic else None
    bases: dict[int, bytes] = {}
    at = dict.fromkeys(sections, 0)
    for stream in document["streams"]:
        section = {"mosaic": "indices", "exact": "exact"}[stream["kind"]]
        coded = sections[section][at[section] :][: stream["bytes"]]
        at[section] += stream["bytes"]
        records = [document["bases"][index] for index in stream["bases"]]
        sizes = [each["elements"] * ITEM_SIZES[each["dtype"]] for each in records]
        if stream["kind"] == "mosaic":
            assert numbering is not None
            whole = numbering.decode(coded, records[0]["elements"], records[0]["dtype"])
        else:
            whole = decode_bytes(coded, sum(sizes), ITEM_SIZES[records[0]["dtype"]])
        for index, size in zip(stream["bases"], sizes, strict=True):
            bases[index], whole = whole[:size], whole[size:]
        assert not whole
    for index, record in enumerate(document["bases"]):
        if "of" in record:
            bases[index] = bases[record["of"]]
    return {tensor["name"]: bases[tensor["base"]] for tensor in document["tensors"]}


def split_chunks(payload: bytes, count: int, width: int) -> list[bytes]:
    counted = max(count - 1, 0)
    sizes = [
        int.from_bytes(payload[width * each : width * (each + 1)], "little")
        for each in range(counted)
    ]
    chunks, rest = [], payload[width * counted :]
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    return [*chunks, rest]


# ---- bytes


def decode_bytes(stream: bytes, nbytes: int, item: int) -> bytes:
    codec, payload = stream[0], stream[1:]
    if codec == 0:
        return payload
    per_chunk = item << 20
    sizes = [min(per_chunk, nbytes - start) for start in range(0, nbytes, per_chunk)]
    chunks = split_chunks(payload, len(sizes), 8)
    parts = []
    for chunk, size in zip(chunks, sizes, strict=True):
        if codec == 4:
            parts.append(decode_modelled(chunk, size // item, item))
            continue
        if codec == 5:
            parts.append(decode_fields(chunk, size // item, item))
            continue
        raw = zstandard.ZstdDecompressor().decompress(chunk)
        assert len(raw) == size
        if codec > 1:
            planes = np.frombuffer(raw, np.uint8).reshape(item, -1)
            raw = np.ascontiguousarray(planes.T).tobytes()
        parts.append(unrotate(raw, item) if codec == 3 else raw)
    return b"".join(parts)


def unrotate(raw: bytes, item: int) -> bytes:
    values = np.frombuffer(raw, f"<u{item}")
    bits = values.dtype.type(8 * item - 1)
    return bytes((values >> values.dtype.type(1) | values << bits).tobytes())


def decode_modelled(chunk: bytes, elements: int, item: int) -> bytes:
    parts = []
    while chunk:
        (size,) = struct.unpack_from("<I", chunk)
        parts.append(chunk[4 : 4 + size])
        chunk = chunk[4 + size :]
    coder = RangeDecoder(parts[0])
    planes = [zstandard.ZstdDecompressor().decompress(part) for part in parts[1:]]
    tops: dict[int, Tree] = defaultdict(lambda: Tree(8, 1023))
    belows: dict[int, Tree] = defaultdict(lambda: Tree(3, 1023))
    around = 32768
    values = []
    for index in range(elements):
        top = tops[around // 256].decode(coder)
        around += 256 * top // 16 - around // 16
        value = top
        if item > 1:
            value = value << 3 | belows[top].decode(coder)
            low = 0
            for plane in planes:
                low = low << 8 | plane[index]
            value = value << (8 * item - 11) | low
        values.append(value)
    coder.finish()
    return unrotate(np.array(values, f"<u{item}").tobytes(), item)


def decode_fields(chunk: bytes, elements: int, item: int) -> bytes:
    change, leading, rest = chunk[0], chunk[1], chunk[2:]
    low_bits = 8 * item - leading
    numbers, rest = decode_field(rest, leading, elements)
    values = [number << low_bits for number in numbers]
    for place in reversed(range(math.ceil(low_bits / 8))):
        numbers, rest = decode_field(rest, 8, elements)
        values = [value | low << 8 * place for value, low in zip(values, numbers, strict=True)]
    assert not rest
    if change == 1:
        return unrotate(np.array(values, f"<u{item}").tobytes(), item)
    if change == 2:
        values = [-(value + 1) // 2 if value % 2 else value // 2 for value in values]
        return np.array(values, f"<i{item}").tobytes()
    return np.array(values, f"<u{item}").tobytes()


def decode_field(data: bytes, bits: int, count: int) -> tuple[list[int], bytes]:
    mode, data = data[0], data[1:]
    if mode == 255:
        return decode_symbols(data, bits, count)
    assert bits == 8
    shift, constant, data = data[0], data[1], data[2:]
    if mode == 8:
        return list(data[:count]), data[count:]
    numbers: list[int] = []
    for start in range(0, count, 256):
        size = min(256, count - start)
        row = math.ceil(size / 8)
        group, data = data[: mode * row], data[mode * row :]
        rows = [[byte % 2**mode for byte in group[i * row : (i + 1) * row]] for i in range(mode)]
        for upper in range(mode, 8):
            spread = [
                [(byte >> upper & 1) << i for byte in group[i * row : (i + 1) * row]]
                for i in range(mode)
            ]
            rows.append([sum(each) for each in zip(*spread, strict=True)] or [0] * row)
        numbers += [number for each in rows for number in each][:size]
    return [constant | number << shift for number in numbers], data


def decode_symbols(data: bytes, bits: int, count: int) -> tuple[list[int], bytes]:
    head, side_size, word_count = struct.unpack_from("<BII", data)
    classes, run = head % 16 + 1, 1 << (head >> 4)
    lanes = 32 if count >= 4096 else 4
    side = RangeDecoder(data[9 : 9 + side_size])
    at = 9 + side_size
    states = list(struct.unpack_from(f"<{lanes}I", data, at))
    at += 4 * lanes
    words = iter(struct.unpack_from(f"<{word_count}H", data, at))
    precision = min(12, (32 - bits) // 2)
    rare = 2**bits - 1
    tables = decode_frequencies(side, bits, classes, precision)
    trees: dict[int, Tree] = defaultdict(lambda: Tree((classes - 1).bit_length(), 255))
    of_runs = [0]
    for _ in range(math.ceil(count / run)):
        of_runs.append(trees[of_runs[-1]].decode(side))
    rares = Tree(bits, 255)
    symbols = []
    for index in range(count):
        state = states[index % lanes]
        symbol, frequency, distance = tables[of_runs[1 + index // run]][state % 2**precision]
        state = frequency * (state >> precision) + distance
        states[index % lanes] = state if state >= 2**16 else state << 16 | next(words)
        symbols.append(symbol)
    symbols = [rares.decode(side) if symbol == rare else symbol for symbol in symbols]
    side.finish()
    assert next(words, None) is None
    assert states == [2**16] * lanes
    return symbols, data[at + 2 * word_count :]


def decode_frequencies(
    side: RangeDecoder, bits: int, classes: int, precision: int
) -> list[list[tuple[int, int, int]]]:
    """For each class and each remainder of a state: symbol, frequency, place in its range."""
    first, last = side.below(2**bits), side.below(2**bits)
    trees: dict[tuple[bool, int], Tree] = defaultdict(lambda: Tree(4, 60))
    tables = []
    before: list[int] | None = None
    for _ in range(classes):
        frequencies: list[int] = []
        for symbol in range(last - first + 1):
            if before is None:
                key = (False, frequencies[-1].bit_length() if frequencies else 0)
            else:
                key = (True, before[symbol].bit_length())
            length = trees[key].decode(side)
            low = side.below(2 ** (length - 1)) if length else 0
            frequencies.append(2 ** (length - 1) + low if length else 0)
        listed = [(first + each, frequency) for each, frequency in enumerate(frequencies)]
        listed.append((2**bits - 1, 2**precision - sum(frequencies)))
        tables.append([(s, f, distance) for s, f in listed for distance in range(f)])
        before = frequencies
    return tables


# ---- the range coder


class RangeDecoder:
    def __init__(self, data: bytes) -> None:
        self.data, self.position = data + bytes(8), 0
        self.size = len(data)
        self.range = 2**64 - 1
        self.code = int.from_bytes(self.data[:8], "big")
        self.position = 8

    def _normalise(self) -> None:
        if self.range < 2**32:
            word = int.from_bytes(self.data[self.position : self.position + 4], "big")
            self.position += 4
            self.code = self.code << 32 | word
            self.range <<= 32

    def bit(self, probability: int) -> int:
        share = (self.range >> 16) * probability
        if self.code < share:
            self.range, bit = share, 1
        else:
            self.code -= share
            self.range, bit = self.range - share, 0
        self._normalise()
        return bit

    def below(self, count: int) -> int:
        self.range //= count
        value = self.code // self.range
        self.code -= value * self.range
        self._normalise()
        return value

    def finish(self) -> None:
        assert self.position == self.size + 4


@dataclass
class AdaptiveBit:
    limit: int
    probability: int = 32768
    seen: int = 0

    def update(self, bit: int) -> None:
        target = 65512 if bit else 24
        step = 2**16 // (2 * self.seen + 3)
        self.probability += (target - self.probability) * step // 2**15
        self.seen = min(self.seen + 1, self.limit)

    def decode(self, coder: RangeDecoder) -> int:
        bit = coder.bit(self.probability)
        self.update(bit)
        return bit


class Tree:
    def __init__(self, width: int, limit: int) -> None:
        self.width = width
        self.bits: dict[int, AdaptiveBit] = defaultdict(lambda: AdaptiveBit(limit))

    def decode(self, coder: RangeDecoder) -> int:
        node = 1
        for _ in range(self.width):
            node = node * 2 + self.bits[node].decode(coder)
        return node - (1 << self.width)


# ---- motifs


def to_float64(numbers: list[int], dtype: str) -> Floats:
    """Ordered integers as values."""
    bits = 8 * ITEM_SIZES[dtype]
    top, everything = 1 << (bits - 1), (1 << bits) - 1
    patterns = [number ^ top if number & top else number ^ everything for number in numbers]
    if dtype == "BF16":
        return (np.array(patterns, np.uint32) << 16).view(np.float32).astype(np.float64)
    raw = np.array(patterns, f"<u{bits // 8}")
    return raw.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)


def round_to(values: Floats, dtype: str) -> bytes:
    if dtype != "BF16":
        return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
    # Multiples of the distance between neighbours, from exponent -126 down all the same: dividing
    # by a power of two is exact, so that this rounds once.
    exponents = np.maximum(np.frexp(values)[1] - 1, -126) - 7
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(values, -exponents)), exponents)
        single = np.where(np.isfinite(values), rounded, values).astype(np.float32)
    return (single.view(np.uint32) >> 16).astype("<u2").tobytes()


def decode_motifs(stream: bytes, motifs: int, block_size: int, dtype: str) -> Floats:
    item = ITEM_SIZES[dtype]
    if stream[0] < 4:
        raw = decode_bytes(stream, motifs * block_size * item, 1)
        columns = []
        for column in range(block_size):
            part = raw[column * motifs * item : (column + 1) * motifs * item]
            planes = np.frombuffer(part, np.uint8).reshape(item, motifs)
            values = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{item}")
            if column == 0:
                total, numbers = 0, []
                for value in values.tolist():
                    total = (total + value) % 2 ** (8 * item)
                    numbers.append(total)
                columns.append(to_float64(numbers, dtype))
            else:
                patterns = np.frombuffer(unrotate(values.tobytes(), item), f"<u{item}")
                top = 1 << (8 * item - 1)
                inverted = [
                    each ^ (2 * top - 1) if each & top else each | top for each in patterns.tolist()
                ]
                columns.append(to_float64(inverted, dtype))
        return np.stack(columns, axis=1)
    return MotifDecoder(stream, block_size, dtype).table(motifs)


class MotifDecoder:
    def __init__(self, stream: bytes, block_size: int, dtype: str) -> None:
        self.dtype, self.block_size = dtype, block_size
        self.on_grid = stream[0] == 5
        bits = 8 * ITEM_SIZES[dtype]
        self.exponent_bits = EXPONENT_BITS[dtype]
        self.mantissa_bits = bits - 1 - self.exponent_bits
        self.modulus = 2**64 if self.on_grid else 2**bits
        if self.on_grid:
            (self.step,) = struct.unpack_from("<d", stream, 1)
            self.coder = RangeDecoder(stream[9:])
        else:
            (self.largest,) = struct.unpack_from("<H", stream, 1)
            self.coder = RangeDecoder(stream[3:])
        self.lengths: dict[Any, Tree] = defaultdict(lambda: Tree(7, 500))
        self.classes: dict[Any, Tree] = defaultdict(lambda: Tree(6, 500))
        self.lows: dict[Any, Tree] = defaultdict(lambda: Tree(3, 500))
        self.last_length: dict[int, int] = defaultdict(int)

    def table(self, motifs: int) -> Floats:
        rows = []
        above = [0] * self.block_size
        for _ in range(motifs):
            row: list[int] = []
            sizes = [0]
            for column in range(self.block_size):
                j = min(column, 3)
                if row == above[:column]:
                    number = (above[column] + self.gap(j)) % self.modulus
                else:
                    number = self.value(j, max(sizes))
                row.append(number)
                sizes.append(self.size(number))
            rows.append(row)
            above = row
        self.coder.finish()
        flat = [number for row in rows for number in row]
        if self.on_grid:
            wide = np.array([(number - 2**63) * self.step for number in flat])
            raw = round_to(wide, self.dtype)
            patterns = np.frombuffer(raw, f"<u{ITEM_SIZES[self.dtype]}")
            if self.dtype == "BF16":
                values = (patterns.astype(np.uint32) << 16).view(np.float32)
            else:
                values = patterns.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[self.dtype])
            return values.astype(np.float64).reshape(motifs, -1)
        return to_float64(flat, self.dtype).reshape(motifs, -1)

    def gap(self, j: int) -> int:
        length = self.lengths[j, min(self.last_length[j], 64)].decode(self.coder)
        self.last_length[j] = length
        if length < 2:
            return length
        return 1 << (length - 1) | self.low_bits(("gap", j, length), length - 1)

    def value(self, j: int, largest: int) -> int:
        kind = self.classes[j, largest].decode(self.coder)
        if self.on_grid:
            low = self.low_bits(kind, max(kind - 1, 0))
            magnitude = 1 << (kind - 1) | low if kind else 0
            negative = kind and self.coder.bit(1 << 15)
            return (-magnitude if negative else magnitude) + 2**63
        if kind == 63:
            pattern = self.low_bits(kind, self.exponent_bits + self.mantissa_bits)
        else:
            mantissa = self.low_bits(kind, self.mantissa_bits)
            pattern = self.largest - kind << self.mantissa_bits | mantissa
        sign = 1 << (self.exponent_bits + self.mantissa_bits)
        if self.coder.bit(1 << 15):
            return pattern ^ (sign - 1)
        return pattern | sign

    def size(self, number: int) -> int:
        if self.on_grid:
            return min(abs(number - 2**63).bit_length(), 63)
        sign = 1 << (self.exponent_bits + self.mantissa_bits)
        magnitude = number & (sign - 1) if number & sign else ~number & (sign - 1)
        kind = self.largest - (magnitude >> self.mantissa_bits)
        return 63 - kind if 0 <= kind <= 62 else 0

    def low_bits(self, tree: Any, width: int) -> int:
        lead = self.lows[tree].decode(self.coder)
        if width < 3:
            return lead >> (3 - width)
        rest = width - 3
        while rest:
            part = min(16, rest)
            lead = lead << part | self.coder.below(1 << part)
            rest -= part
        return lead


# ---- indices


class Numbering:
    """The motifs by their number, and the streams of numbers."""

    def __init__(self, record: dict[str, Any], stream: bytes) -> None:
        self.block_size, self.count = record["block_size"], record["motifs"]
        table = decode_motifs(stream, self.count, self.block_size, record["dtype"])
        self.tree = None
        if record["index"] == "prefix":
            self.motifs = table
            self.codes = dict(canonical_codes(record["code_lengths"]))
        else:
            self.tree = Kd(table)
            self.motifs = table[self.tree.places]

    def decode(self, stream: bytes, elements: int, dtype: str) -> bytes:
        blocks = -(-elements // self.block_size)
        numbers = self.numbers(stream, blocks)
        return round_to(self.motifs[numbers].reshape(-1)[:elements], dtype)

    def numbers(self, stream: bytes, blocks: int) -> list[int]:
        codec, payload = stream[0], stream[1:]
        if codec == 0:
            width = math.ceil(math.log2(self.count))
            return list(fixed_width(payload, width, blocks))
        if codec == 1:
            numbers: list[Any] = []
            for chunk in split_chunks(payload, -(-blocks // 65536), 4):
                numbers += self.prefixed(chunk, min(65536, blocks - len(numbers)))
            return numbers
        assert codec == 2
        assert self.tree is not None
        levels, own_after = payload[0], payload[1]
        numbers = []
        for chunk in split_chunks(payload[2:], -(-blocks // 131072), 4):
            count = min(131072, blocks - len(numbers))
            numbers += Paths(self.tree, levels, own_after).decode(chunk, count)
        return numbers

    def prefixed(self, chunk: bytes, blocks: int) -> list[int]:
        bits = "".join(f"{byte:08b}" for byte in chunk)
        numbers, at = [], 0
        for _ in range(blocks):
            end = at
            while bits[at:end] not in self.codes:
                end += 1
                assert end <= min(len(bits), at + 48)
            numbers.append(self.codes[bits[at:end]])
            at = end
        assert "1" not in bits[at:]
        assert len(bits) - at < 8
        return numbers


def canonical_codes(lengths: list[int]) -> Iterator[tuple[str, int]]:
    code = motif = 0
    for length, count in enumerate(lengths):
        code *= 2
        for _ in range(count):
            yield (f"{code:0{length}b}" if length else ""), motif
            code, motif = code + 1, motif + 1


def fixed_width(payload: bytes, width: int, blocks: int) -> Iterator[int]:
    bits = "".join(f"{byte:08b}" for byte in payload)
    for block in range(blocks):
        yield int(bits[block * width : (block + 1) * width] or "0", 2)


def half_octaves(value: float) -> int:
    bits = int(np.float32(abs(value)).view(np.uint32))
    return (bits >> 22) - 254


class Kd:
    """The tree of motifs."""

    def __init__(self, table: Floats) -> None:
        self.table = table
        sums = [float(sum_in_order(row * row)) for row in table]
        mean = sum_in_order(np.array(sums)) / len(sums)
        usable = mean > 0 and math.isfinite(mean)
        self.energy = [min(max(e / mean, 2.0**-60), 2.0**60) if usable else 1.0 for e in sums]
        self.places = np.arange(len(table))
        self.slopes = [0] * len(table)
        self._build(0, len(table))

    def _build(self, low: int, high: int) -> float:
        if high - low < 2:
            return float(self.energy[self.places[low]])
        rows = self.places[low:high]
        extents = self.table[rows].max(axis=0) - self.table[rows].min(axis=0)
        values = self.table[rows, int(extents.argmax())]
        # Total order: negative zero comes before zero.
        order = np.lexsort((rows, ~np.signbit(values), values))
        self.places[low:high] = rows[order]
        middle = (low + high) // 2
        left, right = self._build(low, middle), self._build(middle, high)
        difference = right / (high - middle) - left / (middle - low)
        slope = 2 * min(max(half_octaves(difference) + 22, 0), 31)
        self.slopes[middle] = slope + (difference < 0)
        return left + right


def sum_in_order(values: Floats) -> float:
    total = 0.0
    for value in values.tolist():
        total += value
    return total


class Lane:
    def __init__(self, coder: RangeDecoder) -> None:
        self.coder = coder
        self.fast = self.slow = np.float32(1)
        self.numbers: list[int] = []


class Paths:
    """Codec 2 of one chunk."""

    def __init__(self, tree: Kd, levels: int, own_after: int) -> None:
        self.tree, self.levels, self.own_after = tree, levels, own_after
        self.shared: dict[Any, AdaptiveBit] = defaultdict(lambda: AdaptiveBit(1023))
        self.own: dict[int, AdaptiveBit] = defaultdict(lambda: AdaptiveBit(255))

    def decode(self, chunk: bytes, blocks: int) -> list[int]:
        count = 4 if blocks >= 16384 else 1
        lanes = [Lane(RangeDecoder(part)) for part in split_chunks(chunk, count, 4)]
        for _ in range(blocks // count):
            self.together(lanes)
        for _ in range(blocks % count):
            self.together(lanes[-1:])
        for lane in lanes:
            lane.coder.finish()
        return [number for lane in lanes for number in lane.numbers]

    def together(self, lanes: list[Lane]) -> None:
        ends = [[0, len(self.tree.slopes)] for _ in lanes]
        half = np.float32(0.5)
        contexts = [
            min(max(half_octaves(float((lane.fast + lane.slow) * half)) + 10, 0), 15)
            for lane in lanes
        ]
        for level in range(self.levels):
            for lane, end, context in zip(lanes, ends, contexts, strict=True):
                if end[1] - end[0] > 1:
                    self.step(lane, end, level, context)
        for lane, (low, high) in zip(lanes, ends, strict=True):
            number = low + lane.coder.below(high - low)
            energy = np.float32(self.tree.energy[self.tree.places[number]])
            seen = len(lane.numbers)
            lane.fast += (energy - lane.fast) * (np.float32(1) / np.float32(min(seen, 14) + 2))
            lane.slow += (energy - lane.slow) * (np.float32(1) / np.float32(min(seen, 62) + 2))
            lane.numbers.append(number)

    def step(self, lane: Lane, end: list[int], level: int, context: int) -> None:
        middle = (end[0] + end[1]) // 2
        shared = self.shared[level, self.tree.slopes[middle], context]
        probability = shared.probability
        own = self.own[middle]
        if self.own_after and own.seen >= self.own_after:
            probability = own.probability
        bit = lane.coder.bit(probability)
        shared.update(bit)
        own.update(bit)
        end[1 - bit] = middle
