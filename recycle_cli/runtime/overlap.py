"""Overlap reading and writing with the model: two helpers, each with one thread and a bounded queue, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items in order, while a thread makes up to `depth` of them ahead; its exceptions are raised here."""
    end: Any = object()
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="recycle-prefetch")
    try:
        ready: deque[Future[T]] = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := ready.popleft().result()) is not end:
            ready.append(pool.submit(next, iterator, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()


@contextmanager
def background(work: Callable[[T], None], depth: int = 2) -> Iterator[Callable[[T], None]]:
    """Yield a function that queues items for `work`, done in order by a thread. It blocks while `depth` items wait.

    An exception in `work` is raised by a later call or when the block is left; the items after it are dropped.
    """
    waiting: deque[Future[None]] = deque()
    failed = False

    def guarded(item: T) -> None:
        nonlocal failed
        if not failed:
            failed = True
            work(item)
            failed = False

    def put(item: T) -> None:
        while len(waiting) >= depth:
            waiting.popleft().result()
        waiting.append(pool.submit(guarded, item))

    with ThreadPoolExecutor(1, thread_name_prefix="recycle-background") as pool:
        yield put
        for future in waiting:
            future.result()
