"""Which models a list of paths stands for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from momos_rs.errors import InvalidArgumentError

__all__ = [
    "MODEL_SUFFIXES",
    "Times",
    "expand_models",
    "natural_order",
    "short_names",
    "times_of",
    "training_order",
]

MODEL_SUFFIXES = (".bin", ".ckpt", ".momos", ".pt", ".pth", ".safetensors", ".ts")
INDEX_SUFFIX = ".index.json"

COMPANIONS = frozenset(
    {"optimizer.bin", "optimizer.pt", "scaler.pt", "scheduler.bin", "scheduler.pt"}
    | {"training_args.bin"}
)
"""What trainers leave beside weights."""

RUN_LOG = "log.jsonl"
RUN_CHECKPOINTS = ("init.pt", "best.pt", "final.pt")
"""What a run of ``momos train`` leaves, in order; its other files hold the last weights again."""


def expand_models(paths: Sequence[Path]) -> list[Path]:
    """The models at these paths: files as they are, folders as the models in them.

    A folder with a ``*.index.json`` is one model, the folder of a run of ``momos train`` its
    initial, best and final weights; in other folders every file with the suffix of a checkpoint or
    archive is a model, and every folder within is looked into, in the order of training.

    Raises:
        FileNotFoundError: If a path does not exist.
        InvalidArgumentError: If a folder holds no model.
    """
    models = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not path.is_dir():
            models.append(path)
            continue
        found = _in_folder(path)
        if not found:
            raise InvalidArgumentError(
                f"{path} holds no model; its files end in none of {', '.join(MODEL_SUFFIXES)}"
            )
        models += found
    return models


def _in_folder(folder: Path) -> list[Path]:
    children = sorted(folder.iterdir(), key=training_order)
    if any(child.name.endswith(INDEX_SUFFIX) for child in children):
        return [folder]
    if (folder / RUN_LOG).is_file():
        return [path for name in RUN_CHECKPOINTS if (path := folder / name).is_file()]
    models = []
    for child in children:
        if child.is_dir():
            models += _in_folder(child)
        elif child.suffix in MODEL_SUFFIXES and not _is_companion(child.name):
            models.append(child)
    return models


def _is_companion(name: str) -> bool:
    return name in COMPANIONS or name.startswith("rng_state")


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """A key that sorts ``epoch-9`` before ``epoch-10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def training_order(path: Path) -> tuple[int, list[tuple[int, int | str]]]:
    """A key that sorts ``init`` before all checkpoints and ``last`` or ``final`` after them."""
    first = path.stem.lower()
    rank = 0 if first.startswith("init") else 2 if first in ("last", "final") else 1
    return rank, natural_order(path.name)


@dataclass(frozen=True)
class Times:
    """When the checkpoints of a training run were made.

    Attributes:
        steps: The number of each.
        unit: What is counted: ``"epoch"``, ``"step"``, ``"iteration"``, or the number of the
            checkpoint.
    """

    steps: tuple[float, ...]
    unit: str


UNITS = {"epoch": "epoch", "step": "step", "iter": "iteration"}


def times_of(paths: Sequence[Path]) -> Times | None:
    """When these checkpoints were made, by the numbers in their names or the log of their run.

    ``init`` counts as 0. None if the names do not tell, or are not in order.

    >>> times_of([Path("init.pt"), Path("epoch-3.pt"), Path("epoch-10.pt")])
    Times(steps=(0, 3, 10), unit='epoch')
    """
    return _logged_times(paths) or _named_times(paths)


def _named_times(paths: Sequence[Path]) -> Times | None:
    names = [str(Path(*Path(name).parts[-2:])) for name in short_names(paths)]
    found = [_last_number(name) for name in names]
    words = {_word_before(name) for name, step in zip(names, found, strict=True) if step}
    steps = tuple(each for each in found if each is not None)
    if len(steps) < len(paths) or any(a >= b for a, b in itertools.pairwise(steps)):
        return None
    counted = {unit for word, unit in UNITS.items() if any(word in each for each in words)}
    return Times(steps, counted.pop() if len(counted) == 1 else "number of the checkpoint")


def _word_before(name: str) -> str:
    """The letters before the last number, in lower case."""
    found = re.search(r"([a-z]*)[^a-z0-9]*\d+\D*$", str(Path(name).with_suffix("")).lower())
    return "" if found is None else found[1]


def _last_number(name: str) -> int | None:
    path = Path(name)
    if path.stem.lower().startswith("init"):
        return 0
    numbers = re.findall(r"\d+", str(path.with_suffix("")))
    return int(numbers[-1]) if numbers else None


def _logged_times(paths: Sequence[Path]) -> Times | None:
    """For the checkpoints of one run of ``momos train``: the epochs of its log."""
    folder = paths[0].parent
    if not (folder / RUN_LOG).is_file() or any(path.parent != folder for path in paths):
        return None
    from momos_rs.runtime.event_log import read_log

    events = read_log(folder / RUN_LOG)
    end = next((event for event in events if event["event"] == "end"), None)
    if end is None:
        return None
    last = max(event["epoch"] for event in events if event["event"] == "epoch")
    epochs = {"init": 0, "best": (end["best"] or {}).get("epoch"), "final": last, "last": last}
    steps = tuple(epochs[path.stem] for path in paths if epochs.get(path.stem) is not None)
    return Times(steps, "epoch") if len(steps) == len(paths) else None


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell paths apart: without what all of them have in common at the start."""
    if len(paths) == 1:
        return [str(paths[0])]
    parts = [path.parts for path in paths]
    common = 0
    while all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    return [str(Path(*each[common:])) for each in parts]
