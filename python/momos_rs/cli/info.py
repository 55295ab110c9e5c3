"""``momos info``."""

from __future__ import annotations

from pathlib import Path

import click

from momos_rs.archive import open_archive
from momos_rs.archive.description import ArchiveInfo, describe

from .console import (
    debug_option,
    echo,
    format_bytes,
    format_count,
    format_percent,
    format_table,
    json_option,
    print_json,
)

__all__ = ["info"]


_INDEX_CODINGS = {
    "prefix": "prefix code",
    "path": "adaptive paths in a tree of motifs",
    "grid": "coordinates (structured motifs)",
}


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@json_option
@debug_option
def info(archive: Path, as_json: bool) -> None:
    """Show what is in ARCHIVE, without decoding any tensor."""
    with open_archive(archive) as opened:
        description = describe(opened)
    if as_json:
        print_json(description.to_dict())
    else:
        echo(render(description))


def render(description: ArchiveInfo) -> str:
    """The description for people."""
    parts = [
        f"{description.archive}: format {description.version}, written by {description.writer}"
    ]
    summary = [
        ("tensors", format_count(len(description.tensors))),
        ("weights (n)", format_count(description.weights)),
        ("bytes of tensors", format_bytes(description.tensor_bytes)),
        ("bytes of archive", format_bytes(description.archive_bytes)),
        ("ratio", f"{description.ratio:.4g}"),
    ]
    mosaic = description.mosaic
    if mosaic is not None:
        summary += [
            ("blocks (m) of size (s)", f"{format_count(mosaic.blocks)} of {mosaic.block_size}"),
            ("motifs used, asked (k)", f"{mosaic.motifs_used:,}, {mosaic.motifs:,}"),
            ("type of motifs", mosaic.dtype),
            ("method", mosaic.method),
            ("exact", "yes" if mosaic.exact else "no"),
            ("indices coded by", _INDEX_CODINGS[mosaic.index]),
        ]
    parts.append(format_table(summary))
    parts.append(
        format_table(
            [
                (name, format_bytes(nbytes), format_percent(nbytes / description.archive_bytes))
                for name, nbytes in description.sections.items()
            ],
            header=("section", "bytes", "share"),
        )
    )
    if mosaic is not None and mosaic.code_lengths:
        parts.append(
            format_table(
                [
                    (f"{bits} bits", format_count(count), f"about 1 in {2**bits:,} blocks")
                    for bits, count in mosaic.code_lengths.items()
                ],
                header=("index code", "motifs", "each represents"),
            )
        )
    parts.append(
        format_table(
            [
                (
                    each.name,
                    each.dtype,
                    "x".join(map(str, each.shape)) or "scalar",
                    each.stored,
                    each.codec,
                    format_bytes(each.bytes),
                    f"{each.bits_per_weight:.3g}",
                )
                for each in description.tensors
            ],
            header=("tensor", "type", "shape", "stored", "codec", "bytes", "bits/weight"),
        )
    )
    return "\n\n".join(parts)
