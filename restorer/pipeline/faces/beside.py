"""What may be kept beside a restored picture, and how it is called: crops of faces, a sheet, a list. Torch-free."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restorer.pipeline.files import Job

if TYPE_CHECKING:
    from restorer.pipeline.beside import Aside
    from restorer.pipeline.work import Work

When = Literal["before", "after"]
BOTH: tuple[When, When] = ("before", "after")


@dataclass(frozen=True, kw_only=True)
class FaceKeeper:
    """See Keeper. Files are named after the whole output, so that no two pictures share one."""

    crops: str = ""
    """A folder for each face before and after, in which OUT's sub-folders are mirrored; "" for none."""
    compare: bool = False
    """A sheet of all faces, before and after."""
    sidecar: bool = False
    """What was found, as JSON."""

    @property
    def name(self) -> str:
        """What is kept, for the journal: a picture that was made without it is not done."""
        return f"-{self.crops}-{self.compare:d}-{self.sidecar:d}"

    def folders(self, job: Job) -> list[Path]:
        """Where a picture's side files lie."""
        beside = [] if job.output is None or not (self.compare or self.sidecar) else [job.output.parent]
        return [*beside, *([self._crops(job)] if self.crops else [])]

    def paths(self, job: Job, work: "Work | None" = None) -> list[Path]:
        """Every file that may be written; without the work, those whose names do not depend on it."""
        beside = job.output is not None
        paths = [self.sheet_of(job)] if beside and self.compare else []
        paths += [self.list_of(job)] if beside and self.sidecar else []
        if work is None or not self.crops:
            return paths
        from restorer.pipeline.faces.work import AlignedWork, FaceWork

        assert isinstance(work, FaceWork | AlignedWork)
        numbers = [face.number for face in work.faces if not face.skipped]
        return paths + [self.crop_of(job, number, when) for number in numbers for when in BOTH]

    def keep(self, job: Job, work: "Work", aside: "Aside") -> None:
        """Hand over the files of a picture whose work was run."""
        from restorer.pipeline.faces.keep import keep_beside

        keep_beside(job, work, aside, self)

    def sheet_of(self, job: Job) -> Path:
        """The path of the sheet; standard output has none."""
        assert job.output is not None
        return job.output.with_name(f"{job.output.name}.faces.png")

    def list_of(self, job: Job) -> Path:
        """The path of the JSON file; standard output has none."""
        assert job.output is not None
        return job.output.with_name(f"{job.output.name}.faces.json")

    def crop_of(self, job: Job, number: int, when: When) -> Path:
        """The path of one face."""
        name = Path(job.label).name if job.output is None else job.output.name
        return self._crops(job) / f"{name}-{number}-{when}.png"

    def _crops(self, job: Job) -> Path:
        return Path(self.crops) / Path(job.name).parent
