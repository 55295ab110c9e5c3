"""Sizes, free memory and budgets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from momos_rs.cli.sizes import memory_option
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime import budget
from momos_rs.runtime.budget import available_memory, default_budget, parse_size
from momos_rs.runtime.stopwatch import peak_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1500", 1500),
        ("4G", 4_000_000_000),
        ("512M", 512_000_000),
        ("512 mb", 512_000_000),
        ("1.5GiB", 1_610_612_736),
        ("2Ki", 2048),
        (" .5k ", 500),
        ("1T", 10**12),
        ("1e", None),
    ],
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(InvalidArgumentError):
            parse_size(text)
    else:
        assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "4 GG", "1iB", "four", "1.2.3", "nan", "inf", "0"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_of_what_is_free_is_the_budget() -> None:
    assert available_memory() > 2**20
    assert 0.4 < default_budget() / available_memory() < 0.6


def _system(root: Path, available: int, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, cgroups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99999 kB\nMemAvailable:   {available} kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text)
    return proc, cgroups


def test_without_a_limit_the_kernel_tells(tmp_path: Path) -> None:
    files = {"a/memory.max": "max\n", "a/memory.current": "4096\n"}
    assert budget._available_on_linux(*_system(tmp_path, 1000, "0::/a\n", files)) == 1_024_000


def test_a_limit_of_the_group_or_of_one_above_counts(tmp_path: Path) -> None:
    files = {
        "memory.stat": "anon 1\n",
        "a/memory.max": "500000\n",
        "a/memory.current": "400000\n",
        "a/memory.stat": "anon 1\ninactive_file 100000\nactive_file 50000\n",
        "a/b/memory.max": "900000\n",
        "a/b/memory.current": "1000\n",
    }
    assert budget._available_on_linux(*_system(tmp_path, 1000, "0::/a/b\n", files)) == 250_000


def test_the_first_generation_of_groups(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "500000\n",
        "memory/memory.usage_in_bytes": "400000\n",
        "memory/memory.stat": "total_inactive_file 1000\n",
    }
    groups = "3:cpu,cpuacct:/x\n2:memory:/path/on/the/host\n0::/\n"
    assert budget._available_on_linux(*_system(tmp_path, 1000, groups, files)) == 101_000


def test_a_kernel_that_does_not_say(tmp_path: Path) -> None:
    assert budget._available_on_linux(tmp_path, tmp_path) is None


def test_the_option_of_commands() -> None:
    @click.command()
    @memory_option
    def command(memory: int | None) -> None:
        click.echo(repr(memory))

    run = CliRunner().invoke
    assert run(command, []).output == "None\n"
    assert run(command, ["--memory", "1.5G"]).output == "1500000000\n"
    refused = run(command, ["--memory", "lots"])
    assert refused.exit_code == 2
    assert "'lots' is not a size like" in refused.output


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the parent may be in it")
def test_the_peak_of_a_process_is_its_own() -> None:
    ballast = np.ones(40_000_000)
    program = "from momos_rs.runtime.stopwatch import peak_memory; print(peak_memory())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    peak = peak_memory()
    assert peak is not None
    assert int(result.stdout) < ballast.nbytes < peak
