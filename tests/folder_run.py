"""Runs over folders with an engine that needs no weights, and what they told."""

from pathlib import Path
from types import SimpleNamespace

from engines import FakeEngine
from tiny import noise, pixels, png, save_picture

from restorer.errors import WriteError
from restorer.pipeline.files import FileSettings, plan_jobs
from restorer.pipeline.folder import FolderRun
from restorer.pipeline.restore import Upscale
from restorer.pipeline.settings import UpscaleSettings

DEFAULTS = UpscaleSettings()


class Run:
    """One run over `inputs` into `out`, with an engine that repeats pixels; its events are kept."""

    def __init__(self, inputs, out, *, engine=None, settings=DEFAULTS, weights="w1", keeper=None, **files):
        self.files, self.settings, self.engine = FileSettings(**files), settings, engine or FakeEngine()
        self.events, self.opened = [], 0
        jobs = plan_jobs([str(path) for path in inputs], str(out), self.files)
        self.run = FolderRun(
            jobs,
            settings=settings,
            files=self.files,
            weights=weights,
            open_restorer=self.open,
            report=self.events.append,
            keeper=keeper,
        )

    def open(self):
        self.opened += 1
        return SimpleNamespace(engine=self.engine, plan=lambda picture: Upscale(picture, self.engine, self.settings))

    def done(self):
        """(done, skipped, failed)"""
        summary = self.run.run()
        return summary.done, summary.skipped, summary.failed

    def named(self, kind, field="input"):
        return [Path(str(event[field])).name for event in self.events if event["event"] == kind]

    def reasons(self):
        return [event["reason"] for event in self.events if event["event"] == "error"]


class Sheets:
    """Keeps a sheet beside each picture, or in a folder; of another seed, another one."""

    def __init__(self, folder=None, *, fails=False, seed=7):
        self.folder, self.fails, self.seed, self.name = folder, fails, seed, f"-sheets-{folder}"

    def folders(self, job):
        return [self.folder or job.output.parent]

    def paths(self, job, work=None):
        return [(self.folder or job.output.parent) / f"{job.output.name}.faces.png"]

    def keep(self, job, work, aside):
        aside.add(*self.paths(job), png(noise(seed=self.seed)))
        if self.fails:
            raise WriteError("no more room")


def three_pictures(folder):
    """A folder of three different pictures: a.png, b.png, c.png."""
    for seed, name in enumerate("abc"):
        save_picture(folder / f"{name}.png", seed=seed)
    return folder


def enlarged(path):
    """What FakeEngine makes of a picture."""
    return pixels(path).repeat(4, axis=0).repeat(4, axis=1)
