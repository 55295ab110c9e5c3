"""The helper for training loops written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from momos_rs.errors import InvalidArgumentError

from .schedule import Schedule

if TYPE_CHECKING:
    from momos_rs.projection import MoMos, ProjectionStats

__all__ = ["Projector", "is_mosaic_of"]


class Projector:
    """Projects a model on schedule.

    Call :meth:`step` after every optimizer step, :meth:`end_epoch` after every epoch and
    :meth:`finish` after the last one; each returns the projection's figures, or None if there was
    none. Loops whose schedule counts epochs may leave out :meth:`step`.

    Args:
        model: The model.
        momos: What a projection is.
        schedule: When to project; after every epoch by default.

    Example:
        >>> projector = Projector(model, MoMos(s=4, capacity=0.05))  # doctest: +SKIP
        >>> for epoch in range(10):                                  # doctest: +SKIP
        ...     for batch in loader:
        ...         train(batch)
        ...         projector.step()
        ...     projector.end_epoch()
        >>> projector.finish()                                       # doctest: +SKIP
    """

    def __init__(self, model: nn.Module, momos: MoMos, schedule: Schedule | None = None) -> None:
        self.model = model
        self.momos = momos
        self.schedule = schedule or Schedule()
        self._trained = {"step": 0, "epoch": 0}
        self._changed = True
        self._versions: list[tuple[int, int]] = []
        self.last: ProjectionStats | None = None

    def step(self) -> ProjectionStats | None:
        """After an optimizer step."""
        return self._tick("step")

    def end_epoch(self) -> ProjectionStats | None:
        """After an epoch."""
        return self._tick("epoch")

    def finish(self) -> ProjectionStats | None:
        """After the last step: projects unless that just happened, so that the model is a mosaic.

        What others do to the weights after a projection, such as averaging them, is seen as well;
        a mosaic that was loaded in the meantime stays.

        Returns:
            The figures of this projection, or None if none was needed.
        """
        if not self._changed and self._versions != _versions_of(self.model):
            self._changed = self.last is None or not is_mosaic_of(
                self.model, self.momos, self.last.k
            )
        return self._project() if self._changed else None

    @property
    def trained(self) -> int:
        """Epochs or steps so far, whichever the schedule counts."""
        return self._trained[self.schedule.unit]

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: how far training is, and the state of the MoMos."""
        return {
            "trained": dict(self._trained),
            "changed": self._changed,
            "momos": self.momos.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where the projector that gave :meth:`state_dict` was."""
        self._trained = dict(state["trained"])
        self._changed = state["changed"]
        self._versions = _versions_of(self.model)
        self.momos.load_state_dict(state["momos"])

    def _tick(self, unit: str) -> ProjectionStats | None:
        self._trained[unit] += 1
        # A loop that does not tell its steps has made some by the end of an epoch.
        if unit == "step" or self._trained["step"] == 0:
            self._changed = True
        due = unit == self.schedule.unit and self.schedule.due(self._trained[unit])
        return self._project() if due and self._changed else None

    def _project(self) -> ProjectionStats:
        capacity = self.schedule.capacity
        if capacity is None:
            self.last = self.momos(self.model)
        else:
            self.last = self.momos(self.model, capacity=capacity(self.trained))
        self._changed = False
        self._versions = _versions_of(self.model)
        return self.last


def is_mosaic_of(model: nn.Module, momos: MoMos, k: int) -> bool:
    """Whether a model's weights are at most ``k`` motifs; False if it is sharded.

    The padded last block of a parameter may look like a motif of its own.
    """
    from momos_rs.nn import find_mosaic

    try:
        found = find_mosaic(model, momos.s, include=momos.include, exclude=momos.exclude)
    except InvalidArgumentError:
        return False
    return found.k <= k + len(found.spans)


def _versions_of(model: nn.Module) -> list[tuple[int, int]]:
    """What changes when anybody writes to the parameters."""
    return [(id(each), each._version) for each in model.parameters()]
