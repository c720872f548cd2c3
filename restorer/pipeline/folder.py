"""Many files, one after another: reading ahead, computing and writing overlap; a bad file is told, the rest goes on.

Nothing here loads torch: a file that cannot be read is refused before the network is.
"""

import errno
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import BinaryIO

from restorer.errors import OutOfMemoryError, PictureError, RestorerError, WriteError
from restorer.pipeline.background import Output
from restorer.pipeline.beside import Aside, Keeper, check_free, entries_of, taken_by
from restorer.pipeline.codecs.atomic import sweep
from restorer.pipeline.codecs.encode import RowWriter, check_format, open_writer
from restorer.pipeline.codecs.intake import LIMIT_BYTES
from restorer.pipeline.events import LONG, Event, described, precision_of, quicker, spoken
from restorer.pipeline.files import FileSettings, Job, Jobs, check_writable, make_folder, output_format
from restorer.pipeline.journal import Entry, Journal, sha256, stamp
from restorer.pipeline.picture import Picture, read_picture
from restorer.pipeline.work import Planner, Settings, Wanting, Work

Report = Callable[[Event], None]
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_STAMP = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended, in numbers of pictures."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    left: int = 0
    """Not tried because the disk is full."""
    planned: int = 0
    """Would be done; for previews."""


class FolderRun:
    """One run over `jobs`. `open_restorer` is called once, when the first picture has been read."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        settings: Settings,
        files: FileSettings,
        weights: str,
        open_restorer: Callable[[], Planner],
        report: Report,
        keeper: Keeper | None = None,
    ) -> None:
        """`keeper` is asked for side files before a picture's file gets its name; an error there is the picture's."""
        self._jobs, self._settings, self._files, self._report = jobs, settings, files, report
        self._weights, self._open_restorer, self._keeper = weights, open_restorer, keeper
        self._restorer: Planner | None = None
        self._journal = Journal(jobs.folder) if jobs.folder is not None else None
        self._settings_hash = settings.digest() + f"-{files.quality}{keeper.name if keeper else ''}"
        self._taken = taken_by(jobs) if keeper else {}
        self._lacking: set[str] | None = None
        self._stdin = b""
        self._notices: dict[str, list[str]] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._pending: list[tuple[Job, Output, Event]] = []
        self._estimated = self._full = False
        self._stop = Flag()
        self._done = self._skipped = self._failed = 0

    def run(self) -> Summary:
        """Every job ends as done, skipped or failed, and is reported; a full disk ends the run."""
        self._look_ahead()
        for folder in self._folders() if self._journal else ():
            sweep(folder)
        todo = [job for job in self._jobs.jobs if not self._is_done(job)]
        with ThreadPoolExecutor(1) as readers, ThreadPoolExecutor(1) as writers:
            try:
                for job, coming in _ahead(readers, todo, self._read):
                    self._one(job, coming, writers)
                    self._settle(keep=1)
                    if self._full:
                        break
                self._settle(keep=0)
            except BaseException:
                self._stop.set()  # what is finished is still written; what is not leaves nothing behind
                raise
        label = self._jobs.jobs[0].label if len(self._jobs.jobs) == 1 else None
        for text in sorted(self._lacking or ()):
            self._report({"event": "notice", "input": label, "reason": text})
        left = len(todo) - self._done - self._failed
        return Summary(done=self._done, skipped=self._skipped, failed=self._failed, left=left)

    def preview(self) -> Summary:
        """Read every picture and say what would be done; nothing is computed and nothing written."""
        self._look_ahead()
        planned, seconds = 0, 0.0
        for job in self._jobs.jobs:
            if self._is_done(job):
                continue
            try:
                picture = self._read(job)
            except RestorerError as e:
                self._fail(job, e, note=False)
                continue
            restorer = self._opened()
            try:
                _, event = self._planned(job, picture, restorer)
            except RestorerError as e:
                self._fail(job, e, note=False)
                continue
            self._succeed(job, {"event": "plan", **event})
            planned, seconds = planned + 1, seconds + float(str(event["estimated_seconds"]))
        if seconds >= LONG or planned > 1:
            self._announce(seconds, " in all")
        return Summary(planned=planned, skipped=self._skipped, failed=self._failed)

    def _look_ahead(self) -> None:
        """Refuse before any work what would fail after it; take standard input, here where a signal ends the wait."""
        for folder in self._folders():
            check_writable(folder)
        for label, text in self._jobs.notices:
            self._report({"event": "notice", "input": label, "reason": text})
        if any(job.source is None for job in self._jobs.jobs):
            if sys.stdin is None:
                raise PictureError("standard input is closed; send a picture to it")
            self._stdin = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        if sys.stdout is None and any(job.output is None for job in self._jobs.jobs):
            raise WriteError("standard output is closed; send it somewhere")

    def _folders(self) -> set[Path]:
        """All that is written into."""
        jobs = self._jobs.jobs
        beside = {folder for job in jobs for folder in self._keeper.folders(job)} if self._keeper else set[Path]()
        return beside | {job.output.parent for job in jobs if job.output is not None}

    def _opened(self) -> Planner:
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
        if job.source is not None:
            self._stamps[job.name] = _stamp(job.source)
        picture = read_picture(
            self._stdin if job.source is None else job.source,
            limit_pixels=int(self._settings.max_megapixels_in * 1e6),
            name=job.label,
        )
        for notice in picture.source.notices:
            self._notice(job, notice)
        if picture.source.frames > 1:
            self._notice(job, f"has {picture.source.frames} frames or pages; only the first is used")
        return picture

    def _refuse_foreign(self, job: Job) -> None:
        """A file in OUT that no run of ours made, or that was changed since, is not ours to replace."""
        if self._journal is None or self._files.overwrite or job.output is None or _stamp(job.output) == NO_STAMP:
            return
        if not self._journal.made(output=job.output, name=job.name):
            raise WriteError(
                f"{job.output}: exists, and is not as an earlier run made it; give --overwrite or --suffix"
            )

    def _notice(self, job: Job, text: str) -> None:
        """Keep a remark until its picture is there: of one that fails, the error says enough."""
        self._notices.setdefault(job.name, []).append(text)

    def _succeed(self, job: Job, event: Event) -> None:
        for text in self._notices.pop(job.name, ()):
            self._report({"event": "notice", "input": job.label, "reason": text})
        self._report(event)

    def _one(self, job: Job, coming: "Future[Picture]", writers: ThreadPoolExecutor) -> None:
        try:
            picture = coming.result()
        except RestorerError as e:
            self._fail(job, e)
            return
        restorer = self._opened()  # what is wrong with the model is no picture's fault, and ends the run
        try:
            self._pending.append(self._restore(job, picture, restorer, writers))
        except RestorerError as e:
            self._fail(job, e)
        except MemoryError:
            self._fail(job, _no_room())

    def _planned(self, job: Job, picture: Picture, restorer: Planner) -> tuple[Work, Event]:
        work = restorer.plan(picture)
        for path in self._keeper.paths(job, work) if self._keeper else ():
            check_free(path, taken=self._taken, journal=self._journal, overwrite=self._files.overwrite)
        for notice in check_format(output_format(job, self._files), work.info, quality=self._files.quality):
            self._notice(job, notice)
        return work, described(job, work, model=self._settings.model)

    def _restore(
        self, job: Job, picture: Picture, restorer: Planner, writers: ThreadPoolExecutor
    ) -> tuple[Job, Output, Event]:
        work, event = self._planned(job, picture, restorer)
        self._report({"event": "plan", **event})
        self._estimate(job, float(str(event["estimated_seconds"])))
        begun = time.perf_counter()
        megapixels = work.size_out[0] * work.size_out[1] / 1e6
        outputs: list[Output] = []
        aside = Aside()

        def open_rows() -> Output:
            for old in outputs:
                old.abort()
            outputs[:] = [Output(writers, lambda: self._writer(job, work, begun, aside), self._stop, aside.end)]
            return outputs[0]

        def progress(done: int, total: int) -> None:
            self._report(
                {"event": "progress", "input": job.label, "done": done, "total": total, "megapixels": megapixels}
            )

        try:
            work.run(open_rows, progress=progress)
            if self._keeper is not None:
                self._keeper.keep(job, work, aside)
            outputs[0].finish()
        except (RestorerError, MemoryError):
            for output in outputs:
                output.abort()
            raise
        for notice in work.notices:
            self._notice(job, notice)
        if isinstance(work, Wanting):
            lacking = set(work.lacking)
            self._lacking = lacking if self._lacking is None else self._lacking & lacking
        seconds = time.perf_counter() - begun
        speed = {"seconds": round(seconds, 3), "megapixels_per_second": round(megapixels / max(1e-6, seconds), 3)}
        return job, outputs[0], {"event": "result", **described(job, work, model=self._settings.model), **speed}

    def _estimate(self, job: Job, seconds: float) -> None:
        """Before a long run, once: how long it will be, taking every picture that is left for one like this."""
        count = len(self._jobs.jobs) - self._skipped - self._done - self._failed - len(self._pending)
        if not self._estimated and seconds * count >= LONG:
            self._estimated = True
            self._announce(seconds * count, f" for {count} pictures like {job.label}" if count > 1 else "")

    def _announce(self, seconds: float, of_what: str) -> None:
        words = f"takes about {spoken(seconds)}{of_what}" + (quicker(self._settings.model) if seconds >= LONG else "")
        self._report({"event": "estimate", "seconds": round(seconds, 1), "reason": words})

    def _writer(self, job: Job, work: Work, begun: float, aside: Aside) -> RowWriter:
        target: Path | BinaryIO = sys.stdout.buffer if job.output is None else job.output
        if job.output is not None:
            make_folder(job.output.parent)
        return open_writer(
            target,
            like=work.info,
            format=output_format(job, self._files),
            quality=self._files.quality,
            before_rename=lambda whole: self._note(job, whole, begun, aside),
        )

    def _note(self, job: Job, whole: Path, begun: float, aside: Aside) -> None:
        """The journal's lines are on the disk before the picture gets its name, and that before its side files do."""
        if self._journal is None or job.source is None:
            return
        before = self._stamps[job.name]
        entry = Entry(
            input=str(job.source),
            output=job.name,
            input_sha256=_digest(job.source, before),
            input_stamp=before,
            settings=self._settings_hash,
            weights=self._weights,
            engine=self._opened().engine.name,
            precision=precision_of(self._opened().engine),
            output_sha256=sha256(whole),
            output_stamp=stamp(whole),
            seconds=round(time.perf_counter() - begun, 3),
        )
        self._journal.add(*entries_of(entry, aside, self._journal))

    def _settle(self, *, keep: int) -> None:
        """Wait for writers until at most `keep` are under way."""
        while len(self._pending) > keep:
            job, output, event = self._pending.pop(0)
            try:
                output.written.result()
            except RestorerError as e:
                self._fail(job, e)
            except MemoryError:
                self._fail(job, _no_room())
            else:
                self._done += 1
                self._succeed(job, event)

    def _fail(self, job: Job, error: RestorerError, *, note: bool = True) -> None:
        self._failed += 1
        self._report({"event": "error", "input": job.label, "reason": str(error)})
        self._full = self._full or _is_full(error)
        if self._journal is None or job.source is None or self._full or not note:
            return
        self._journal.add(
            Entry(
                input=str(job.source),
                output=job.name,
                input_sha256="",
                input_stamp=NO_STAMP,
                settings=self._settings_hash,
                weights=self._weights,
                state="failed",
                reason=str(error),
            )
        )


def _no_room() -> OutOfMemoryError:
    return OutOfMemoryError("not enough memory for this picture; give a smaller one, or ask for less")


def _stamp(path: Path) -> tuple[int, int]:
    """As `stamp`; NO_STAMP where there is no such file."""
    try:
        return stamp(path)
    except OSError:
        return NO_STAMP


def _digest(path: Path, before: tuple[int, int]) -> str:
    """Hash an input; "" where it is no longer what it was, and so matches nothing."""
    try:
        return sha256(path) if stamp(path) == before else ""
    except OSError:
        return ""


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
