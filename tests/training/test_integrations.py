"""Schedules, and training loops of every kind that end in a mosaic and can be resumed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from momos_rs.errors import InvalidArgumentError
from momos_rs.integrations import Projector, Schedule, geometric_capacity, linear_capacity
from momos_rs.projection import MoMos

S, K = 4, 5


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


def make_data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


def is_mosaic(model: nn.Module, k: int = K) -> bool:
    """Whether all whole blocks are among k values."""
    rows = [each.detach().flatten() for each in model.parameters()]
    blocks = torch.cat([row[: len(row) // S * S].view(-1, S) for row in rows])
    return len(torch.unique(blocks, dim=0)) <= k


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        (Schedule(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Schedule(every=3), [3, 6]),
        (Schedule(warmup=5), [6, 7, 8]),
        (Schedule(every=2, warmup=3), [5, 7]),
    ],
)
def test_schedules(schedule: Schedule, due: list[int]) -> None:
    assert [each for each in range(9) if schedule.due(each)] == due


@pytest.mark.parametrize("arguments", [{"every": 0}, {"warmup": -1}, {"unit": "minute"}])
def test_bad_schedules(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Schedule(**arguments)


def test_capacity_schedules() -> None:
    linear, geometric = linear_capacity(0.5, 0.1, over=4), geometric_capacity(0.8, 0.1, over=3)
    assert [round(linear(each), 6) for each in range(6)] == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    assert [round(geometric(each), 6) for each in range(5)] == [0.8, 0.4, 0.2, 0.1, 0.1]
    for start, end, over in ((0.0, 0.5, 1), (0.5, 1.5, 1), (0.5, 0.1, 0)):
        with pytest.raises(InvalidArgumentError, match="capacity schedule"):
            linear_capacity(start, end, over=over)


def train_by_hand(
    model: nn.Module, optimizer: torch.optim.Optimizer, projector: Projector,
    epochs: range, seen: list[Any],
) -> None:  # fmt: skip
    inputs, labels = make_data()
    for _ in epochs:
        for batch in range(0, 64, 16):
            loss = nn.functional.cross_entropy(
                model(inputs[batch : batch + 16]), labels[batch : batch + 16]
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            seen.append(projector.step())
        seen.append(projector.end_epoch())


@pytest.mark.parametrize(
    ("schedule", "projections"),
    [
        (Schedule(), 3),
        (Schedule(every=2), 2),  # epoch 2, and the guaranteed one after epoch 3
        (Schedule(warmup=10), 1),
        (Schedule(every=5, unit="step"), 3),  # steps 5 and 10, and after step 12
        (Schedule(every=4, unit="step"), 3),  # steps 4, 8, 12: none more needed
    ],
)
def test_hand_written_loops_end_in_a_mosaic(schedule: Schedule, projections: int) -> None:
    model = make_model()
    projector = Projector(model, MoMos(S, k=K), schedule)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen: list[Any] = []
    train_by_hand(model, optimizer, projector, range(3), seen)
    seen.append(projector.finish())
    assert sum(each is not None for each in seen) == projections
    assert is_mosaic(model)
    assert projector.finish() is None, "finishing twice changes nothing"


def test_weights_changed_by_others_are_projected_and_loaded_mosaics_stay() -> None:
    model = make_model()
    projector = Projector(model, MoMos(S, k=K))
    projector.end_epoch()
    mosaic = weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.linspace(0.5, 1, parameter.numel()).view(parameter.shape))
    assert not is_mosaic(model)
    assert projector.finish() is not None
    assert is_mosaic(model)
    model.load_state_dict(mosaic)
    assert projector.finish() is None
    assert equal(weights(model), mosaic)


def test_loops_that_tell_only_epochs() -> None:
    model = make_model()
    projector = Projector(model, MoMos(S, k=K), Schedule(every=2))
    assert projector.end_epoch() is None
    assert projector.end_epoch() is not None
    assert projector.finish() is None
    assert projector.end_epoch() is None
    assert projector.finish() is not None


def test_capacity_follows_its_schedule() -> None:
    model = make_model()
    schedule = Schedule(capacity=linear_capacity(1.0, 0.2, over=4))
    projector = Projector(model, MoMos(S, capacity=0.5), schedule)
    ks = []
    for _ in range(5):
        stats = projector.end_epoch()
        assert stats is not None
        ks.append(stats.k / stats.m)
    assert ks == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2], abs=0.03)


@pytest.mark.parametrize("method", ["random", "warm"])
def test_a_resumed_hand_written_loop_ends_alike(method: str) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer, Projector]:
        model = make_model()
        momos = MoMos(S, k=K, method=method)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, Projector(model, momos, Schedule(every=3, unit="step"))

    model, optimizer, projector = make()
    train_by_hand(model, optimizer, projector, range(4), [])
    projector.finish()

    part, part_optimizer, part_projector = make()
    train_by_hand(part, part_optimizer, part_projector, range(2), [])
    saved = copy.deepcopy(
        (part.state_dict(), part_optimizer.state_dict(), part_projector.state_dict())
    )
    rest, rest_optimizer, rest_projector = make()
    rest.load_state_dict(saved[0])
    rest_optimizer.load_state_dict(saved[1])
    rest_projector.load_state_dict(saved[2])
    train_by_hand(rest, rest_optimizer, rest_projector, range(2, 4), [])
    rest_projector.finish()
    assert equal(weights(model), weights(rest))


def lightning_parts(method: str = "random", **schedule: Any) -> tuple[Any, Any, Any]:
    """Lightning, a module and a callback."""
    pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from momos_rs.integrations.lightning import MoMosCallback

    class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()
            self.validated: list[bool] = []

        def training_step(self, batch: Any, _: int) -> Any:
            inputs, labels = batch
            return nn.functional.cross_entropy(self.model(inputs), labels)

        def validation_step(self, batch: Any, _: int) -> None:
            self.validated.append(is_mosaic(self.model))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

        def train_dataloader(self) -> Any:
            data = torch.utils.data.TensorDataset(*make_data())
            return torch.utils.data.DataLoader(data, batch_size=16)

        def val_dataloader(self) -> Any:
            return self.train_dataloader()

    momos = MoMos(S, k=K, method=method)  # type: ignore[arg-type]
    return pl, Module(), MoMosCallback(momos, Schedule(**schedule))


def lightning_trainer(pl: Any, folder: Path, callbacks: list[Any], **options: Any) -> Any:
    return pl.Trainer(
        default_root_dir=folder, callbacks=callbacks, logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def test_lightning_validates_and_saves_mosaics(tmp_path: Path) -> None:
    pl, module, callback = lightning_parts()
    trainer = lightning_trainer(pl, tmp_path, [callback], max_epochs=3)
    trainer.fit(module)
    assert module.validated == [True] * 12
    assert callback.momos.projections == 3
    assert is_mosaic(module)
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert equal(weights(module), saved)


@pytest.mark.parametrize("options", [{"max_epochs": 3}, {"max_steps": 7, "max_epochs": -1}])
def test_lightning_projects_after_the_last_step(options: dict[str, Any], tmp_path: Path) -> None:
    pl, module, callback = lightning_parts(every=5, unit="step", warmup=100)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    trainer = lightning_trainer(pl, tmp_path, [callback, checkpoint], **options)
    trainer.fit(module)
    assert callback.momos.projections == 1
    assert is_mosaic(module)
    assert callback.last is not None
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    if "max_steps" not in options:
        assert equal(weights(module), saved)


def test_lightning_counts_optimizer_steps_not_batches(tmp_path: Path) -> None:
    pl, module, callback = lightning_parts(every=2, unit="step")
    trainer = lightning_trainer(pl, tmp_path, [callback], max_epochs=2, accumulate_grad_batches=2)
    trainer.fit(module)
    assert callback.momos.projections == 2


@pytest.mark.parametrize("method", ["random", "warm"])
def test_lightning_resumes_the_same_run(method: str, tmp_path: Path) -> None:
    pl, whole, callback = lightning_parts(method, every=3, unit="step")
    lightning_trainer(pl, tmp_path / "whole", [callback], max_epochs=4).fit(whole)
    _, first, callback = lightning_parts(method, every=3, unit="step")
    part = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, every_n_epochs=1)
    stop_after = _StopAfter(2)
    trainer = lightning_trainer(
        pl, tmp_path / "part", [callback, part, stop_after.callback(pl)], max_epochs=4
    )
    with pytest.raises(KeyError, match="stopped"):
        trainer.fit(first)
    _, second, callback = lightning_parts(method, every=3, unit="step")
    lightning_trainer(pl, tmp_path / "rest", [callback], max_epochs=4).fit(
        second, ckpt_path=tmp_path / "last.ckpt", weights_only=False
    )
    assert equal(weights(whole), weights(second))


class _StopAfter:
    """Breaks a Lightning run at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def callback(self, pl: Any) -> Any:
        epoch = self.epoch

        class Stop(pl.Callback):  # type: ignore[misc]
            def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
                if trainer.current_epoch == epoch:
                    raise KeyError("stopped")

        return Stop()


def hugging_face_trainer(
    folder: Path, method: str, schedule: Schedule, **options: Any
) -> tuple[Any, Any, nn.Module]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from momos_rs.integrations.transformers import MoMosTrainerCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_model()

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.inner(inputs)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    inputs, labels = make_data()
    rows = [{"inputs": a, "labels": b} for a, b in zip(inputs, labels, strict=True)]
    callback = MoMosTrainerCallback(MoMos(S, k=K, method=method), schedule)  # type: ignore[arg-type]
    model = Model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=16, num_train_epochs=3,
        report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=0.01, seed=0,
        logging_strategy="no", **options,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=[callback]
    )
    return trainer, callback, model


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (Schedule(), [4, 8, 12]),
        (Schedule(every=5, unit="step"), [5, 10, 12]),
        (Schedule(warmup=9), [12]),
    ],
)
def test_hugging_face_trainer_ends_in_a_mosaic(
    schedule: Schedule, steps: list[int], tmp_path: Path
) -> None:
    trainer, callback, model = hugging_face_trainer(
        tmp_path, "random", schedule, save_strategy="epoch"
    )
    trainer.train()
    assert [each["step"] for each in callback.history] == steps
    assert is_mosaic(model)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "checkpoint-12" / "model.safetensors")
    assert equal(weights(model), saved), "the checkpoint of the last step is the mosaic"


@pytest.mark.parametrize("method", ["random", "warm"])
def test_hugging_face_trainer_resumes_the_same_run(method: str, tmp_path: Path) -> None:
    schedule = Schedule(every=3, unit="step")
    trainer, _, whole = hugging_face_trainer(
        tmp_path, method, schedule, save_strategy="steps", save_steps=5
    )
    trainer.train()
    trainer, callback, rest = hugging_face_trainer(tmp_path, method, schedule, save_strategy="no")
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert [each["step"] for each in callback.history] == [6, 9, 12]
    assert equal(weights(whole), weights(rest))


def test_hugging_face_trainer_resumes_a_checkpoint_made_without_the_callback(
    tmp_path: Path,
) -> None:
    trainer, _, _ = hugging_face_trainer(
        tmp_path, "random", Schedule(), save_strategy="steps", save_steps=5
    )
    trainer.train()
    (tmp_path / "checkpoint-5" / "momos.pt").unlink()
    trainer, callback, model = hugging_face_trainer(
        tmp_path, "random", Schedule(), save_strategy="no"
    )
    with pytest.warns(UserWarning, match=r"no momos\.pt"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert [each["step"] for each in callback.history] == [8, 12]
    assert is_mosaic(model)


def test_hugging_face_trainer_stopped_early_saves_a_mosaic(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
    trainer, callback, model = hugging_face_trainer(
        tmp_path, "random", Schedule(warmup=9), save_strategy="epoch"
    )

    class Stop(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 4

    trainer.callback_handler.callbacks.insert(0, Stop())
    trainer.train()
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert is_mosaic(model)
    assert equal(weights(model), saved)
    assert len(callback.history) == 1


def test_trials_of_a_search_start_afresh_and_keep_their_state(tmp_path: Path) -> None:
    trainer, callback, _ = hugging_face_trainer(tmp_path, "warm", Schedule(), save_strategy="epoch")
    trainer.args.output_dir = str(tmp_path / "run-0")
    trainer.train()
    first = callback.history
    state = torch.load(tmp_path / "run-0" / "checkpoint-4" / "momos.pt", weights_only=True)
    assert state["trained"] == {"step": 4, "epoch": 1}
    # The trainer writes into a folder of the trial, the arguments name the one above.
    again, other, _ = hugging_face_trainer(tmp_path, "warm", Schedule(), save_strategy="epoch")
    callback.momos.load_state_dict(other.momos.state_dict() | {"projections": 7})
    again.callback_handler.callbacks = [
        callback if each is other else each for each in again.callback_handler.callbacks
    ]
    again._get_output_dir = lambda trial: str(tmp_path / "run-1")
    again.train()
    assert [each["seed"] for each in callback.history] == [each["seed"] for each in first]
    assert (tmp_path / "run-1" / "checkpoint-4" / "momos.pt").is_file()


def aware_hugging_face_trainer(folder: Path, **options: Any) -> tuple[Any, Any, nn.Module]:
    trainer, old, model = hugging_face_trainer(folder, "random", Schedule(), **options)
    from momos_rs.integrations.transformers import MosaicAwareTrainerCallback

    trainer.remove_callback(old)
    callback = MosaicAwareTrainerCallback(MoMos(S, k=K), warmup=2)
    trainer.add_callback(callback)
    return trainer, callback, model


def test_hugging_face_trainer_trains_through_the_mosaic(tmp_path: Path) -> None:
    trainer, callback, whole = aware_hugging_face_trainer(
        tmp_path, save_strategy="steps", save_steps=5, gradient_accumulation_steps=1
    )
    trainer.train()
    assert is_mosaic(whole)
    assert callback.last is not None
    assert callback.last.distortion > 0
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    rows = torch.cat([saved["inner.0.weight"], saved["inner.2.weight"].view(-1, 16)[:, :6]])
    assert len(torch.unique(saved["inner.0.weight"].view(-1, S), dim=0)) <= K, rows.shape
    trainer, _, rest = aware_hugging_face_trainer(tmp_path, save_strategy="no")
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert equal(weights(whole), weights(rest))


def test_lightning_stopped_early_saves_a_mosaic(tmp_path: Path) -> None:
    pl, module, callback = lightning_parts(warmup=9)

    class Stop(pl.Callback):  # type: ignore[misc,name-defined]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = True

    trainer = lightning_trainer(pl, tmp_path, [callback, Stop()], max_epochs=3)
    trainer.fit(module)
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert is_mosaic(module)
    assert equal(weights(module), saved)


def test_lightning_ends_in_a_mosaic_after_weights_are_averaged(tmp_path: Path) -> None:
    for aware in (False, True):
        pl, module, callback = lightning_parts()
        if aware:
            from momos_rs.integrations.lightning import MosaicAwareCallback

            callback = MosaicAwareCallback(MoMos(S, k=K))
        averaging = pl.callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
        trainer = lightning_trainer(pl, tmp_path, [callback, averaging], max_epochs=4)
        trainer.fit(module)
        assert is_mosaic(module)


def test_lightning_leaves_a_mosaic_after_an_exception(tmp_path: Path) -> None:
    pl, module, callback = lightning_parts(warmup=9)
    stop = _StopAfter(1).callback(pl)
    with pytest.raises(KeyError, match="stopped"):
        lightning_trainer(pl, tmp_path, [callback, stop], max_epochs=3).fit(module)
    assert is_mosaic(module)


def test_lightning_resumes_a_checkpoint_made_without_the_callback(tmp_path: Path) -> None:
    pl, module, _ = lightning_parts()
    saving = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    lightning_trainer(pl, tmp_path, [saving], max_epochs=1).fit(module)
    _, rest, callback = lightning_parts()
    lightning_trainer(pl, tmp_path, [callback], max_epochs=3).fit(
        rest, ckpt_path=tmp_path / "last.ckpt", weights_only=False
    )
    assert callback.momos.projections == 2
    assert is_mosaic(rest)


def aware_lightning(pl: Any) -> Any:
    from momos_rs.integrations.lightning import MosaicAwareCallback

    assert pl is not None
    return MosaicAwareCallback(MoMos(S, k=K), every=2, warmup=3)


def test_lightning_trains_through_the_mosaic_and_resumes(tmp_path: Path) -> None:
    pl, whole, _ = lightning_parts()
    callback = aware_lightning(pl)
    lightning_trainer(pl, tmp_path / "whole", [callback], max_epochs=4).fit(whole)
    assert whole.validated == [True] * 16
    assert callback.last is not None
    assert is_mosaic(whole)
    _, first, _ = lightning_parts()
    saving = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, every_n_epochs=1)
    stop = _StopAfter(2).callback(pl)
    with pytest.raises(KeyError, match="stopped"):
        lightning_trainer(
            pl, tmp_path / "part", [aware_lightning(pl), saving, stop], max_epochs=4
        ).fit(first)
    _, second, _ = lightning_parts()
    lightning_trainer(pl, tmp_path / "rest", [aware_lightning(pl)], max_epochs=4).fit(
        second, ckpt_path=tmp_path / "last.ckpt", weights_only=False
    )
    assert equal(weights(whole), weights(second))
