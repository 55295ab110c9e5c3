"""One self-contained page of reports: tables that sort, pictures, nothing fetched."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from momos_rs.complexity.report import ComplexityReport
from momos_rs.complexity.tables import Row, format_figure, model_row, tensor_rows
from momos_rs.errors import MomosError

__all__ = ["render_page"]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --head: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
p, li { max-width: 70ch; overflow-wrap: anywhere; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th.text, td.text { text-align: left; }
tr + tr td { border-top: 1px solid var(--line); }
th { background: linear-gradient(var(--head), var(--head)), Canvas; font-weight: 600; }
th:first-child, td:first-child {
  position: sticky; left: 0; z-index: 1; border-right: 1px solid var(--line);
}
td:first-child { background: Canvas; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: 0; background: #fff; border-radius: 6px; flex: 1 1 20rem; max-width: 34rem; }
figure img { width: 100%; height: auto; display: block; }
small { display: block; opacity: .75; white-space: normal; }
dt { font-weight: 600; margin-top: .4rem; }
dd { margin: 0; }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }
details details { margin-left: 1rem; }
@media (max-width: 40rem) {
  body { padding: .75rem; font-size: 14px; }
  th, td { padding: .3rem .4rem; }
  td.text { max-width: 9rem; white-space: normal; overflow-wrap: break-word; }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.ariaSort === "ascending";
    heads.forEach(each => each.ariaSort = "none");
    head.ariaSort = descending ? "descending" : "ascending";
    const key = row => row.cells[column].dataset.value ?? row.cells[column].innerText;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)], [p, q] = [parseFloat(x), parseFloat(y)];
      // What was not measured stays last either way.
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(p) || isNaN(q) ? x.localeCompare(y, "en", {numeric: true}) : p - q;
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}
"""

EXPLANATIONS = {
    "n": "trainable weights",
    "sparsity": "share of weights that are zero",
    "l2": "Euclidean norm",
    "bdm": "BDM of the signs in blocks of 12, in bits",
    "bdm / random": "the same over that of fair coin flips",
    "bdm saturation": "share of the 4,096 blocks that occur",
    "entropy": "entropy of blocks of 12 signs, in bits",
    "entropy corrected": "the same, corrected for bias (Miller-Madow)",
    "bdm_2d": "BDM of the signs in 4x4 blocks, in bits",
    "bdm_2d / random": "the same over that of fair coin flips",
    "bdm_2d saturation": "share of the 65,536 squares that occur",
    "entropy_2d": "entropy of 4x4 blocks of signs, in bits",
    "entropy_2d corrected": "the same, corrected for bias (Miller-Madow)",
    "qubd": "BDM of the quantised bit-planes, summed, in bits",
    "bound bits": "the paper's bound on a mosaic of these weights",
    "bound ratio": "the same over the bits of the weights",
}

ALTERNATIVES = {
    "layers": "complexity of each layer; the table of tensors has the figures",
    "planes": "complexity of each bit-plane of the quantised weights",
    "ranking": "models ranked by complexity; the table of models has the figures",
    "time": "complexity in the course of training; the table of models has the figures",
}


def render_page(
    reports: Sequence[ComplexityReport],
    *,
    title: str = "Complexity of weights",
    over_time: bool = False,
    steps: Sequence[float] | None = None,
    unit: str = "step",
) -> str:
    """The page as HTML.

    Args:
        reports: The models, in order.
        title: Its heading.
        over_time: Whether the reports are of one model in the course of its training.
        steps: When each was; 0, 1, 2, ... by default.
        unit: What the steps count.
    """
    rows = [_without_planes(model_row(each)) for each in reports]
    parts = [f"<h1>{_text(title)}</h1>"]
    if len(reports) == 1:
        parts.append(_figures(reports[0], rows[0]))
    else:
        rows = [_ratios_first(row, report) for row, report in zip(rows, reports, strict=True)]
        parts += ["<h2>Models</h2>", _table(rows), _legend(rows)]
    parts += [_reference(report) for report in reports[:1] if report.baseline is not None]
    parts += _pictures(reports, over_time=over_time, steps=steps, unit=unit)
    if len(reports) == 1:
        parts += _model(reports[0], opened=True)
    else:
        parts.append("<h2>Each model</h2>")
        for report in reports:
            inner = "".join(_model(report, opened=False))
            parts.append(f"<details><summary>{_text(report.source)}</summary>{inner}</details>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without this a browser asks the server for an icon.
        '<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _figures(report: ComplexityReport, row: Row) -> str:
    """The figures of a single model, one below the other."""
    against = {}
    columns = ["figure", "value"]
    if report.baseline is not None:
        against = {each.figure: each.ratio for each in report.baseline.ratios}
        columns.append(f"over {report.baseline.source}")
    lines = []
    for name, value in row.items():
        if name == "model" or (report.baseline is not None and name.endswith(_over(report))):
            continue
        cells = [
            f'<td class="text">{_text(name)}<small>{_text(_meaning(name))}</small></td>',
            _cell(value, name),
        ]
        if report.baseline is not None:
            cells.append(_cell(against.get(name), columns[-1]))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    kinds = {"figure": ' class="text"'}
    table = _framed([_head(each, kinds.get(each, ""), each) for each in columns], lines)
    return f"<p>{_text(report.source)}</p>{table}"


def _ratios_first(row: Row, report: ComplexityReport) -> Row:
    """The row with its ratios to the baseline where they are seen first."""
    if report.baseline is None:
        return row
    front = {name: row[name] for name in row if name in ("model", "tensor", "n")}
    ratios = {name: value for name, value in row.items() if name.endswith(_over(report))}
    return front | ratios | row


def _reference(report: ComplexityReport) -> str:
    """What the ratios are to."""
    assert report.baseline is not None
    averaged = f", the mean of {report.baseline.seeds} seeds" if report.baseline.seeds > 1 else ""
    what = {
        "gaussian": "normal weights of each tensor's mean and deviation",
        "shuffled": "each tensor's weights in random order",
    }.get(report.baseline.kind, report.baseline.source)
    return f"<p>Ratios are to {_text(what)}{averaged}.</p>"


def _over(report: ComplexityReport) -> str:
    return "" if report.baseline is None else f" / {report.baseline.source}"


def _meaning(column: str) -> str:
    if column in EXPLANATIONS:
        return EXPLANATIONS[column]
    figure, separator, reference = column.partition(" / ")
    if separator:
        return f"{figure} over that of {reference}"
    return "bytes after compression over bytes before" if " of " in column else column


def _legend(rows: Sequence[Row]) -> str:
    columns = [
        column
        for column in dict.fromkeys(column for row in rows for column in row)
        # What ratios to a baseline are is said once, below.
        if column in EXPLANATIONS or (" / " not in column and column != "model")
    ]
    terms = "".join(f"<dt>{_text(each)}</dt><dd>{_text(_meaning(each))}</dd>" for each in columns)
    return f"<details><summary>What the columns mean</summary><dl>{terms}</dl></details>"


def _pictures(
    reports: Sequence[ComplexityReport],
    *,
    over_time: bool,
    steps: Sequence[float] | None,
    unit: str,
) -> list[str]:
    from .complexity import draw_pictures, pictures_for
    from .style import save

    drawn = []
    for picture in pictures_for(reports, over_time=over_time):
        try:
            figure = draw_pictures(
                reports, pictures=[picture], over_time=over_time, steps=steps, unit=unit
            )
        except MomosError as error:
            return [f"<p>No pictures: {_text(str(error))}</p>"]
        buffer = io.BytesIO()
        save(figure, buffer, "svg")
        data = base64.b64encode(buffer.getvalue()).decode()
        drawn.append(
            f'<figure><img alt="{_text(ALTERNATIVES[picture])}" '
            f'src="data:image/svg+xml;base64,{data}"></figure>'
        )
    return ["<h2>Pictures</h2>", f'<div class="pictures">{"".join(drawn)}</div>'] if drawn else []


def _model(report: ComplexityReport, *, opened: bool) -> list[str]:
    parts = ["<h2>In detail</h2>"] if opened else []
    mark = " open" if opened else ""
    if report.notes:
        notes = "".join(f"<li>{_text(note)}</li>" for note in report.notes)
        parts.append(f"<details{mark}><summary>Notes</summary><ul>{notes}</ul></details>")
    rows = [
        {name: value for name, value in _ratios_first(row, report).items() if name != "model"}
        for row in map(_without_planes, tensor_rows(report))
    ]
    mark = " open" if opened else ""
    parts.append(f"<details{mark}><summary>{len(rows)} tensors</summary>{_table(rows)}</details>")
    if report.left_out:
        listed = "".join(
            f"<li>{_text(each.name)}: {_text(each.reason)}</li>" for each in report.left_out
        )
        parts.append(
            f"<details><summary>{len(report.left_out)} tensors left out</summary>"
            f"<ul>{listed}</ul></details>"
        )
    return parts


def _without_planes(row: Row) -> Row:
    """The row without single bit-planes, which the picture shows."""
    return {name: value for name, value in row.items() if "[" not in name}


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    heads = [_head(column, _kind(rows, column), _meaning(column)) for column in columns]
    lines = [
        f"<tr>{''.join(_cell(row.get(column), column) for column in columns)}</tr>" for row in rows
    ]
    return _framed(heads, lines)


def _head(column: str, kind: str, meaning: str) -> str:
    figure, separator, reference = column.partition(" / ")
    # The folders of a baseline are in the explanation.
    shown = figure + separator + (reference.rpartition("/")[2] or reference)
    button = f'<button type="button">{_text(shown)}</button>'
    return f'<th scope="col"{kind} title="{_text(meaning)}">{button}</th>'


def _framed(heads: Sequence[str], lines: Sequence[str]) -> str:
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _kind(rows: Sequence[Row], column: str) -> str:
    return ' class="text"' if any(isinstance(row.get(column), str) for row in rows) else ""


def _cell(value: str | int | float | None, column: str) -> str:
    if value is None:
        return '<td data-value=""></td>'
    if isinstance(value, str):
        return f'<td class="text">{_text(value)}</td>'
    return f'<td data-value="{value!r}">{format_figure(column, value)}</td>'


def _text(value: str) -> str:
    return html.escape(value, quote=True)
