"""Several processes pack to the bytes of one, or fail together."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from momos_rs import checkpoint, packing
from momos_rs.errors import InvalidArgumentError
from momos_rs.packing.report import PackReport
from momos_rs.runtime.resources import BLOCKS_PER_BATCH, BlockPlan, Resources
from momos_rs.runtime.team import SOLO
from momos_rs.runtime.torch_team import TeamError, joined
from support.models import checkpoint_of

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "k-means": ("model", {"block_size": 1, "motifs": 200, "iterations": 3}),
    "blocks across tensors": ("model", {"block_size": 3, "capacity": 0.01, "effort": "best"}),
    "uniform start": ("model", {"init": "random", "motifs": 90, "iterations": 2}),
    "no refinement": ("one", {"motifs": 25, "iterations": 0, "force_zero": False}),
    "random": ("model", {"method": "random", "motifs": 99, "effort": "fast", "block_size": 2}),
    "fixed point": ("model", {"motif_dtype": "fixed", "motifs": 50, "iterations": 1}),
    "few tensors": ("one", {"motifs": 9}),
    "nothing to divide": ("model", {"exclude": ["*"]}),
    "double": ("double", {"motifs": 30, "iterations": 2}),
    "exact": ("exact", {"block_size": 2}),
    "lossless": ("exact", {"lossless": True}),
    "no mosaic": ("model", {"lossless": True}),
    "mini-batch": ("model", {"mini_batch": 900, "motifs": 20, "block_size": 1}),
    "one sharded out": ("model", {"exclude": ["first*", "odd*"], "motifs": 40}),
}


def write_models(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def heavy(*shape: int, kind: Any = np.float32) -> Any:
        return (rng.standard_t(4, size=shape) * 0.1).astype(kind)

    models = {
        "model": {
            "first.weight": heavy(300, 411),
            "first.bias": heavy(300),
            **{f"odd.{i}": heavy(5 + i, 31) for i in range(9)},
            "middle.weight": heavy(500, 203),
            "copy.weight": np.zeros((2, 2), np.float32),
            "last.weight": heavy(77, 801),
            "counter": np.arange(20_000),
        },
        "one": {"weight": heavy(40, 50), "bias": heavy(50)},
        "double": {"a": heavy(70, 80, kind=np.float64), "b": heavy(90, 11), "c": heavy(65, 3)},
        "exact": {
            f"{i}": heavy(60, 2)[np.random.default_rng(i % 2).integers(0, 60, 9000)]
            for i in range(4)
        },
    }
    models["model"]["copy.weight"] = models["model"]["last.weight"].copy()
    for name, arrays in models.items():
        checkpoint.write(folder / f"{name}.safetensors", checkpoint_of(arrays))


def pack_all(folder: Path, team: Any = SOLO) -> dict[str, PackReport]:
    return {
        name: packing.pack_file(
            folder / f"{model}.safetensors",
            folder / f"{name}.{team.size}.momos",
            team=team,
            **options,
        )
        for name, (model, options) in CASES.items()
    }


def comparable(report: PackReport) -> PackReport:
    return dataclasses.replace(report, archive=None, seconds={}, peak_memory=None)


def join_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def equal_one_process(rank: int, world: int, port: int, folder: Path) -> None:
    os.environ.update(join_environment(rank, world, port))
    torch.set_num_threads(1)
    # Batches of sums straddle the shares of the processes, which go through theirs in chunks.
    plan = BlockPlan(BLOCKS_PER_BATCH, keep=False, indices_in_memory=False)
    Resources.plan = lambda *_args, **_options: plan  # type: ignore[method-assign]
    with joined() as team:
        reports = pack_all(folder, team)
        alone = pack_all(folder) if rank == 0 else {}
        for name, report in alone.items():
            assert comparable(reports[name]) == comparable(report), name
            packed = (folder / f"{name}.{world}.momos").read_bytes()
            assert packed == (folder / f"{name}.1.momos").read_bytes(), name
        team.join([rank])


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_write_the_archive_of_one(world: int, tmp_path: Path) -> None:
    write_models(tmp_path)
    before = set(tmp_path.iterdir())
    mp.spawn(equal_one_process, args=(world, free_port(), tmp_path), nprocs=world)  # type: ignore[attr-defined]
    written = {tmp_path / f"{name}.{size}.momos" for name in CASES for size in (1, world)}
    assert set(tmp_path.iterdir()) == before | written


def fail(rank: int, world: int, port: int, folder: Path, how: str) -> None:
    """The last process fails while it encodes; the others must hear of it."""
    os.environ.update(join_environment(rank, world, port))
    torch.set_num_threads(1)
    victim = world - 1

    def broken(*_arguments: Any, **_options: Any) -> Any:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("no space left on the device of process 1")

    if rank == victim:
        from momos_rs.archive import writer

        writer.encode_stream = broken  # type: ignore[attr-defined]
        writer._encode_mosaic = broken
    outcome = "nothing was raised"
    try:
        with joined() as team:
            packing.pack_file(folder / "model.safetensors", team=team, motifs=50, iterations=1)
    except TeamError as error:
        outcome = f"{'told' if error.told else 'tells'}: {error}"
    except OSError as error:
        outcome = f"tells: {error}"
    (folder / f"outcome.{rank}").write_text(outcome)


@pytest.mark.parametrize("how", ["raises", "killed"])
def test_if_a_process_fails_all_do_and_nothing_is_left(how: str, tmp_path: Path) -> None:
    world = 2
    write_models(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    context = mp.get_context("spawn")
    port = free_port()
    processes = [
        context.Process(target=fail, args=(rank, world, port, tmp_path, how))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert not process.is_alive()
    outcomes = {path.name: path.read_text() for path in tmp_path.glob("outcome.*")}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == before | set(outcomes)
    if how == "killed":
        assert list(outcomes) == ["outcome.0"]
        assert outcomes["outcome.0"].startswith("tells: the run was stopped, or one of its")
    else:
        assert sorted(text.split(": ")[0] for text in outcomes.values()) == ["tells", "told"]
        assert all("no space left on the device" in text for text in outcomes.values())


def run_module(arguments: list[str], world: int) -> list[subprocess.CompletedProcess[str]]:
    """Runs ``python -m momos_rs pack`` as torchrun would."""
    port = free_port()
    source = str(Path(packing.__file__).parents[2])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "momos_rs", "pack", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **join_environment(rank, world, port), "PYTHONPATH": source},
        )
        for rank in range(world)
    ]  # fmt: skip
    results = []
    for each in running:
        out, err = each.communicate(timeout=120)
        results.append(subprocess.CompletedProcess(arguments, each.returncode, out, err))
    return results


def test_the_command_reports_once(tmp_path: Path) -> None:
    write_models(tmp_path)
    model, target = tmp_path / "one.safetensors", tmp_path / "one.momos"
    results = run_module([str(model), "-o", str(target), "-k", "9", "--memory", "200M"], 2)
    assert [result.returncode for result in results] == [0, 0], results
    assert "one.momos" in results[0].stdout
    assert (results[1].stdout, results[1].stderr) == ("", "")
    assert target.read_bytes() == packing.pack(checkpoint.read(model), motifs=9)

    again = run_module([str(model), "-o", str(target)], 2)
    assert [result.returncode for result in again] == [1, 1]
    said = [line for result in again for line in result.stderr.splitlines() if "momos" in line]
    assert len(said) == 1, said
    assert "exists; use --force" in said[0]


def test_the_command_line_is_refused_once(tmp_path: Path) -> None:
    results = run_module(["--no-such-option"], 2)
    assert [result.returncode for result in results] == [2, 2]
    assert "No such option" in results[0].stderr
    assert results[1].stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "grid"}, "method grid cannot be divided over processes"),
        ({"target_ratio": 9.0}, r"target_ratio=9\.0 cannot be searched for by several"),
        ({"sensitivity": {"weight": 1.0}}, "several processes cannot use a sensitivity"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    class Pair(type(SOLO)):  # type: ignore[misc]
        size = 2

    with pytest.raises(InvalidArgumentError, match=message):
        packing.pack_file(tmp_path / "model.pt", team=Pair(), **options)


def test_without_torchrun_there_is_a_team_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined() as team:
        assert team is SOLO
    monkeypatch.setenv("RANK", "0")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidArgumentError, match="nccl needs CUDA"), joined("nccl"):
            pass
