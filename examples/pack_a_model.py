"""Packs a small model, verifies the archive and loads it again.

python examples/pack_a_model.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import momos_rs


def main(folder: Path) -> None:
    """Writes model.pt, model.momos and restored.pt into a folder."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    torch.save(model.state_dict(), folder / "model.pt")

    report = momos_rs.pack_file(folder / "model.pt", folder / "model.momos", overwrite=True)
    print(f"{report.ratio:.1f}x smaller, relative error {report.relative_error:.4f}")

    checked = momos_rs.verify_file(folder / "model.momos", against=folder / "model.pt")
    print(f"{checked.tensors} tensors, {'as packed' if checked.matches else 'not this model'}")

    momos_rs.unpack_file(folder / "model.momos", folder / "restored.pt", overwrite=True)
    model.load_state_dict(torch.load(folder / "restored.pt", weights_only=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
