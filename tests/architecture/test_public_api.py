"""The public face: every name is there, documented and typed; errors behave."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import momos_rs
from momos_rs import _core, errors


@pytest.mark.parametrize("name", momos_rs.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(momos_rs, name)
    if isinstance(value, str):
        return
    assert inspect.getdoc(value), name
    if inspect.isclass(value) and not issubclass(value, Exception):
        for member, attribute in vars(value).items():
            if not member.startswith("_") and callable(attribute):
                assert inspect.getdoc(attribute), f"{name}.{member}"


def test_every_function_of_the_extension_is_documented() -> None:
    for name, value in vars(_core).items():
        if not name.startswith("_"):
            assert inspect.getdoc(value), name


def test_lazy_names_are_the_listed_ones() -> None:
    assert set(momos_rs.__all__) <= set(dir(momos_rs))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = momos_rs.nothing


def test_the_package_is_typed() -> None:
    assert Path(momos_rs.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("name", [each for each in errors.__all__ if each != "Argument"])
def test_errors_survive_pickling_under_one_base(name: str) -> None:
    error = getattr(errors, name)("what happened")
    restored = pickle.loads(pickle.dumps(error))
    assert type(restored) is type(error)
    assert str(restored) == "what happened"
    assert isinstance(error, errors.MomosError)
    assert issubclass(errors.InvalidArgumentError, ValueError)
    assert issubclass(errors.InsufficientDataError, errors.CorruptionError)


def test_an_error_and_its_arguments_survive_pickling() -> None:
    error = errors.InvalidArgumentError("give ", errors.Argument("memory", "4G"))
    restored = pickle.loads(pickle.dumps(error))
    assert restored.parts == error.parts
    assert str(restored) == "give memory='4G'"


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, momos_rs; assert not {'torch', 'click', 'zstandard'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def heavy_calls() -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    blocks = rng.standard_normal((1 << 17, 16)).astype(np.float32)
    weights = np.frombuffer(rng.bytes(1 << 26), np.uint8)
    indices = rng.integers(0, 1000, 1 << 23).astype(np.uint32)
    code = _core.IndexCode([0] * 9 + [24, 976])
    stream = code.encode(indices)
    return {
        "nearest_motifs": lambda: _core.nearest_motifs(blocks, blocks[:2000], threads=1),
        "lloyd": lambda: _core.lloyd(blocks, blocks[:500], 3, threads=1),
        "gather_blocks": lambda: _core.gather_blocks([(weights, "F32")] * 4, 4, threads=1),
        "survey_tensor": lambda: _core.survey_tensor(weights, "BF16", threads=1),
        "split_planes": lambda: _core.split_planes(weights, 4, True),
        "encode": lambda: code.encode(indices, threads=1),
        "decode": lambda: code.decode(stream, len(indices), threads=1),
    }


@pytest.mark.parametrize("name", heavy_calls())
def test_heavy_calls_let_other_threads_run(name: str) -> None:
    call = heavy_calls()[name]
    call()
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks
    start = time.perf_counter()
    call()
    elapsed = time.perf_counter() - start
    during = ticks - before
    done.set()
    thread.join()
    # A call that held the interpreter would let the other thread in once or twice at most.
    assert during >= min(5, elapsed / 0.005), (during, elapsed)
