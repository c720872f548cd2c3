"""What a command shows: messages and a progress bar on stderr, JSON lines on stdout."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_STEPS = 0.1
"""Seconds between two progress lines of one picture."""
_stderr: IO[str] | None = None


def keep_native_noise_off() -> None:
    """Give decoders written in C an empty stderr of their own; our messages keep the real one."""
    global _stderr  # noqa: PLW0603
    if _stderr is not None or os.environ.get("RESTORER_NATIVE_MESSAGES"):
        return
    try:
        kept = os.dup(2)
    except OSError:
        return
    _stderr = os.fdopen(kept, "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = _stderr


def tell(message: str) -> None:
    """One line on stderr."""
    line = " ".join(message.splitlines())
    print(f"restorer: {line}", file=sys.stderr)


class Screen:
    """Takes a run's events, from any thread, and shows them as asked."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._json, self._quiet = as_json, quiet
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0
        self.failed = 0
        logging.getLogger("restorer").addHandler(_Tell(self))

    def __call__(self, event: Mapping[str, object]) -> None:
        """Show one event."""
        with self._lock:
            if event["event"] == "error":
                self.failed += 1
            if self._json:
                self._line(event)
            if event["event"] == "progress":
                self._progress(event)
            elif event["event"] in ("error", "notice", "estimate") or (event["event"] == "result" and not self._json):
                self._words(event)

    def close(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, event: Mapping[str, object]) -> None:
        if event["event"] == "progress":
            now = time.monotonic()
            if now - self._shown < QUIET_STEPS and event["done"] != event["total"]:
                return
            self._shown = now
        print(json.dumps(event, ensure_ascii=True), flush=True)

    def _words(self, event: Mapping[str, object]) -> None:
        if event["event"] == "error":
            self._say(f"{_once(str(event['input']), str(event['reason']))}")
        elif not self._quiet and event["event"] == "notice":
            self._say(f"{event['input']}: {event['reason']}")
        elif not self._quiet and event["event"] == "estimate":
            self._say(str(event["reason"]))
        elif not self._quiet and event["event"] == "result":
            self._say(result_line(event))

    def _say(self, message: str) -> None:
        if self._bar is not None:
            self._bar.console.print(f"restorer: {message}", markup=False, highlight=False, soft_wrap=True)
        else:
            tell(message)

    def say(self, message: str) -> None:
        """One line on stderr, beside a progress bar if there is one."""
        with self._lock:
            if not self._quiet:
                self._say(message)

    def _progress(self, event: Mapping[str, object]) -> None:
        if self._quiet or self._json or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        total, done = float(str(event["total"])), float(str(event["done"]))
        name = os.path.basename(str(event["input"]))  # noqa: PTH119
        if self._task is None or done < self._bar.tasks[self._task].completed:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=total / 1e6)
        self._bar.update(self._task, completed=done / 1e6)
        if done >= total:
            self._bar.remove_task(self._task)
            self._task = None


class _Tell(logging.Handler):
    """Warnings of the library become lines on stderr."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(record.getMessage())


def result_line(event: Mapping[str, object]) -> str:
    """A finished picture in one line."""
    (width, height), seconds = _pair(event["size_out"]), float(str(event["seconds"]))
    speed = width * height / 1e6 / max(1e-3, seconds)
    return (
        f"{event['input']} -> {event['output']}: {width}x{height} by {event['model']} in {event['precision']}, "
        f"{seconds:.1f} s, {speed:.2f} MP/s"
    )


def _pair(value: object) -> tuple[int, int]:
    assert isinstance(value, list)
    return value[0], value[1]


def _once(name: str, reason: str) -> str:
    """The reason with the file's name before it, once."""
    return reason if reason.startswith(name) else f"{name}: {reason}"


def _new_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.2f} of {task.total:.2f} MP, {task.speed:.2f} MP/s"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
