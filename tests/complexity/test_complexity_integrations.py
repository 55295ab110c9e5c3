"""The tracker inside trainers, where those are installed."""

import pytest
import torch


def dataset():
    torch.manual_seed(0)
    return torch.utils.data.TensorDataset(torch.randn(32, 16), torch.randn(32, 4))


def test_lightning(tmp_path):
    pl = pytest.importorskip("lightning.pytorch")
    from momos_rs.integrations.lightning_complexity import ComplexityCallback

    class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 4)

        def training_step(self, batch, _):
            inputs, targets = batch
            return torch.nn.functional.mse_loss(self.layer(inputs), targets)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = ComplexityCallback(measures=["bdm"])
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[callback],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(dataset(), 8))
    assert [entry.step for entry in callback.tracker.history] == [0, 1, 2, 3]
    assert trainer.callback_metrics["complexity/bdm"].item() == pytest.approx(
        callback.tracker.history[-1].figures["bdm"]
    )
    assert len(callback.state_dict()["history"]) == 4


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from momos_rs.integrations.transformers_complexity import ComplexityTrainerCallback

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 4)

        def forward(self, inputs, labels):
            found = self.layer(inputs)
            return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}

    rows = [{"inputs": inputs, "labels": labels} for inputs, labels in dataset()]
    callback = ComplexityTrainerCallback(measures=["bdm"], every=2)
    arguments = transformers.TrainingArguments(
        tmp_path / "out",
        num_train_epochs=4,
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(Model(), arguments, train_dataset=rows, callbacks=[callback])
    trainer.train()
    assert [entry.step for entry in callback.tracker.history] == [0, 8, 16]
    logged = [entry for entry in trainer.state.log_history if "complexity/bdm" in entry]
    assert [entry["step"] for entry in logged] == [0, 8, 16]
