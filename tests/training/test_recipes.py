"""Recipes and what runs can be told: schedules, early ends, extensions, kept checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from momos_rs.cli.main import group
from momos_rs.errors import InvalidArgumentError
from momos_rs.experiments import RECIPES, RunConfig, recipe, train
from momos_rs.experiments import trainer as trainer_module
from momos_rs.experiments.sweep import finished_summary
from momos_rs.nn import find_mosaic
from momos_rs.runtime.event_log import read_log
from training.test_experiments import QUICK, TASK, equal, weights


def test_the_papers_recipes() -> None:
    for name, optimizer, learning_rate in (
        ("paper-sgd", "sgd", 0.1), ("paper-adamw", "adamw", 3e-4),
    ):  # fmt: skip
        config = RunConfig(**recipe(name))
        assert (config.epochs, config.batch_size, config.lr_schedule) == (200, 128, "cosine")
        assert (config.optimizer, config.learning_rate) == (optimizer, learning_rate)
        assert (config.method, config.selection, config.force_zero) == ("momos", "random", True)
    with pytest.raises(InvalidArgumentError, match="unknown recipe 'magic'"):
        recipe("magic")


def rates_of(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[str, list[float]]:
    """The optimizer's type and the learning rate of every step."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimizer: Any = kind[settings.get("optimizer", "adam")]
    rates = []
    step = optimizer.step

    def noting(self: Any, *arguments: Any, **options: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(optimizer, "step", noting)
        train(replace(QUICK, epochs=2, **settings), data=TASK)
    return optimizer.__name__, rates


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_learning_rates(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cosine = rates_of(monkeypatch, optimizer=optimizer, learning_rate=0.02)
    assert cosine[0] == 0.02
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[len(cosine) // 2] == pytest.approx(0.01)
    _, constant = rates_of(
        monkeypatch, optimizer=optimizer, learning_rate=0.02, lr_schedule="constant"
    )
    assert constant == [0.02] * len(cosine)


def test_the_first_motif_need_not_be_zero() -> None:
    for method in ("momos", "mosaic-aware"):
        for force_zero in (True, False):
            options: Any = {"method": method, "force_zero": force_zero}
            mosaic = train(replace(QUICK, epochs=2, **options), data=TASK).mosaic
            assert mosaic is not None
            assert bool((mosaic.motifs[0] == 0).all()) == force_zero


@pytest.mark.parametrize("method", ["baseline", "momos", "mosaic-aware"])
def test_training_ends_when_validation_does_not_improve(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = trainer_module.evaluate
    monkeypatch.setattr(trainer_module, "evaluate", lambda *each: (evaluate(*each)[0], 0.5))
    options: Any = {"method": method, "every": 7 if method == "momos" else 1}
    config = replace(QUICK, epochs=20, patience=2, warmup=None, **options)
    result = train(config, data=TASK)
    assert [each["epoch"] for each in result.history] == [1, 2, 3]
    if config.projects:
        assert find_mosaic(result.model, 4).k <= result.summary["k"]
        tuned = train(replace(config, tune_epochs=1), data=TASK)
        assert [each["phase"] for each in tuned.history] == ["train"] * 3 + ["tune"]


@pytest.mark.parametrize("method", ["baseline", "momos", "mosaic-aware"])
def test_a_finished_run_can_be_extended(method: str, tmp_path: Path) -> None:
    options: Any = {"method": method, "lr_schedule": "constant", "warmup": 1}
    config = replace(QUICK, **options)
    whole = train(replace(config, epochs=5), data=TASK)
    train(config, folder=tmp_path, data=TASK)
    longer = replace(config, epochs=5)
    assert finished_summary(tmp_path, longer) is None
    extended = train(longer, folder=tmp_path, data=TASK, resume=True)
    assert equal(weights(whole), weights(extended))
    events = [each["event"] for each in read_log(tmp_path / "log.jsonl")]
    assert events == ["start", *["epoch"] * 3, "extend", *["epoch"] * 2, "end"]
    assert finished_summary(tmp_path, longer) is not None
    with pytest.raises(InvalidArgumentError, match="other settings"):
        train(replace(config, epochs=2), folder=tmp_path, data=TASK, resume=True)


def test_tuning_can_be_extended_and_appended(tmp_path: Path) -> None:
    train(QUICK, folder=tmp_path, data=TASK)
    for tune_epochs in (1, 3):
        config = replace(QUICK, tune_epochs=tune_epochs)
        result = train(config, folder=tmp_path, data=TASK, resume=True)
        assert len(result.history) == 3 + tune_epochs
        assert result.summary["lossless"] is True


def test_checkpoints_are_kept(tmp_path: Path) -> None:
    train(replace(QUICK, epochs=5, checkpoint_every=2), folder=tmp_path, data=TASK)
    kept = sorted(each.name for each in tmp_path.glob("epoch-*.pt"))
    assert kept == ["epoch-0002.pt", "epoch-0004.pt"]
    assert torch.load(tmp_path / kept[0], weights_only=True)["epoch"] == 2
    train(QUICK, folder=tmp_path, data=TASK, overwrite=True)
    assert not list(tmp_path.glob("epoch-*.pt"))


def test_mosaic_aware_runs_pack_without_loss(tmp_path: Path) -> None:
    options: Any = {"method": "mosaic-aware", "tune_epochs": 1}
    result = train(replace(QUICK, **options), folder=tmp_path, data=TASK)
    assert result.summary["lossless"] is True
    assert result.summary["archive_bytes"] < result.summary["float32_bytes"] / 5


def test_quantisation_leaves_what_is_excluded(tmp_path: Path) -> None:
    options: Any = {"method": "qat", "exclude": ("1.*",), "q": 3}
    run = trainer_module._Run(replace(QUICK, **options), TASK, torch.device("cpu"), None)
    names = [name for name, _ in run.model.named_parameters() if "parametrizations" in name]
    assert names
    assert not any(name.startswith("1.") for name in names)


def momos(*arguments: object) -> Any:
    return CliRunner().invoke(group, [str(each) for each in arguments])


def test_the_command_takes_recipes_and_several_seeds(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    common = ("train", "--threads", "1", "--epochs", "2")
    done = momos(*common, "--recipe", "paper-adamw", "-o", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    start = read_log(tmp_path / "run" / "log.jsonl")[0]
    assert start["config"]["optimizer"] == "adamw"
    assert start["config"]["batch_size"] == 128
    assert start["config"]["epochs"] == 2, "what is given goes before the recipe"
    seeds = momos(*common, "--method", "mosaic-aware", "--seed", "0,1", "-o", tmp_path / "seeds",
                  "--json")  # fmt: skip
    assert seeds.exit_code == 0, seeds.output
    (row,) = json.loads(seeds.output)
    assert (row["method"], row["runs"]) == ("mosaic-aware", 2)
    plain = momos(*common, "--method", "baseline", "--seed", "0,1", "-o", tmp_path / "plain")
    assert plain.exit_code == 0, plain.output
    assert plain.output.splitlines()[-1].split()[:2] == ["baseline", "-"]
    assert set(RECIPES) == {"paper-sgd", "paper-adamw", "quick"}
