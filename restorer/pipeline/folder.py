"""Many files, one after another: reading ahead, computing and writing overlap; a bad file is told and the rest goes on."""

import errno
import logging
import queue
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from restorer.errors import RestorerError, WriteError
from restorer.pipeline.codecs.atomic import sweep
from restorer.pipeline.codecs.encode import RowWriter, check_format, open_writer
from restorer.pipeline.files import FileSettings, Job, Jobs, output_format
from restorer.pipeline.journal import Entry, Journal, sha256, stamp
from restorer.pipeline.picture import Picture, read_picture
from restorer.pipeline.settings import UpscaleSettings
from restorer.pipeline.source import Block, RowTaker

if TYPE_CHECKING:
    from restorer.api import Restorer

log = logging.getLogger(__name__)
Event = dict[str, object]
Report = Callable[[Event], None]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
HELD_BANDS = 1
LONG = 60.0
"""Seconds from which a run is announced."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended."""

    done: int
    skipped: int
    failed: int


class Stopped(Exception):
    """The writer was told to give up; never leaves this module."""


class Output:
    """Rows go to a writer in the background; at most one band waits. `finish` gives the hash of what was written."""

    def __init__(self, pool: ThreadPoolExecutor, open_file: Callable[[], RowWriter]) -> None:
        self._queue: queue.Queue[Block | bool] = queue.Queue(HELD_BANDS)
        self._open = open_file
        self.written: Future[None] = pool.submit(self._drain)

    def __call__(self, rows: Block) -> None:
        """Hand rows to the writer; its error, if it had one, comes out here."""
        self._put(rows)

    def finish(self) -> None:
        """No more rows come; `written` is done when the file has its name."""
        self._put(True)

    def abort(self) -> None:
        """Leave nothing behind."""
        if not self.written.done():
            try:
                self._put(False)
            except RestorerError:
                return
        self.written.exception()

    def _put(self, item: Block | bool) -> None:
        while True:
            if self.written.done():
                self.written.result()
                return
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _drain(self) -> None:
        with self._open() as writer:
            while True:
                item = self._queue.get()
                if item is True:
                    writer.close()
                    return
                if item is False:
                    writer.abort()
                    return
                writer.write_rows(item)


class FolderRun:
    """One run over `jobs`. `open_restorer` is called once, when the first picture has been read."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        settings: UpscaleSettings,
        files: FileSettings,
        weights: str,
        open_restorer: Callable[[], "Restorer"],
        report: Report,
    ) -> None:
        self._jobs, self._settings, self._files, self._report = jobs, settings, files, report
        self._weights, self._open_restorer = weights, open_restorer
        self._restorer: Restorer | None = None
        self._journal = Journal(jobs.folder) if jobs.folder is not None else None
        self._settings_hash = settings.digest() + f"-{files.quality}"
        self._stamps: dict[str, tuple[int, int]] = {}
        self._pending: list[tuple[Job, Output, Event]] = []
        self._estimated = False
        self._done = self._skipped = self._failed = 0

    def run(self) -> Summary:
        """Every job ends as done, skipped or failed, and is reported; a full disk ends the run."""
        if self._jobs.folder is not None:
            for folder in {job.output.parent for job in self._jobs.jobs if job.output is not None}:
                sweep(folder)
        todo = [job for job in self._jobs.jobs if not self._is_done(job)]
        with ThreadPoolExecutor(1) as readers, ThreadPoolExecutor(1) as writers:
            try:
                for job, coming in _ahead(readers, todo, self._read):
                    self._one(job, coming, writers)
                    self._settle(keep=1)
                self._settle(keep=0)
            except BaseException:
                for _, output, _ in self._pending:
                    output.abort()
                raise
        return Summary(done=self._done, skipped=self._skipped, failed=self._failed)

    def preview(self) -> Summary:
        """Read every picture and say what would be done; nothing is computed and nothing written."""
        for job in self._jobs.jobs:
            if self._is_done(job):
                continue
            try:
                picture = self._read(job)
                restorer = self._opened()
                self._report({**described(job, restorer.plan(picture), restorer), "event": "plan"})
                self._done += 1
            except RestorerError as e:
                self._failed += 1
                self._report({"event": "error", "input": job.label, "reason": str(e)})
        return Summary(done=self._done, skipped=self._skipped, failed=self._failed)

    def _opened(self) -> "Restorer":
        if self._restorer is None:
            self._restorer = self._open_restorer()
        return self._restorer

    def _is_done(self, job: Job) -> bool:
        if self._journal is None or job.source is None or job.output is None or self._files.overwrite:
            return False
        if not self._journal.done(
            source=job.source, output=job.output, name=job.name, settings=self._settings_hash, weights=self._weights
        ):
            return False
        self._skipped += 1
        self._report({"event": "skipped", "input": job.label, "output": str(job.output)})
        return True

    def _read(self, job: Job) -> Picture:
        self._refuse_foreign(job)
        if job.source is not None and job.source.is_file():
            self._stamps[job.name] = stamp(job.source)
        source: Path | bytes = sys.stdin.buffer.read() if job.source is None else job.source
        picture = read_picture(source, limit_pixels=int(self._settings.max_megapixels_in * 1e6))
        for notice in picture.source.notices:
            self._notice(job, notice)
        if picture.source.frames > 1:
            self._notice(job, f"has {picture.source.frames} frames or pages; only the first is used")
        return picture

    def _refuse_foreign(self, job: Job) -> None:
        """A file in OUT that no run of ours made is not ours to replace."""
        if self._journal is None or self._files.overwrite or job.output is None or self._journal.knows(job.name):
            return
        if job.output.exists():
            raise WriteError(f"{job.output}: exists, and was not made by an earlier run; give --overwrite or --suffix")

    def _notice(self, job: Job, text: str) -> None:
        self._report({"event": "notice", "input": job.label, "reason": text})

    def _one(self, job: Job, coming: "Future[Picture]", writers: ThreadPoolExecutor) -> None:
        start = time.perf_counter()
        try:
            picture = coming.result()
            result = self._restore(job, picture, self._opened(), writers)
        except RestorerError as e:
            self._fail(job, e)
            return
        result[2]["seconds"] = time.perf_counter() - start
        self._pending.append(result)

    def _restore(
        self, job: Job, picture: Picture, restorer: "Restorer", writers: ThreadPoolExecutor
    ) -> tuple[Job, Output, Event]:
        work = restorer.plan(picture)
        for notice in check_format(
            output_format(job, self._files), replace(picture.info, size=work.size_out), quality=self._files.quality
        ):
            self._notice(job, notice)
        event = described(job, work, restorer)
        self._report({**event, "event": "plan"})
        self._estimate(float(str(event["estimated_seconds"])))
        begun = time.perf_counter()
        outputs: list[Output] = []

        def open_rows() -> RowTaker:
            for old in outputs:
                old.abort()
            outputs[:] = [Output(writers, lambda: self._writer(job, picture, work.size_out, begun))]
            return outputs[0]

        try:
            work.run(open_rows, progress=lambda done, total: self._progress(job, done, total))
            outputs[0].finish()
        except BaseException:
            for output in outputs:
                output.abort()
            raise
        return job, outputs[0], {**event, "tile": list(work.plans()[-1].tile), "event": "result"}

    def _estimate(self, seconds: float) -> None:
        """Before a long run: how long it will be, taking every picture for one like the first."""
        count = len(self._jobs.jobs) - self._skipped
        if self._estimated or seconds * count < LONG:
            return
        self._estimated = True
        more = f" for {count} pictures like the first" if count > 1 else ""
        self._report(
            {
                "event": "estimate",
                "seconds": seconds * count,
                "reason": f"takes about {spoken(seconds * count)}{more}{quicker(self._settings.model)}",
            }
        )

    def _progress(self, job: Job, done: int, total: int) -> None:
        self._report({"event": "progress", "input": job.label, "done": done, "total": total})

    def _writer(self, job: Job, picture: Picture, size: tuple[int, int], begun: float) -> RowWriter:
        target: Path | BinaryIO = sys.stdout.buffer if job.output is None else job.output
        if job.output is not None:
            make_folder(job.output.parent)
        return open_writer(
            target,
            like=replace(picture.info, size=size),
            format=output_format(job, self._files),
            quality=self._files.quality,
            before_rename=lambda whole: self._note(job, whole, begun),
        )

    def _note(self, job: Job, whole: Path, begun: float) -> None:
        """The journal's line is on the disk before the picture gets its name."""
        if self._journal is None or job.source is None:
            return
        before = self._stamps[job.name]
        self._journal.add(
            Entry(
                input=str(job.source),
                output=job.name,
                input_sha256=sha256(job.source) if stamp(job.source) == before else "",
                input_stamp=before,
                settings=self._settings_hash,
                weights=self._weights,
                output_sha256=sha256(whole),
                output_stamp=stamp(whole),
                seconds=round(time.perf_counter() - begun, 3),
            )
        )

    def _settle(self, *, keep: int) -> None:
        """Wait for writers until at most `keep` are under way."""
        while len(self._pending) > keep:
            job, output, event = self._pending.pop(0)
            try:
                output.written.result()
            except RestorerError as e:
                self._fail(job, e)
                continue
            self._done += 1
            self._report(event)

    def _fail(self, job: Job, error: RestorerError) -> None:
        self._failed += 1
        reason = str(error)
        self._report({"event": "error", "input": job.label, "reason": reason})
        if self._journal is not None and job.source is not None and not _is_full(error):
            self._journal.add(
                Entry(
                    input=str(job.source),
                    output=job.name,
                    input_sha256="",
                    input_stamp=(0, 0),
                    settings=self._settings_hash,
                    weights=self._weights,
                    state="failed",
                    reason=reason,
                )  # fmt: skip
            )
        if _is_full(error) and len(self._jobs.jobs) > 1:
            raise WriteError(
                f"the disk is full; {self._done} pictures are whole, run again when there is room"
            ) from error


def described(job: Job, work: "object", restorer: "Restorer") -> Event:
    """What a plan and a result say of one picture."""
    from restorer.pipeline.restore import Upscale

    assert isinstance(work, Upscale)
    plan = work.plans()[-1]
    pixels = sum(p.count * p.window[0] * p.window[1] for p in work.plans())
    return {
        "input": job.label,
        "output": "-" if job.output is None else str(job.output),
        "model": restorer.settings.model,
        "engine": restorer.engine.name,
        "precision": str(restorer.engine.dtype).removeprefix("torch."),
        "device": str(restorer.engine.device),
        "size_in": [work.size_in[1], work.size_in[0]],
        "size_out": [work.size_out[1], work.size_out[0]],
        "passes": work.passes,
        "tile": list(plan.tile),
        "tiles": plan.count,
        "estimated_seconds": round(pixels / max(1.0, restorer.engine.pixels_per_second), 1),
    }


def spoken(seconds: float) -> str:
    """A length of time as one would say it.

    >>> spoken(95), spoken(4000)
    ('2 minutes', '1.1 hours')
    """
    return f"{max(1, round(seconds / 60))} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def quicker(model: str) -> str:
    """The words that name a quicker model for the same task, where the table knows one."""
    from restorer.weights.records import find_record

    record = find_record(model)
    if record is None or record.quicker is None:
        return ""
    name, times = record.quicker
    return f"; --model {name} would be about {times} times quicker"


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, or say in one line why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WriteError(f"{folder}: cannot be made ({e.strerror}); choose another output folder") from e


def _is_full(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return True
        cause = cause.__cause__
    return False


def _ahead(
    pool: ThreadPoolExecutor, jobs: list[Job], read: Callable[[Job], Picture]
) -> Iterator[tuple[Job, "Future[Picture]"]]:
    """Each job with its picture, the next one being read meanwhile."""
    coming: list[tuple[Job, Future[Picture]]] = []
    for job in jobs:
        coming.append((job, pool.submit(read, job)))
        if len(coming) == 2:
            yield coming.pop(0)
    yield from coming
