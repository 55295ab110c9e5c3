"""Training one model by a recipe, logged, checkpointed and resumable."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.integrations import Projector, Schedule
from momos_rs.projection import METHODS, ModelMosaic, MoMos, ProjectionStats, Span
from momos_rs.quantize.fake_quantize import attach_quantizers, remove_quantizers

from .checkpoints import RunFolder
from .config import RunConfig
from .data import Data, Split, batches, load_data
from .models import build_model
from .packing import pack_checkpoint

if TYPE_CHECKING:
    from momos_rs.nn import MosaicAware, MotifTable

__all__ = ["Progress", "RunResult", "evaluate", "train"]

Progress = Callable[[int, int, dict[str, Any]], None]
"""Called after every epoch with its number, their number and its log entry."""

_EVALUATION_BATCH = 1024


@dataclass(eq=False)
class RunResult:
    """A finished run.

    Attributes:
        config: Its settings.
        model: The trained model without parametrizations; a mosaic if the method projects.
        history: The log's entries, one per epoch.
        summary: The figures of the whole run: accuracies, distortion, sizes.
        mosaic: The mosaic the model is, None if the method does not project.
        initial: The weights before training, by name.
        folder: Where logs and checkpoints are, None if nothing was written.
    """

    config: RunConfig
    model: nn.Module
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    mosaic: ModelMosaic | None
    initial: dict[str, Tensor]
    folder: Path | None


def train(
    config: RunConfig,
    *,
    folder: Path | None = None,
    data: Data | None = None,
    data_folder: Path | None = None,
    download: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Trains a model.

    Equal settings give equal weights on equal hardware; a resumed run ends as the one that was not
    interrupted.

    Args:
        config: The recipe.
        folder: Where to write ``log.jsonl``, the checkpoints ``init.pt``, ``best.pt`` (the best
            validation accuracy of a mosaic), ``final.pt`` and ``last.pt`` (what resuming needs),
            and the archive ``final.momos``; None writes nothing.
        data: The task, if it is loaded already.
        data_folder: Where torchvision's data sets lie.
        download: Whether to download them.
        resume: Whether to go on from ``last.pt`` in the folder, if there is one. With more epochs
            than it was made with, the run is extended: what is left of the new number follows,
            along the learning rates of a run of that length.
        overwrite: Whether a run that is there may be replaced.
        progress: Told of every epoch.

    Raises:
        InvalidArgumentError: If a name is unknown, something is missing, or the folder holds a run
            with other settings.
        FileExistsError: If the folder holds a run and neither ``resume`` nor ``overwrite`` is set.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = _device(config.device)
    task = (data or load_data(config.data, data_folder, download=download)).to(device)
    files = None if folder is None else RunFolder(folder, resume=resume, overwrite=overwrite)
    run = _Run(config, task, device, files)
    state = None if files is None else files.load_last()
    if state is None:
        run.start()
    else:
        run.load(state)
    try:
        for epoch in range(run.epoch, config.total_epochs):
            if run.stopped and epoch < config.epochs:
                continue
            entry = run.train_epoch(epoch)
            if progress is not None:
                progress(epoch + 1, config.total_epochs, entry)
        return run.finish()
    finally:
        if files is not None:
            files.close()


@dataclass(eq=False)
class _Run:
    """A run under way."""

    config: RunConfig
    data: Data
    device: torch.device
    files: RunFolder | None
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    seconds: float = 0.0
    stopped: bool = False  # training has ended early

    def __post_init__(self) -> None:
        torch.manual_seed(self.config.seed)
        model = build_model(self.config.model, self.data.shape, self.data.classes)
        self.model = model.to(self.device)
        self.initial = _cpu_copy(self.model.state_dict())
        self.parameters = sum(each.numel() for each in self.model.parameters())
        if self.config.quantizes:
            attach_quantizers(self.model, self.config.q, exclude=self.config.exclude)
        self.optimizer = self._optimizer(self.model.parameters(), self.config.learning_rate)
        self.projector = Projector(
            self.model,
            self._momos(),
            Schedule(every=self.config.every, warmup=self.config.warmup_epochs),
        )
        self.aware = self._begin_aware() if self.config.aware else None
        self.mosaic: ModelMosaic | None = None
        self.table: MotifTable | None = None
        self.figures: dict[str, Any] = {}

    def _momos(self) -> MoMos:
        config = self.config
        if config.selection not in METHODS:
            raise InvalidArgumentError(
                f"unknown selection {config.selection!r}; it is one of {', '.join(METHODS)}"
            )
        return MoMos(
            config.s, config.k, config.capacity, config.q if config.quantizes else 32,
            config.force_zero, method=cast(Any, config.selection), seed=config.seed,
            include=config.include, exclude=config.exclude,
        )  # fmt: skip

    def _begin_aware(self) -> MosaicAware:
        from momos_rs.nn import mosaic_aware

        return mosaic_aware(
            self.model, self.projector.momos, self.optimizer,
            every=self.config.every, warmup=self.config.warmup_epochs * self._steps,
        )  # fmt: skip

    @property
    def _steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.data.train) // self.config.batch_size)

    def _optimizer(self, parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
        decay = self.config.weight_decay
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=decay)
        if self.config.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay)
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=decay)

    def start(self) -> None:
        """Writes what a run begins with."""
        if self.files is None:
            return
        self.files.begin(
            config=self.config.to_dict(), parameters=self.parameters, **self._measure()
        )
        self.files.save("init.pt", self._checkpoint(self.initial, epoch=0))

    @property
    def _tuning(self) -> bool:
        """Whether only motifs are trained by now."""
        return self.epoch >= self.config.epochs

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """One epoch with its projection, evaluation, log entry and checkpoints."""
        begin = time.perf_counter()
        self.epoch = epoch
        if epoch == self.config.epochs:
            self._begin_tuning()
        loss, accuracy = self._pass(epoch)
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "phase": "tune" if self._tuning else "train",
            "train_loss": loss,
            "train_accuracy": accuracy,
        }
        stats = self._make_mosaic(entry, last=epoch + 1 == self.config.epochs)
        entry["val_loss"], entry["val_accuracy"] = evaluate(
            self.model, self.data, self.data.validation
        )
        is_mosaic = stats is not None or self._tuning or not self.config.projects
        entry.update(self._measure())
        entry["seconds"] = time.perf_counter() - begin
        self.seconds += entry["seconds"]
        self.history.append(entry)
        self.epoch = epoch + 1
        if is_mosaic and (self.best is None or entry["val_accuracy"] > self.best["val_accuracy"]):
            self._keep_best(entry)
        self._stop_early()
        if self.files is not None:
            self.files.log.write("epoch", **entry)
            self.files.tensorboard.write(entry)
            self.files.save("last.pt", self._state())
            every = self.config.checkpoint_every
            if every is not None and self.epoch % every == 0:
                weights = _cpu_copy(self._plain_model().state_dict())
                name = f"epoch-{self.epoch:04}.pt"
                self.files.save(name, self._checkpoint(weights, epoch=self.epoch))
        return entry

    def _stop_early(self) -> None:
        """Ends training if its validation accuracy has not risen for long enough."""
        patience = self.config.patience
        if patience is None or self._tuning or self.stopped:
            return
        accuracies = [each["val_accuracy"] for each in self.history]
        since = len(accuracies) - 1 - accuracies.index(max(accuracies))
        if since >= patience:
            self.stopped = True
            if self.aware is None and self.config.projects:
                self._note(self.projector.finish())
            elif self.aware is not None and not self.aware.started:
                self._note(self.aware.begin())

    def _pass(self, epoch: int) -> tuple[float, float]:
        """Goes through the training samples once; mean loss and accuracy."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        steps = self._steps
        tuning = self._tuning
        base = self.config.tune_learning_rate if tuning else self.config.learning_rate
        first = epoch - self.config.epochs if tuning else epoch
        all_steps = steps * (self.config.tune_epochs if tuning else self.config.epochs)
        self.model.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        shuffled = batches(self.data, self.data.train, self.config.batch_size, generator=generator)
        for step, (inputs, labels) in enumerate(shuffled, start=first * steps):
            if self.config.lr_schedule == "cosine":
                for group in self.optimizer.param_groups:
                    group["lr"] = base * 0.5 * (1 + math.cos(math.pi * step / all_steps))
            logits = self.model(inputs)
            loss = nn.functional.cross_entropy(logits, labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            loss_sum += loss.detach() * len(labels)
            correct += (logits.argmax(dim=1) == labels).sum()
            if not tuning:
                self.projector.step()
        samples = len(self.data.train)
        return float(loss_sum) / samples, float(correct) / samples

    def _make_mosaic(self, entry: dict[str, Any], *, last: bool) -> ProjectionStats | None:
        """Projects if it is time to, or takes stock of the mosaic, and notes what that did."""
        if not self.config.projects or self._tuning:
            return None
        if self.aware is not None:
            stats = self.aware.begin() if last or self.aware.started else None
        else:
            stats = self._project(entry, last=last)
        self._note(stats)
        if stats is not None:
            entry.update(
                distortion=stats.distortion,
                num_changed_weights=stats.num_changed_weights,
                k=stats.k, m=stats.m, s=stats.s,
                motifs_used=stats.motifs_used,
                projection_seconds=stats.seconds,
            )  # fmt: skip
        return stats

    def _project(self, entry: dict[str, Any], *, last: bool) -> ProjectionStats | None:
        due = self.projector.schedule.due(self.projector.trained + 1)
        if due or last:
            entry["val_loss_before"], entry["val_accuracy_before"] = evaluate(
                self.model, self.data, self.data.validation
            )
        stats = self.projector.end_epoch()
        return (self.projector.finish() or stats) if last else stats

    def _note(self, stats: ProjectionStats | None) -> None:
        if stats is not None:
            self.mosaic, self.figures = stats.mosaic, stats.to_dict()

    def _begin_tuning(self) -> None:
        """Makes the motifs of the last projection the trainable parameters."""
        from momos_rs.nn import mosaic_parametrize

        if self.mosaic is None:
            raise InvalidArgumentError("motif fine-tuning needs a projection before it")
        if self.aware is not None:
            self.aware.detach()
            self.aware = None
        self.table = mosaic_parametrize(self.model, self.mosaic)
        trained = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = self._optimizer(trained, self.config.tune_learning_rate)

    def _plain_model(self) -> nn.Module:
        """A copy of the model without parametrizations."""
        plain = copy.deepcopy(self.model)
        if self.table is not None:
            from momos_rs.nn import materialize

            materialize(plain)
        if self.config.quantizes:
            remove_quantizers(plain)
        return plain

    def _measure(self) -> dict[str, Any]:
        if not self.config.measures:
            return {}
        from .measures import measure

        return {"complexity": measure(self._plain_model(), self.config.measures)}

    def _keep_best(self, entry: dict[str, Any]) -> None:
        weights = _cpu_copy(self._plain_model().state_dict())
        self.best = {"epoch": entry["epoch"], "val_accuracy": entry["val_accuracy"]}
        self.best_weights = weights
        if self.files is not None:
            self.files.save("best.pt", self._checkpoint(weights, epoch=entry["epoch"]))

    def _checkpoint(self, weights: dict[str, Tensor], *, epoch: int) -> dict[str, Any]:
        return {"model": weights, "epoch": epoch, "config": self.config.to_dict()}

    def _state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "initial": self.initial,
            "tuning": self.table is not None,
            "mosaic": None if self.mosaic is None else _mosaic_to_dict(self.mosaic),
            "figures": self.figures,
            "optimizer": self.optimizer.state_dict(),
            "projector": self.projector.state_dict(),
            "aware": None if self.aware is None else self.aware.state_dict(),
            "stopped": self.stopped,
            "random": torch.get_rng_state(),
            "epoch": self.epoch,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "log_bytes": 0 if self.files is None else self.files.log.nbytes,
            "config": self.config.to_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes up where :meth:`_state` was taken."""
        before = RunConfig.from_dict(state["config"])
        extended = self.config.extends(before)
        if before != self.config and not extended:
            raise InvalidArgumentError(
                "the folder holds a run with other settings; choose another folder or --force"
            )
        self.stopped = state.get("stopped", False) and not extended
        self.initial, self.epoch, self.history = state["initial"], state["epoch"], state["history"]
        self.best, self.seconds = state["best"], state["seconds"]
        self.figures = state["figures"]
        self.mosaic = None
        if state["mosaic"] is not None:
            self.mosaic = _mosaic_from_dict(state["mosaic"], self.device)
        if state["tuning"]:
            self._begin_tuning()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.projector.load_state_dict(state["projector"])
        if self.aware is not None:
            self.aware.load_state_dict(state["aware"])
        torch.set_rng_state(state["random"])
        if self.files is not None:
            self.files.reopen(state["log_bytes"], self.epoch)
            if extended:
                self.files.log.write("extend", config=self.config.to_dict())

    def finish(self) -> RunResult:
        """The final figures and files."""
        plain = self._plain_model()
        mosaic = self.mosaic
        if mosaic is not None and self.table is not None:
            mosaic = replace(mosaic, motifs=self.table.motifs.detach().clone())
        _, validation = evaluate(self.model, self.data, self.data.validation)
        _, test_accuracy = evaluate(self.model, self.data, self.data.test)
        summary: dict[str, Any] = {
            "parameters": self.parameters,
            "float32_bytes": 4 * self.parameters,
            "test_accuracy": test_accuracy,
            "val_accuracy": validation,
            "best": self.best,
            "seconds": self.seconds,
        }
        if self.figures:
            summary.update(
                {name: self.figures[name] for name in ("distortion", "k", "m", "s", "motifs_used")},
                bound_bytes=-(-self.figures["bound_bits"] // 8),
                motif_counts=sorted(self.figures["motif_counts"], reverse=True),
            )
        if self.files is not None:
            weights = _cpu_copy(plain.state_dict())
            final = self.files.save("final.pt", self._checkpoint(weights, epoch=self.epoch))
            if mosaic is not None:
                report = pack_checkpoint(final, final.with_suffix(".momos"), mosaic)
                summary.update(archive_bytes=report.archive_bytes, lossless=report.lossless)
            self.files.log.write("end", **summary)
        if self.aware is not None:
            self.aware.detach()
        return RunResult(
            self.config, plain, self.history, summary, mosaic, self.initial,
            None if self.files is None else self.files.path,
        )  # fmt: skip


def evaluate(model: nn.Module, data: Data, split: Split) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of a model on a split, in evaluation mode."""
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    with torch.no_grad():
        for inputs, labels in batches(data, split, _EVALUATION_BATCH):
            logits = model(inputs)
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(dim=1) == labels).sum()
    model.train(was_training)
    return float(loss) / len(split), float(correct) / len(split)


def _cpu_copy(weights: dict[str, Any]) -> dict[str, Tensor]:
    return {name: each.detach().cpu().clone() for name, each in weights.items()}


def _mosaic_to_dict(mosaic: ModelMosaic) -> dict[str, Any]:
    return {
        "motifs": mosaic.motifs,
        "indices": mosaic.indices.to(torch.int32),
        "spans": [asdict(span) for span in mosaic.spans],
    }


def _mosaic_from_dict(state: dict[str, Any], device: torch.device) -> ModelMosaic:
    return ModelMosaic(
        state["motifs"].to(device),
        state["indices"].to(device=device, dtype=torch.int64),
        tuple(Span(**span) for span in state["spans"]),
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InvalidArgumentError(f"device {name!r} is not available here") from None
    return device
