"""``momos verify``."""

from __future__ import annotations

from pathlib import Path

import click

from momos_rs.archive.verification import UNKNOWN_ERROR, VerifyReport, verify_file

from .console import (
    RELATIVE_ERROR,
    debug_option,
    echo,
    format_bytes,
    format_count,
    format_table,
    json_option,
    print_json,
    progress_bar,
    quiet_option,
)
from .sizes import memory_option, threads_option

__all__ = ["verify"]


@click.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Compare every tensor with this model's.",
)
@click.option("--allow-pickle", is_flag=True, help="Let MODEL run its own code while it loads.")
@click.option(
    "--max-bytes",
    type=click.IntRange(0),
    help="Most bytes of tensors to accept, for archives that expand by more than 1,024.",
)
@threads_option
@memory_option
@json_option
@quiet_option
@debug_option
def verify(
    archive: Path,
    against: Path | None,
    allow_pickle: bool,
    max_bytes: int | None,
    threads: int | None,
    memory: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check every digest of ARCHIVE and decode everything in it.

    With --against, exit with 1 unless MODEL has the same tensors, those of the mosaic up to its
    error.
    """
    with progress_bar(enabled=not (quiet or as_json)) as progress:
        report = verify_file(
            archive,
            against,
            allow_pickle=allow_pickle,
            max_bytes=max_bytes,
            threads=threads,
            memory=memory,
            progress=progress,
        )
    if as_json:
        print_json(report.to_dict())
    elif not quiet:
        echo(render(report))
    return 0 if report.matches else 1


def render(report: VerifyReport) -> str:
    """The report for people."""
    lines = [
        f"{report.archive}: whole: {format_count(report.tensors)} tensors, "
        f"{format_bytes(report.tensor_bytes)}, decoded in {report.seconds:.2f} s"
    ]
    counted = (f"{count} {what}" for what, count in report.codecs.items())
    lines.append(f"coded as: {'; '.join(counted)}")
    if report.against is not None:
        rows = []
        for each in report.comparison:
            if each.problem:
                verdict = each.problem
            elif each.exact:
                verdict = "exact"
            else:
                verdict = f"relative error {each.relative_error:.4g}"
            rows.append((each.name, verdict))
        lines.append(format_table(rows, header=("tensor", f"against {report.against}")))
        if any(each.relative_error for each in report.comparison):
            lines.append(RELATIVE_ERROR)
        exact = sum(each.exact for each in report.comparison)
        problems = sum(bool(each.problem) for each in report.comparison)
        if not report.errors_known:
            lines.append(
                "the archive does not say how far its tensors are from the model's (it was written "
                f"before format 1.1): relative errors up to {UNKNOWN_ERROR:g} pass"
            )
        lines.append(
            f"{exact} exact, {len(report.comparison) - exact - problems} within the mosaic's "
            f"error, {problems} wrong"
        )
    return "\n".join(lines)
