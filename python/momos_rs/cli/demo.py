"""``python -m momos_rs.cli.demo FOLDER``: the whole of momos on built-in data, in a minute.

Trains the paper's multilayer perceptron on scikit-learn's digits as a mosaic of motifs, packs it,
unpacks it, verifies it and measures its complexity, by the commands a user would type.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from .main import group

__all__ = ["main"]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--epochs", default=20, show_default=True, help="Epochs of training.")
def main(folder: Path, epochs: int) -> None:
    """Train, pack, unpack, verify and measure a small model in FOLDER, which is replaced."""
    from momos_rs.experiments import RunConfig, train

    shutil.rmtree(folder, ignore_errors=True)
    click.echo("Training an MLP of 4 hidden layers of 256 on digits, a projection per epoch\n")
    config = RunConfig(
        model="mlp", data="digits", method="momos", s=4, capacity=0.05, epochs=epochs
    )
    result = train(config, folder=folder, progress=_show)
    trained = folder / "final.pt"

    packed, unpacked = folder / "packed.momos", folder / "unpacked.pt"
    for command in (
        # The paper's setting: every trainable parameter is part of the mosaic.
        ["pack", str(trained), "-s", "4", "-c", "0.05", "--all-parameters", "-o", str(packed)],
        ["unpack", str(packed), "-o", str(unpacked)],
        ["verify", str(packed), "--against", str(trained)],
        ["complexity", str(folder / "init.pt")],
        ["complexity", str(packed)],
    ):
        click.echo(f"\n$ momos {' '.join(command)}\n")
        if group.main(args=command, prog_name="momos", standalone_mode=False):
            raise click.ClickException(f"momos {command[0]} failed")
    accuracy = result.summary["test_accuracy"]
    click.echo(f"\nTest accuracy {accuracy:.4f}. The files are in {folder.resolve()}:")
    for path in sorted(folder.iterdir()):
        click.echo(f"  {path.name:<16}{path.stat().st_size:>12,} bytes")


def _show(epoch: int, epochs: int, entry: dict[str, object]) -> None:
    click.echo(
        f"  epoch {epoch:>3}/{epochs}  "
        + "  ".join(
            f"{name.replace('_', ' ')} {value:.4f}"
            for name, value in entry.items()
            if name in ("train_loss", "val_accuracy", "distortion") and isinstance(value, float)
        )
    )


if __name__ == "__main__":
    main()
