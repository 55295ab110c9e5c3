"""What a measurement reports."""

from __future__ import annotations

from dataclasses import dataclass

from momos_rs.records import Record

from .compression import Compression
from .weights import LeftOut

__all__ = [
    "BaselineComparison",
    "BlockComplexity",
    "ComplexityReport",
    "MosaicBound",
    "QubdComplexity",
    "Ratio",
    "TensorComplexity",
    "TensorRatios",
]


@dataclass(frozen=True)
class BlockComplexity(Record):
    """Complexity of a binary object, from the counts of its blocks.

    Attributes:
        bits: Bits of the object, those that fill no block included.
        blocks: Whole blocks, all counted.
        distinct: Distinct blocks among them.
        possible: Distinct blocks there are: 4,096 of 12 bits, 65,536 of 4x4.
        bdm: Block Decomposition Method, in bits: sum of CTM + log2(count) over distinct blocks.
        entropy: Block entropy in bits per block, the plug-in estimate.
        entropy_corrected: The same with the bias correction of Miller and Madow.
        saturation: ``distinct / possible``. At 1 every block has been seen, and more weights move
            only the logarithms of counts.
        random_bdm: Expected BDM of as many blocks of fair coin flips.
        random_ratio: ``bdm / random_bdm``; about 1 for random bits, and 1 without blocks.
        randomness_z: Standard score of the G-test of the counts against coin flips, within a few
            of 0 for random bits; None below 5 blocks for each possible one, where the test says
            nothing.
    """

    bits: int
    blocks: int
    distinct: int
    possible: int
    bdm: float
    entropy: float
    entropy_corrected: float
    saturation: float
    random_bdm: float
    random_ratio: float
    randomness_z: float | None


@dataclass(frozen=True)
class QubdComplexity(Record):
    """Quantised bit-plane BDM: see :func:`momos_rs.qubd`.

    Attributes:
        bits: Bits per quantised weight.
        planes: BDM of each bit-plane summed over the tensors, least significant first.
        total: Their sum.
        measured: Tensors measured.
        skipped: Tensors with fewer than two dimensions, or fewer than 4 rows or columns.
    """

    bits: int
    planes: tuple[float, ...]
    total: float
    measured: int
    skipped: int


@dataclass(frozen=True)
class MosaicBound(Record):
    """The paper's bound on the complexity of a mosaic (Mosaic-of-Motifs, arXiv 2602.14896).

    Attributes:
        block_size: Values per block, s.
        capacity: Motifs per block, c.
        blocks: Number of blocks, m.
        motifs: Number of motifs, k.
        value_bits: Bits per value of a motif, q.
        bits: ``k * s * q + m * ceil(log2 k)``.
        ratio: The same over the bits of the weights.
    """

    block_size: int
    capacity: float
    blocks: int
    motifs: int
    value_bits: int
    bits: int
    ratio: float


@dataclass(frozen=True)
class TensorComplexity(Record):
    """Measures of one tensor; None where not measured.

    Attributes:
        name: Its key in the state dict.
        shape: Its shape.
        dtype: Its element type.
        n: Number of weights.
        sparsity: Share of weights that are zero.
        l2: Euclidean norm.
        signs: Signs (bits w > 0) in C order, in blocks of 12 from the tensor's first weight.
        bdm_2d: Signs as a matrix (rows, rest) in 4x4 blocks; None below 4 rows or columns.
        qubd: BDM of each quantised bit-plane, least significant first.
        bound: The mosaic bound of this tensor alone.
        compression: Ratios of the compressors; empty unless asked for per tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    n: int
    sparsity: float | None = None
    l2: float | None = None
    signs: BlockComplexity | None = None
    bdm_2d: BlockComplexity | None = None
    qubd: tuple[float, ...] | None = None
    bound: MosaicBound | None = None
    compression: tuple[Compression, ...] = ()


@dataclass(frozen=True)
class Ratio(Record):
    """One figure against its baseline.

    Attributes:
        figure: Its name: ``"bdm"``, ``"entropy"``, ``"bdm_2d"``, ``"qubd"``, ``"qubd[7]"`` (a
            plane), ``"gzip of weights"``, ...
        value: The figure.
        baseline: The same of the baseline, averaged over seeds.
        spread: Standard deviation of the baseline over seeds; 0 for a single one.
        ratio: ``value / baseline``.
    """

    figure: str
    value: float
    baseline: float
    spread: float
    ratio: float


@dataclass(frozen=True)
class TensorRatios(Record):
    """The figures of one tensor against those of the baseline's tensor.

    Attributes:
        name: Name of the tensor in both.
        ratios: One for each figure that both have.
    """

    name: str
    ratios: tuple[Ratio, ...]


@dataclass(frozen=True)
class BaselineComparison(Record):
    """A model against a baseline.

    Attributes:
        kind: ``"checkpoint"``, ``"gaussian"`` (as many weights of each tensor's mean and
            deviation) or ``"shuffled"`` (each tensor's weights permuted).
        source: The other checkpoint, or the kind.
        seeds: Random baselines that were averaged; 1 for a checkpoint.
        n: Number of weights of the baseline.
        ratios: One for each figure of the model.
        tensors: The same for each tensor that the baseline has too, of the same shape.
    """

    kind: str
    source: str
    seeds: int
    n: int
    ratios: tuple[Ratio, ...]
    tensors: tuple[TensorRatios, ...]

    def ratio(self, figure: str) -> Ratio | None:
        """The figure of that name, None if it was not measured."""
        return next((each for each in self.ratios if each.figure == figure), None)


@dataclass(frozen=True)
class ComplexityReport(Record):
    """Measures of a model; None where not measured.

    Attributes:
        source: What was measured.
        format: What kind of file it came from, ``"memory"`` if none.
        n: Number of trainable weights, ties counted once.
        nbytes: Their bytes.
        sparsity: Share of weights that are zero.
        l2: Euclidean norm of all weights.
        signs: Signs of all weights as one stream, tensor after tensor, in blocks of 12: the
            measure of the paper.
        bdm_2d: Signs of the tensors of at least 4 rows and columns in 4x4 blocks, all counted
            together.
        qubd: Quantised bit-plane BDM.
        bound: The mosaic bound of all weights.
        compression: Ratios of the compressors.
        tensors: Measures of each tensor, in order.
        left_out: Tensors that are no trainable parameters, or were skipped.
        baseline: The figures against those of a baseline, if one was asked for.
        notes: What to keep in mind with these figures.
        seconds: Seconds the measurement took once the source was open.
    """

    source: str
    format: str
    n: int
    nbytes: int
    sparsity: float | None
    l2: float | None
    signs: BlockComplexity | None
    bdm_2d: BlockComplexity | None
    qubd: QubdComplexity | None
    bound: MosaicBound | None
    compression: tuple[Compression, ...]
    tensors: tuple[TensorComplexity, ...]
    left_out: tuple[LeftOut, ...]
    baseline: BaselineComparison | None
    notes: tuple[str, ...]
    seconds: float

    def tensor(self, name: str) -> TensorComplexity:
        """The measures of one tensor.

        Raises:
            KeyError: If there is none of that name.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)
