"""Writing in the background: rows are handed over while the next ones are computed."""

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from restorer.errors import RestorerError
from restorer.pipeline.codecs.encode import RowWriter
from restorer.pipeline.picture_types import Pixels

HELD_BANDS = 1
LOOK = 0.1
"""Seconds after which one who waits looks whether the other is still there."""


class Output:
    """Rows go to a writer in the background; at most one band waits. `written` is done when the file has its name."""

    def __init__(
        self, pool: ThreadPoolExecutor, open_file: Callable[[], RowWriter], stop: Event, ended: Callable[[bool], None]
    ) -> None:
        """`stop` ends every output that has not been finished, when nobody is left to end it.

        `ended` is called in the background, whatever happens: with True once the file has its name, else with False.
        """
        self._queue: queue.Queue[Pixels | bool] = queue.Queue(HELD_BANDS)
        self._open, self._stop, self._ended = open_file, stop, ended
        self.written: Future[None] = pool.submit(self._drain)

    def __call__(self, rows: Pixels) -> None:
        """(h, W, C): hand rows to the writer; its error, if it had one, comes out here."""
        self._put(rows)

    def finish(self) -> None:
        """No more rows come."""
        self._put(True)

    def abort(self) -> None:
        """Leave nothing behind."""
        try:
            self._put(False)
            self.written.result()
        except (RestorerError, MemoryError):
            return  # it ended with an error of its own, and left nothing behind

    def _put(self, item: Pixels | bool) -> None:
        while not self.written.done():
            try:
                self._queue.put(item, timeout=LOOK)
                return
            except queue.Full:
                continue
        self.written.result()

    def _drain(self) -> None:
        whole = False
        try:
            with self._open() as writer:
                while (item := self._get()) is not True:
                    if item is False:
                        writer.abort()
                        return
                    writer.write_rows(item)
            whole = True
        finally:
            self._ended(whole)

    def _get(self) -> Pixels | bool:
        while True:
            try:
                return self._queue.get(timeout=LOOK)
            except queue.Empty:
                if self._stop.is_set():
                    return False
