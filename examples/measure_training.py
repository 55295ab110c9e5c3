"""Trains a small classifier as a mosaic and watches its complexity fall.

python examples/measure_training.py
"""

from __future__ import annotations

import torch

import momos_rs


def main(epochs: int = 5) -> None:
    """Prints loss, distortion and BDM of the signs per epoch."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 32)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.ReLU(), torch.nn.Linear(128, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    momos = momos_rs.MoMos(s=4, capacity=0.05)
    tracker = momos_rs.ComplexityTracker(model, measures=("bdm",))
    for epoch in range(epochs):
        for batch in torch.randperm(512).split(64):
            loss = torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        stats = momos(model)
        entry = tracker.measure(epoch)
        print(
            f"epoch {epoch}: loss {loss.item():.3f}, distortion {stats.distortion:.3f}, "
            f"{stats.motifs_used} of {stats.k} motifs, BDM {entry.figures['bdm']:.0f} bits"
        )


if __name__ == "__main__":
    main()
