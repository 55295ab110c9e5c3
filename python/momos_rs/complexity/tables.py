"""Reports as rows: one for each model, or one for each tensor."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from .report import BlockComplexity, ComplexityReport, Ratio, TensorComplexity

__all__ = ["Row", "format_figure", "model_row", "tensor_rows", "to_csv"]

Row: TypeAlias = "dict[str, str | int | float | None]"


def model_row(report: ComplexityReport) -> Row:
    """The figures of a model by column name; only columns that were measured."""
    row: Row = {"model": report.source, "n": report.n}
    row |= _scalars(report)
    if report.qubd is not None:
        row["qubd"] = report.qubd.total
        row |= {f"qubd[{plane}]": value for plane, value in enumerate(report.qubd.planes)}
    row |= _rest(report)
    if report.baseline is not None:
        row |= _against(report.baseline.source, report.baseline.ratios)
    return row


def tensor_rows(report: ComplexityReport) -> list[Row]:
    """The figures of each tensor by column name, in order."""
    against = {}
    if report.baseline is not None:
        against = {each.name: each.ratios for each in report.baseline.tensors}
    rows = []
    for tensor in report.tensors:
        row: Row = {
            "model": report.source,
            "tensor": tensor.name,
            "type": tensor.dtype,
            "shape": "x".join(map(str, tensor.shape)) or "scalar",
            "n": tensor.n,
        }
        row |= _scalars(tensor)
        if report.qubd is not None:
            row["qubd"] = sum(tensor.qubd) if tensor.qubd is not None else None
            planes = tensor.qubd or (None,) * report.qubd.bits
            row |= {f"qubd[{plane}]": value for plane, value in enumerate(planes)}
        row |= _rest(tensor)
        if report.baseline is not None:
            found = {each.figure: each for each in against.get(tensor.name, ())}
            ratios = [found.get(each.figure, each) for each in report.baseline.ratios]
            known = _against(report.baseline.source, ratios)
            row |= {
                column: value if each.figure in found else None
                for each, (column, value) in zip(ratios, known.items(), strict=True)
            }
        rows.append(row)
    return rows


def _scalars(measured: ComplexityReport | TensorComplexity) -> Row:
    row: Row = {}
    if measured.sparsity is not None:
        row["sparsity"] = measured.sparsity
    if measured.l2 is not None:
        row["l2"] = measured.l2
    if measured.signs is not None:
        row |= _blocks("bdm", "entropy", measured.signs)
    if measured.bdm_2d is not None:
        row |= _blocks("bdm_2d", "entropy_2d", measured.bdm_2d)
    return row


def _blocks(bdm: str, entropy: str, blocks: BlockComplexity) -> Row:
    return {
        bdm: blocks.bdm,
        f"{bdm} / random": blocks.random_ratio,
        entropy: blocks.entropy,
        f"{entropy} corrected": blocks.entropy_corrected,
        f"{bdm} saturation": blocks.saturation,
    }


def _rest(measured: ComplexityReport | TensorComplexity) -> Row:
    row: Row = {f"{each.name} of {each.of}": each.ratio for each in measured.compression}
    if measured.bound is not None:
        row["bound bits"] = measured.bound.bits
        row["bound ratio"] = measured.bound.ratio
    return row


def _against(source: str, ratios: Iterable[Ratio]) -> Row:
    return {f"{each.figure} / {source}": each.ratio for each in ratios}


def to_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with a header; columns in the order of their first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def format_figure(column: str, value: float) -> str:
    """A figure for people: as many digits as its column needs to tell models apart."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if " / " in column or column.startswith(("over ", "entropy")):
        return f"{value:.5f}"
    return f"{value:.4g}"
