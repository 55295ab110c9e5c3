"""What several test files share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import HealthCheck, settings

# Speed says nothing about correctness: a busy machine must not fail a test.
settings.register_profile(
    "momos", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("momos")

Compare = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]


def pytest_configure() -> None:
    """Lets Ctrl-C through again: what runs in the background of a shell is told to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _bits(tensor: torch.Tensor) -> bytes:
    dense = tensor.detach().cpu().contiguous()
    return bytes(dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy())


@pytest.fixture(scope="session")
def assert_identical() -> Compare:
    """Compares state dicts: keys and their order, shapes, types and every bit of the values."""

    def compare(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
        assert list(actual) == list(expected)
        for name, tensor in expected.items():
            assert actual[name].dtype == tensor.dtype, name
            assert actual[name].shape == tensor.shape, name
            assert _bits(actual[name]) == _bits(tensor), name

    return compare
