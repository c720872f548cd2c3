"""What may be kept beside a restored picture: its faces before and after, a sheet of them, and what was found."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from restorer.errors import UsageError
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.faces.paste import Floats
from restorer.pipeline.faces.work import AlignedWork, FaceWork, Restored
from restorer.pipeline.files import Job
from restorer.pipeline.folder import make_folder
from restorer.pipeline.picture import Picture, write_picture
from restorer.pipeline.work import Work
from restorer.weights.whole import write_whole

log = logging.getLogger(__name__)
MOST_ROWS = 40
"""Faces of a sheet; a picture may have hundreds."""
GAP = 8


def keep_beside(job: Job, work: Work, *, crops: Path | None, compare: bool, sidecar: bool) -> None:
    """Write what was asked for. WriteError: the disk is full or locked."""
    assert isinstance(work, FaceWork | AlignedWork)
    if job.output is None and (compare or sidecar):
        raise UsageError("--compare and --sidecar write beside the output; name a file or a folder")
    stem = Path(job.name).stem if job.output is None else job.output.stem
    if crops is not None:
        in_tree = job.output is not None and job.output != Path(job.name)
        folder = crops / Path(job.name).parent if in_tree else crops
        make_folder(folder)
        for each in work.restored:
            for when, pixels in (("before", each.before), ("after", each.after)):
                _write(pixels, folder / f"{stem}-{each.face.number}-{when}.png")
    if compare and job.output is not None and work.restored:
        _write(sheet(work.restored), job.output.with_name(f"{stem}.faces.png"))
    if sidecar and job.output is not None:
        told = {"input": job.label, "output": str(job.output), **work.told()}
        path = job.output.with_name(f"{stem}.faces.json")
        write_whole(path, [(json.dumps(told, indent=1) + "\n").encode()])


def sheet(restored: Sequence[Restored]) -> Floats:
    """Faces -> (H, W, 3) in [0, 1]: one row each, before and after, numbered from above."""
    if len(restored) > MOST_ROWS:
        log.warning("the sheet shows the first %d of %d faces", MOST_ROWS, len(restored))
    rows = [_row(each) for each in restored[:MOST_ROWS]]
    width = max(row.shape[1] for row in rows)
    gap = np.ones((GAP, width, 3), np.float32)
    return np.concatenate([part for row in rows for part in (gap, row)] + [gap])


def _row(each: Restored) -> Floats:
    side = len(each.after)
    before = opencv().resize(each.before, (side, side), interpolation=opencv().INTER_LINEAR)
    gap = np.ones((side, GAP, 3), np.float32)
    return np.concatenate([gap, before, gap, each.after, gap], axis=1)


def _write(pixels: Floats, path: Path) -> None:
    write_picture(Picture(pixels=np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)), path)
