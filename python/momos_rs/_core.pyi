"""The Rust core. Private: what is public is re-exported by :mod:`momos_rs`.

Every heavy function releases the interpreter lock and can be interrupted. ``threads`` is the
number of threads (all cores by default), ``progress`` is called every 50 ms with the work done.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, final, overload

import numpy as np
import numpy.typing as npt

__version__: str

_Bytes = npt.NDArray[np.uint8]
_Indices = npt.NDArray[np.uint32]
_Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Progress = Callable[[int], object]

# ---- layout

class _Survey(TypedDict):
    first_non_finite: int | None
    sum_of_squares: float
    zeros: int

class _Difference(TypedDict):
    distortion: float
    sum_of_squares: float
    largest: float
    changed: int

def block_count(elements: int, block_size: int) -> int: ...
@overload
def gather_blocks(
    tensors: Sequence[tuple[_Bytes, str]],
    block_size: int,
    *,
    wide: Literal[False] = False,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> npt.NDArray[np.float32]: ...
@overload
def gather_blocks(
    tensors: Sequence[tuple[_Bytes, str]],
    block_size: int,
    *,
    wide: bool,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> _Floats: ...
def scatter_blocks(
    motifs: _Floats,
    indices: _Indices,
    elements: int,
    dtype: str,
    *,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> _Bytes: ...
def survey_tensor(
    tensor: _Bytes,
    dtype: str,
    *,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> _Survey: ...
def compare_tensors(
    original: _Bytes,
    other: _Bytes,
    dtype: str,
    *,
    before: _Difference | None = None,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> _Difference: ...

# ---- codec

def digest(data: _Bytes) -> str: ...
def canonical_order(
    table: _Bytes, block_size: int, dtype: str, counts: npt.NDArray[np.uint64]
) -> tuple[_Indices, list[int]]: ...
def sorted_order(
    table: _Bytes, block_size: int, dtype: str, counts: npt.NDArray[np.uint64]
) -> _Indices: ...
def encode_motifs(
    table: _Bytes, block_size: int, dtype: str, motifs: int, *, step: float | None = None
) -> _Bytes: ...
def decode_motifs(stream: _Bytes, block_size: int, dtype: str, motifs: int) -> _Bytes: ...
def regroup_motifs(table: _Bytes, block_size: int, dtype: str, motifs: int) -> _Bytes: ...
def restore_motifs(regrouped: _Bytes, block_size: int, dtype: str, motifs: int) -> _Bytes: ...
def encode_floats(data: _Bytes, size: int) -> tuple[_Bytes, _Bytes]: ...
def decode_floats(modelled: _Bytes, planes: _Bytes, elements: int, size: int) -> _Bytes: ...
def encode_fields(data: _Bytes, size: int, floating: bool) -> _Bytes: ...
def decode_fields(stream: _Bytes, size: int, out: _Bytes) -> None: ...
def split_planes(data: _Bytes, size: int, rotate: bool) -> _Bytes: ...
def join_planes(data: _Bytes, size: int, rotate: bool) -> _Bytes: ...
def trial_blocks(blocks: int) -> tuple[int, int]: ...

@final
class Digest:
    def __new__(cls) -> Digest: ...
    def update(self, data: _Bytes) -> None: ...
    def hexdigest(self) -> str: ...

@final
class RepeatSampler:
    def __new__(cls, blocks: int, block_size: int) -> RepeatSampler: ...
    def add(self, data: _Bytes, itemsize: int, *, threads: int | None = None) -> None: ...
    @property
    def repeats(self) -> tuple[int, int]: ...

@final
class IndexEncoder:
    @property
    def head(self) -> _Bytes: ...
    @property
    def fixed_head(self) -> _Bytes: ...
    @property
    def blocks_per_piece(self) -> int: ...
    def worst_case(self, blocks: int) -> int: ...
    def encode(
        self,
        indices: _Indices,
        *,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> tuple[_Bytes, _Indices]: ...
    def encode_fixed(self, indices: _Indices, *, threads: int | None = None) -> _Bytes: ...

@final
class IndexCode:
    def __new__(cls, length_counts: Sequence[int]) -> IndexCode: ...
    def encoder(self) -> IndexEncoder: ...
    @property
    def motifs(self) -> int: ...
    def encode(
        self,
        indices: _Indices,
        *,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> _Bytes: ...
    def blocks_per_chunk(self, stream: _Bytes) -> int: ...
    def decode(
        self,
        stream: _Bytes,
        blocks: int,
        *,
        part: tuple[int, int] | None = None,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> _Indices: ...
    def worst_case(self, blocks: int) -> int: ...

@final
class MotifTree:
    def __new__(cls, table: _Bytes, block_size: int, dtype: str) -> MotifTree: ...
    def encoder(
        self, trial: _Indices, *, row_blocks: int = 0, effort: str = "default"
    ) -> IndexEncoder: ...
    @property
    def motifs(self) -> int: ...
    @property
    def rows(self) -> _Indices: ...
    def encode(
        self,
        places: _Indices,
        *,
        row_blocks: int = 0,
        effort: str = "default",
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> _Bytes: ...
    def blocks_per_chunk(self, stream: _Bytes) -> int: ...
    def decode(
        self,
        stream: _Bytes,
        blocks: int,
        *,
        part: tuple[int, int] | None = None,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> _Indices: ...

# ---- complexity

_Counts = npt.NDArray[np.uint64]
_Complexities = npt.NDArray[np.float64]

@final
class SignCounter:
    def __new__(cls) -> SignCounter: ...
    def update(self, data: _Bytes, dtype: str, *, threads: int | None = None) -> None: ...
    def counts(self) -> _Counts: ...
    @property
    def bits(self) -> int: ...

def pack_signs(data: _Bytes, dtype: str) -> _Bytes: ...
def zero_non_finite(data: _Bytes, dtype: str) -> _Bytes: ...
def weight_statistics(
    data: _Bytes,
    dtype: str,
    *,
    before: tuple[int, int, int, int, float, float, float, float] | None = None,
    threads: int | None = None,
) -> tuple[int, int, int, int, float, float, float, float]: ...
def finite_range(
    data: _Bytes, dtype: str, *, threads: int | None = None
) -> tuple[float, float] | None: ...
def sign_plane_counts(
    data: _Bytes, dtype: str, columns: int, *, threads: int | None = None
) -> _Counts: ...
def level_plane_complexities(
    data: _Bytes,
    dtype: str,
    columns: int,
    bits: int,
    low: float,
    high: float,
    *,
    threads: int | None = None,
) -> list[float]: ...
def level_plane_counts(
    data: _Bytes,
    dtype: str,
    columns: int,
    bits: int,
    low: float,
    high: float,
    *,
    threads: int | None = None,
) -> list[_Counts]: ...

@final
class QuantileSearch:
    def __new__(cls, n: int, qs: Sequence[float]) -> QuantileSearch: ...
    def add(self, data: _Bytes, dtype: str, *, threads: int | None = None) -> None: ...
    def turn(self) -> None: ...
    def values(self) -> list[float]: ...

def bdm_of_counts(counts: _Counts, complexities: _Complexities) -> float: ...
def block_entropy(counts: _Counts) -> tuple[int, int, float, float]: ...
def ctm_strings(length: int) -> _Complexities: ...
def ctm_squares(width: int) -> _Complexities: ...

# ---- nearest

def nearest_motifs(
    blocks: _Floats,
    motifs: _Floats,
    *,
    kernel: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> _Indices: ...
def largest_block(
    blocks: _Floats, *, threads: int | None = None, progress: _Progress | None = None
) -> float: ...

@final
class MotifSearch:
    def __new__(
        cls,
        motifs: _Floats,
        *,
        blocks: int,
        largest: float,
        kernel: str | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> MotifSearch: ...
    @staticmethod
    def of_added(
        motifs: _Floats,
        first: int,
        *,
        blocks: int,
        largest: float,
        kernel: str | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> MotifSearch: ...
    @property
    def kernel(self) -> str: ...
    @property
    def isa(self) -> str: ...
    def nearest_with_added(
        self,
        blocks: _Floats,
        *,
        previous: _Indices | None = None,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> tuple[_Indices, npt.NDArray[np.float64]]: ...
    def distances(
        self, blocks: _Floats, indices: _Indices, *, threads: int | None = None
    ) -> npt.NDArray[np.float64]: ...
    def nearest(
        self,
        blocks: _Floats,
        *,
        previous: _Indices | None = None,
        moved: npt.NDArray[np.bool_] | None = None,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> _Indices: ...

@final
class Clusters:
    def __new__(cls, motifs: int, block_size: int, *, largest: float) -> Clusters: ...
    def add(
        self,
        blocks: _Floats,
        indices: _Indices,
        *,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> None: ...
    @property
    def rows(self) -> npt.NDArray[np.float64]: ...
    @rows.setter
    def rows(self, rows: npt.NDArray[np.float64]) -> None: ...
    def clear(self) -> None: ...
    def distortion(self, motifs: _Floats, *, threads: int | None = None) -> float: ...
    def move_motifs(
        self, motifs: _Floats, *, fixed: int = 0, threads: int | None = None
    ) -> tuple[_Floats, npt.NDArray[np.bool_], float]: ...

def search_plan(m: int, k: int, s: int) -> tuple[str, str]: ...
def select_blocks(
    m: int,
    k: int,
    seed: int,
    *,
    force_zero: bool = False,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> npt.NDArray[np.uint64]: ...
def lloyd(
    blocks: _Floats,
    motifs: _Floats,
    iterations: int,
    *,
    fixed_zero: bool = False,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> tuple[_Floats, _Indices, list[float]]: ...
def distinct_blocks(
    blocks: _Floats,
    limit: int,
    *,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> tuple[npt.NDArray[np.uint64], _Indices] | None: ...

@final
class WeightedDraw:
    def __new__(cls, wanted: int, seed: int, round: int) -> WeightedDraw: ...  # noqa: A002
    def add(
        self, first: int, weights: npt.NDArray[np.float64], *, threads: int | None = None
    ) -> None: ...
    @property
    def drawn(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint64]]: ...

@final
class DistinctBlocks:
    def __new__(cls, block_size: int, limit: int, *, wide: bool = False) -> DistinctBlocks: ...
    def add(
        self,
        blocks: _Floats,
        *,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> _Indices | None: ...
    @property
    def rows(self) -> _Floats: ...

@final
class CtmTable:
    @staticmethod
    def strings() -> CtmTable: ...
    @staticmethod
    def squares() -> CtmTable: ...
    @staticmethod
    def from_pickle(data: bytes, alphabet: int) -> CtmTable: ...
    def __contains__(self, key: int, /) -> bool: ...
    def complexity(self, width: int, digits: str) -> float | None: ...
    def missing(self, width: int) -> float: ...
    def known(self, width: int) -> int: ...
    def bdm_range(self, width: int, blocks: int) -> tuple[float, float]: ...

@final
class BlockTally:
    def blocks(self) -> list[tuple[int, int]]: ...
    def bdm(self, table: CtmTable) -> tuple[float, int, tuple[int, str] | None]: ...
    def entropy(self) -> float: ...
    def items(self) -> list[tuple[int, str, int]]: ...

def narrow_symbols(data: _Bytes, size: int, alphabet: int) -> _Bytes | None: ...
def count_blocks(
    values: _Bytes,
    shape: Sequence[int],
    alphabet: int,
    width: int,
    partition: Literal["ignore", "correlated", "recursive"],
    parameter: int,
    *,
    threads: int | None = None,
) -> BlockTally | None: ...
def greatest_entropy(distinct_by_width: Sequence[int]) -> float: ...

@final
class Perturbation:
    def __new__(
        cls,
        values: _Bytes,
        shape: Sequence[int],
        alphabet: int,
        width: int,
        partition: Literal["ignore", "correlated", "recursive"],
        parameter: int,
        table: CtmTable | None,
    ) -> Perturbation: ...
    def run(
        self, indices: npt.NDArray[np.int64], values: npt.NDArray[np.int64], keep: bool
    ) -> npt.NDArray[np.float64]: ...

def tiled_complexity(
    data: _Bytes,
    dtype: str,
    columns: int,
    bits: int,
    low: float,
    high: float,
    *,
    threads: int | None = None,
) -> float: ...
def quantiles(
    data: _Bytes, dtype: str, qs: Sequence[float], *, threads: int | None = None
) -> list[float]: ...

# ---- grid

@final
class GridGeometry:
    def __new__(
        cls,
        elements: int,
        columns: int,
        *,
        transposed: bool = False,
        within: bool = False,
        lags: Sequence[int] = ...,
        period: int = 1,
    ) -> GridGeometry: ...
    @property
    def columns(self) -> int: ...
    @property
    def transposed(self) -> bool: ...
    @property
    def lags(self) -> list[int]: ...

@final
class GridTensor:
    @property
    def step(self) -> float: ...
    @property
    def states(self) -> int: ...
    def encode(
        self, *, threads: int | None = None, progress: _Progress | None = None
    ) -> _Bytes: ...
    def to_bytes(self, dtype: str) -> _Bytes: ...

@final
class FeedbackFactors:
    def __new__(
        cls, moments: npt.NDArray[np.float64], count: int, *, threads: int | None = None
    ) -> FeedbackFactors: ...
    @property
    def groups(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def damping(self) -> float: ...
    @property
    def diagonal(self) -> bool: ...
    @property
    def importance(self) -> npt.NDArray[np.float64]: ...

def gain_of_own_steps(importance: npt.NDArray[np.float64]) -> float: ...
def quantise_to_grid(
    tensor: _Bytes,
    dtype: str,
    geometry: GridGeometry,
    step: float,
    *,
    states: int = 1,
    economy: float = 1.0,
    weights: npt.NDArray[np.float32] | None = None,
    rows: npt.NDArray[np.float64] | None = None,
    columns: npt.NDArray[np.float64] | None = None,
    factors: FeedbackFactors | None = None,
    own_steps: bool = True,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> GridTensor: ...
def estimate_grid(
    tensor: _Bytes,
    dtype: str,
    geometry: GridGeometry,
    step: float,
    *,
    threads: int | None = None,
) -> float: ...
def decode_grid(
    stream: _Bytes,
    elements: int,
    *,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> GridTensor: ...
def decode_grid_chunks(
    stream: _Bytes,
    elements: int,
    chunks: tuple[int, int],
    dtype: str,
    *,
    threads: int | None = None,
) -> _Bytes: ...
def grid_order(stream: _Bytes, elements: int) -> tuple[int, int, bool, int]: ...
