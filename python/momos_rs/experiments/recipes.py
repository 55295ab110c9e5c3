"""Named settings of runs.

``paper-sgd`` and ``paper-adamw`` are the configurations of the reference implementation of
Mosaic-of-Motifs (arXiv 2602.14896): 200 epochs of 128 samples a step along a cosine, with motifs
drawn anew and a projection after every epoch. ``quick`` is what to try first.
"""

from __future__ import annotations

from typing import Any

from momos_rs.errors import InvalidArgumentError

__all__ = ["RECIPES", "recipe"]

_PAPER: dict[str, Any] = {
    "method": "momos",
    "selection": "random",
    "epochs": 200,
    "batch_size": 128,
    "lr_schedule": "cosine",
}

RECIPES: dict[str, dict[str, Any]] = {
    "paper-sgd": {**_PAPER, "optimizer": "sgd", "learning_rate": 0.1},
    "paper-adamw": {
        **_PAPER,
        "optimizer": "adamw",
        "learning_rate": 3e-4,
        "weight_decay": 0.01,
    },
    "quick": {"method": "mosaic-aware", "epochs": 20, "optimizer": "adam", "learning_rate": 3e-3},
}
"""Settings of :class:`RunConfig` by the name of the recipe."""


def recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe.

    Raises:
        InvalidArgumentError: If there is none of that name.
    """
    if name not in RECIPES:
        raise InvalidArgumentError(f"unknown recipe {name!r}; it is one of {', '.join(RECIPES)}")
    return dict(RECIPES[name])
