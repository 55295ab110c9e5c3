"""Working on several small things at once, in order and within bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ahead"]

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_BYTES_AHEAD = 1 << 25
"""Results that wait for their turn hold no more than this."""

LARGEST_AHEAD = 1 << 22
"""An item of more bytes is worked on alone: the core spreads it over all threads by itself, and
only the main thread hears Ctrl-C at once."""


def map_ahead(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    sizes: Sequence[int],
    *,
    threads: int | None = None,
) -> Iterator[Result]:
    """Yields the results of a function in order, those of small items from a pool of threads.

    Args:
        function: What to do with an item; it releases the interpreter lock where it is heavy.
        items: What to work on.
        sizes: Bytes of the result of each.
        threads: Number of threads; all cores by default.

    Raises:
        Exception: Whatever ``function`` raises, at the turn of its item.
    """
    threads = threads or os.cpu_count() or 1
    if threads == 1 or len(items) < 2:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="momos-ahead")
    waiting: deque[Future[Result] | None] = deque()
    first = ahead = 0
    try:
        for current, size in enumerate(sizes):
            while (submitted := first + len(waiting)) < len(items):
                small = sizes[submitted] <= LARGEST_AHEAD
                if small and waiting and ahead + sizes[submitted] > MOST_BYTES_AHEAD:
                    break
                if small:
                    ahead += sizes[submitted]
                waiting.append(pool.submit(function, items[submitted]) if small else None)
            first += 1
            future = waiting.popleft()
            if future is None:
                yield function(items[current])
                continue
            ahead -= size
            result = future.result()
            del future
            yield result
            del result
    finally:
        pool.shutdown(cancel_futures=True)
