"""``python -m momos_rs.cli.demo FOLDER``: the whole of momos on built-in data, in a minute or two.

Trains the paper's multilayer perceptron on scikit-learn's digits, once densely and once through a
mosaic of motifs with the same settings, packs the mosaic, unpacks it, verifies it and measures its
complexity, by the commands a user would type.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .main import group

__all__ = ["main"]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--epochs", default=30, show_default=True, help="Epochs of each training.")
def main(folder: Path, epochs: int) -> None:
    """Train, pack, unpack, verify and measure a small model in FOLDER, which is replaced."""
    from momos_rs.experiments import RunConfig, recipe, train

    shutil.rmtree(folder, ignore_errors=True)
    config = RunConfig(**{**recipe("quick"), "s": 4, "capacity": 0.05, "epochs": epochs})
    accuracies = {}
    for name, each in (("dense", replace(config, method="baseline")), ("mosaic", config)):
        click.echo(f"Training an MLP of 4 hidden layers of 256 on digits: {name}\n")
        result = train(each, folder=folder / name, progress=_show)
        accuracies[name] = 100 * result.summary["test_accuracy"]
        click.echo("")
    mosaic = folder / "mosaic"
    trained, packed, unpacked = mosaic / "final.pt", folder / "packed.momos", folder / "unpacked.pt"
    for command in (
        # The paper's setting: every trainable parameter is part of the mosaic.
        ["pack", str(trained), "-s", "4", "-c", "0.05", "--all-parameters", "-o", str(packed)],
        ["unpack", str(packed), "-o", str(unpacked)],
        ["verify", str(packed), "--against", str(trained)],
        ["complexity", str(mosaic / "init.pt")],
        ["complexity", str(packed)],
    ):
        click.echo(f"\n$ momos {' '.join(command)}\n")
        if group.main(args=command, prog_name="momos", standalone_mode=False):
            raise click.ClickException(f"momos {command[0]} failed")
    _show_outcome(accuracies, result.summary["float32_bytes"], packed)
    click.echo(f"\nThe files are in {folder.resolve()}.")


def _show(epoch: int, epochs: int, entry: dict[str, Any]) -> None:
    if epoch % 5 == 0 or epoch == epochs:
        click.echo(
            f"  epoch {epoch:>3}/{epochs}  train loss {entry['train_loss']:.4f}  "
            f"val accuracy {entry['val_accuracy']:.4f}"
        )


def _show_outcome(accuracies: dict[str, float], dense_bytes: int, packed: Path) -> None:
    size = packed.stat().st_size
    ratio = dense_bytes / size
    click.echo(f"\n{'':<8}{'test accuracy':>14}{'bytes':>12}")
    click.echo(f"{'dense':<8}{accuracies['dense']:>13.2f}%{dense_bytes:>12,}")
    click.echo(f"{'mosaic':<8}{accuracies['mosaic']:>13.2f}%{size:>12,}  ({ratio:.1f}x smaller)")


if __name__ == "__main__":
    main()
