"""Work on many items, on all cores if it takes long."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def in_order(function: Callable[[A], B], items: Iterable[A], alone: float = 5.0) -> Iterator[B]:
    """`map(function, items)`: for `alone` seconds in this process, then in one for each core.

    Other processes take seconds to start, and import the main module again.
    """
    todo, start = deque(items), time.monotonic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    while todo and (cores == 1 or time.monotonic() - start < alone):
        yield function(todo.popleft())
    if not todo:
        return
    with ProcessPoolExecutor(min(cores, len(todo)), get_context("spawn"), _begin_worker) as pool:
        coming: deque[Future] = deque()
        try:
            while todo or coming:
                while todo and len(coming) < 2 * cores:  # more results would pile up if they are taken slowly
                    coming.append(pool.submit(function, todo.popleft()))
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent says nothing, and its workers would wait for ever."""
    if parent := parent_process():
        parent.join()
    os._exit(1)
