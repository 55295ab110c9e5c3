"""Working ahead: order, bounds and failures."""

from __future__ import annotations

import threading
import time

import pytest

from momos_rs.runtime.ordered_map import LARGEST_AHEAD, MOST_BYTES_AHEAD, map_ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    sizes = [LARGEST_AHEAD + 1 if item % 7 == 3 else item for item in range(40)]
    results = list(map_ahead(work, range(40), sizes, threads=threads))
    assert results == [item * item for item in range(40)]


def test_only_small_items_leave_the_thread() -> None:
    sizes = [1, LARGEST_AHEAD + 1, 1]
    names = list(map_ahead(lambda _: threading.current_thread().name, range(3), sizes, threads=2))
    here = threading.current_thread().name
    assert names[1] == here
    assert names[0] != here
    assert names[2] != here


def test_what_waits_is_bounded() -> None:
    started: list[int] = []
    count = 4 * MOST_BYTES_AHEAD // LARGEST_AHEAD
    results = map_ahead(started.append, range(count), [LARGEST_AHEAD] * count, threads=2)
    next(results)
    time.sleep(0.05)
    assert len(started) <= MOST_BYTES_AHEAD // LARGEST_AHEAD + 1
    assert len(list(results)) == count - 1
    assert len(started) == count


def test_a_failure_comes_at_its_turn_and_ends_the_rest() -> None:
    done = []

    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        time.sleep(0.001)
        done.append(item)
        return item

    results = map_ahead(work, range(1000), [1 << 20] * 1000, threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert len(done) < 100


def test_nothing_to_do() -> None:
    assert list(map_ahead(str, [], [])) == []
