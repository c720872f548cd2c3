"""What a command shows: messages and a progress bar on stderr, JSON lines on stdout."""

import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from restorer.errors import RestorerError, WriteError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_STEPS = 0.1
"""Seconds between two progress lines of one picture."""


class Unheard(Exception):  # noqa: N818 -- not an error: `| head` has seen enough
    """Whoever read standard output has gone."""


@contextmanager
def native_noise_off() -> Iterator[None]:
    """Give decoders written in C an empty stderr of their own for a while; our messages keep the real one."""
    if os.environ.get("RESTORER_NATIVE_MESSAGES"):
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr; no file of ours may take its place, to be written to by decoders
        os.dup2(nowhere, 2)
        yield
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    before = sys.stderr
    ours = os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace")
    if before is sys.__stderr__:  # else it has been taken elsewhere already
        sys.stderr = ours
    try:
        yield
    finally:
        sys.stderr = before
        os.dup2(kept, 2)
        os.close(kept)
        with suppress(OSError):  # what could not be written is lost
            ours.close()


@contextmanager
def warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Turn the library's warnings into messages for a while; what Pillow remarks of a file says the error already."""
    ours, pillows = logging.getLogger("restorer"), logging.getLogger("PIL")
    before, ours.handlers = ours.handlers, [_Tell(tell)]
    silent = logging.NullHandler()
    pillows.addHandler(silent)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            yield
    finally:
        ours.handlers = before
        pillows.removeHandler(silent)


class _Tell(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


def tell(message: str) -> None:
    """One line on stderr, where there is one."""
    if sys.stderr is None:
        return
    with suppress(OSError):  # nobody can be told that stderr cannot be written
        print(f"restorer: {printable(message)}", file=sys.stderr)


def show(line: str) -> None:
    """One line on stdout, at once."""
    try:
        print(printable(line), flush=True)
    except BrokenPipeError:
        raise Unheard from None
    except OSError as e:
        raise WriteError(f"standard output cannot be written ({e.strerror}); send it elsewhere") from e


def printable(text: str) -> str:
    """One line without control characters.

    >>> printable("two\\nlines, \\x1b[1mbold")
    'two lines, \\\\x1b[1mbold'
    """
    line = " ".join(text.splitlines())
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class Screen:
    """Takes a run's events, from any thread, and shows them as asked; as a context manager it ends tidily."""

    def __init__(self, *, as_json: bool, quiet: bool, plans: bool = False) -> None:
        """`plans`: what would be done is said in words too."""
        self._json, self._quiet, self._plans = as_json, quiet, plans
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0

    def __call__(self, event: Mapping[str, object]) -> None:
        """Show one event."""
        with self._lock:
            if self._json:
                self._line(event)
            if event["event"] == "progress":
                self._progress(event)
            elif words := self._words(event):
                self._say(words)

    def say(self, message: str) -> None:
        """One line on stderr, beside a progress bar if there is one."""
        with self._lock:
            if not self._quiet:
                self._say(message)

    def downloading(self, name: str) -> Callable[[int, int | None], None]:
        """Take a download's progress, and say once that there is one."""
        told: list[int] = []

        def progress(here: int, total: int | None) -> None:
            if not told:
                self.say(f"downloading {name}" + (f", {total / 1e6:.0f} MB" if total else ""))
            told[:] = [here]

        return progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Take the progress bar away; in JSON a run that failed as a whole is an error without an input."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._json and isinstance(error, RestorerError):
            with suppress(WriteError):
                self._line({"event": "error", "input": None, "reason": str(error)})

    def _line(self, event: Mapping[str, object]) -> None:
        if event["event"] == "progress":
            now = time.monotonic()
            if now - self._shown < QUIET_STEPS and event["done"] != event["total"]:
                return
            self._shown = now
        show(json.dumps(event, ensure_ascii=True))

    def _words(self, event: Mapping[str, object]) -> str:
        """An event as a message, "" where nothing is to be said."""
        kind = event["event"]
        if kind == "error":
            return _once(str(event["input"]), str(event["reason"]))
        if self._quiet or self._json:
            return ""
        if kind in ("notice", "estimate"):
            return f"{event['input']}: {event['reason']}" if event.get("input") is not None else str(event["reason"])
        if kind == "result":
            return result_line(event)
        if kind == "summary":
            return summary_line(event, plans=self._plans)
        return plan_line(event) if kind == "plan" and self._plans else ""

    def _say(self, message: str) -> None:
        if self._bar is not None:
            self._bar.console.print(f"restorer: {printable(message)}", markup=False, highlight=False, soft_wrap=True)
        else:
            tell(message)

    def _progress(self, event: Mapping[str, object]) -> None:
        """Pixels of the output, as the result will count them."""
        if self._quiet or self._json or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        share = float(str(event["done"])) / float(str(event["total"]))
        megapixels = float(str(event["megapixels"]))
        if self._task is None or share * megapixels < self._bar.tasks[-1].completed:  # a new picture, or begun anew
            self._end_task(self._bar)
            name = os.path.basename(str(event["input"]))  # noqa: PTH119
            self._task = self._bar.add_task(printable(name), total=megapixels, speed="")
        assert self._task is not None
        self._bar.update(self._task, completed=share * megapixels)
        self._bar.update(self._task, speed=f"{self._bar.tasks[-1].speed or 0:.2f} MP/s")
        if share >= 1:
            self._end_task(self._bar)

    def _end_task(self, bar: "Progress") -> None:
        if self._task is not None:
            bar.remove_task(self._task)
            self._task = None


def result_line(event: Mapping[str, object]) -> str:
    """A finished picture in one line."""
    seconds, speed = float(str(event["seconds"])), float(str(event["megapixels_per_second"]))
    return (
        f"{event['input']} -> {event['output']}: {_size(event['size_out'])} by {event['model']} in "
        f"{event['precision']}{_by(event)}, {seconds:.1f} s, {speed:.2f} MP/s"
    )


def plan_line(event: Mapping[str, object]) -> str:
    """What would be done to a picture, in one line."""
    tiles, passes = int(str(event["tiles"])), int(str(event["passes"]))
    kind = "bands" if _is_banded(event) else "tiles" if tiles > 1 else "tile"
    work = f"{tiles} {kind} of {_size(event['tile'])}" + (f", {passes} passes" if passes > 1 else "")
    return (
        f"{event['input']} -> {event['output']}: {_size(event['size_in'])} to {_size(event['size_out'])} by "
        f"{event['model']} in {event['precision']}{_by(event) or ' on ' + str(event['device'])}, {work}, "
        f"about {float(str(event['estimated_seconds'])):.1f} s"
    )


def _is_banded(event: Mapping[str, object]) -> bool:
    """Several parts, each as wide as the picture."""
    tile, size = event["tile"], event["size_in"]
    assert isinstance(tile, list) and isinstance(size, list)
    return int(str(event["tiles"])) > 1 and tile[0] >= size[0]


def summary_line(event: Mapping[str, object], *, plans: bool) -> str:
    """How a run ended, in one line; "" where its one picture has said it all."""
    count = {name: int(str(event[name])) for name in ("done", "failed", "skipped", "left", "planned")}
    if sum(count.values()) == 1 and not count["skipped"]:
        return ""
    if plans:
        return f"{count['planned']} to do, {count['failed']} would fail, {count['skipped']} done before"
    left = f", {count['left']} not tried: run again when there is room" if count["left"] else ""
    return f"{count['done']} done, {count['failed']} failed, {count['skipped']} skipped{left}"


def _by(event: Mapping[str, object]) -> str:
    """The engine, where it is not the plain one."""
    return "" if event["engine"] == "eager" else f" ({event['engine']} engine, {event['device']})"


def _size(value: object) -> str:
    """[width, height] as people write it."""
    assert isinstance(value, list)
    return f"{value[0]}x{value[1]}"


def _once(name: str, reason: str) -> str:
    """The reason with the file's name before it, once."""
    return reason if reason.startswith(name) else f"{name}: {reason}"


def _new_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.2f} of {task.total:.2f} MP {task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
