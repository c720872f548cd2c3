"""Work in a few threads whose results come out in the order in which the work went in."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_WORKERS = 4


class OrderedPool(Generic[T]):
    """Runs jobs beside the caller and hands each result to `take`, in order, in the caller's thread.

    No more than twice as many jobs as workers are ever held, so memory stays bounded however fast they come.
    """

    def __init__(self, take: Callable[[T], None]) -> None:
        self._take = take
        self._workers = min(MOST_WORKERS, os.cpu_count() or 1)
        self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="restorer-encode")
        self._waiting: deque[Future[T]] = deque()

    def submit(self, job: Callable[[], T]) -> None:
        """Start a job; take the oldest result first where too many wait."""
        while len(self._waiting) >= 2 * self._workers:
            self._take(self._waiting.popleft().result())
        self._waiting.append(self._executor.submit(job))

    def finish(self) -> None:
        """Take the results of all jobs and stop."""
        while self._waiting:
            self._take(self._waiting.popleft().result())
        self._executor.shutdown()

    def cancel(self) -> None:
        """Stop without the results; harmless after `finish`."""
        self._waiting.clear()
        self._executor.shutdown(cancel_futures=True)
