"""What commands share on screen: options, tables, numbers, progress."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from .progress import progress_bar

__all__ = [
    "RELATIVE_ERROR",
    "debug_option",
    "debugging",
    "echo",
    "fitting_columns",
    "fold",
    "format_bytes",
    "format_count",
    "format_percent",
    "format_table",
    "json_option",
    "print_json",
    "printable",
    "progress_bar",
    "quiet_option",
    "screen_width",
]

Function = TypeVar("Function", bound="Callable[..., Any]")

RELATIVE_ERROR = "relative error: ||w - w'||^2 / ||w||^2, of squared norms"
"""What the figure of that name is, to be printed below it."""

_debug = False


def debugging() -> bool:
    """Whether ``--debug`` was given."""
    return _debug


def _set_debug(_ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    global _debug
    _debug = value


def debug_option(function: Function) -> Function:
    """Adds ``--debug``."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_debug,
        help="Show a traceback when something fails.",
    )(function)


def json_option(function: Function) -> Function:
    """Adds ``--json``, passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(
        function
    )


def quiet_option(function: Function) -> Function:
    """Adds ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")(function)


def print_json(value: Any) -> None:
    """Prints a value as JSON; numbers that JSON does not have (NaN, infinities) as null."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False, ensure_ascii=False)
    # Half a surrogate pair cannot be written, but escaped as JSON does.
    click.echo(_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


_SURROGATE = re.compile("[\ud800-\udfff]")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def printable(text: str) -> str:
    """Text from a file as one line that no terminal takes for anything else: what does not show
    (control characters, half surrogate pairs, marks of direction) is escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def echo(text: str) -> None:
    """Prints lines of text, with what does not show escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))))


def format_count(value: float) -> str:
    """A number with separated thousands."""
    return f"{value:,.0f}"


def format_bytes(value: float) -> str:
    """A number of bytes in a unit that suits it (powers of 1,000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.4g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def format_percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.3g}%"


def format_table(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), indent: str = "  "
) -> str:
    """Rows as text: the first column to the left, the others to the right."""
    table = [[printable(cell) for cell in row] for row in ([header, *rows] if header else rows)]
    if not table:
        return ""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append((indent + "  ".join(cells)).rstrip())
    if header:
        lines.insert(1, indent + "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def screen_width() -> int | None:
    """Characters in a line of the terminal; None if what is printed goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitting_columns(
    rows: Sequence[Sequence[str]], width: int | None, *, first: Sequence[int] = (), indent: int = 2
) -> list[int]:
    """The columns of a table that a line has room for, in order; all without a width.

    Args:
        rows: The rows, the header among them.
        width: Characters in a line.
        first: Columns to keep rather than others, most important first; the first column is
            always kept, and the others follow from the left.
        indent: What :func:`format_table` puts before a row.
    """
    columns = range(len(rows[0]))
    if width is None:
        return list(columns)
    kept: list[int] = []
    room = width - indent
    for column in dict.fromkeys([0, *first, *columns]):
        needed = max(len(row[column]) for row in rows) + (2 if kept else 0)
        if needed > room and kept:
            if column in first:
                continue
            break
        kept.append(column)
        room -= needed
    return sorted(kept)


def fold(text: str, *, indent: str, width: int | None) -> str:
    """A paragraph in lines of that width, all but the first indented further."""
    if width is None:
        return indent + text
    return textwrap.fill(
        text,
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )
