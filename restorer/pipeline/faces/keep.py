"""What may be kept beside a restored picture: its faces before and after, a sheet of them, and what was found."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from restorer.errors import WriteError
from restorer.pipeline.codecs.colour import profile_for
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.detectors.seam import Bytes
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
    """Write what was asked for, named after the whole output, and tell the job of it. WriteError: the disk is full."""
    assert isinstance(work, FaceWork | AlignedWork)
    name = Path(job.label).name if job.output is None else job.output.name
    if crops is not None:
        in_tree = job.output is not None and job.output != Path(job.name)
        folder = crops / Path(job.name).parent if in_tree else crops
        make_folder(folder)
        for each in work.restored:
            for when, pixels in (("before", each.before), ("after", each.after)):
                _write(pixels, folder / f"{name}-{each.face.number}-{when}.png", job, work.picture)
    if job.output is None:
        return
    make_folder(job.output.parent)
    if compare and work.restored:
        _write(sheet(work.restored), job.output.with_name(f"{name}.faces.png"), job, work.picture)
    if sidecar:
        told = {"input": job.label, "output": str(job.output), **work.told()}
        path = job.output.with_name(f"{name}.faces.json")
        job.beside.append(path)
        write_whole(path, [(json.dumps(told, indent=1) + "\n").encode()])


def sheet(restored: Sequence[Restored]) -> Bytes:
    """Faces -> (H, W, 3): one row each, before and after, numbered from above."""
    if len(restored) > MOST_ROWS:
        log.warning("the sheet shows the first %d of %d faces", MOST_ROWS, len(restored))
    rows = [_row(each) for each in restored[:MOST_ROWS]]
    width = max(row.shape[1] for row in rows)
    gap = np.full((GAP, width, 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (gap, row)] + [gap])


def _row(each: Restored) -> Bytes:
    side = len(each.after)
    before = opencv().resize(each.before, (side, side), interpolation=opencv().INTER_LINEAR)
    gap = np.full((side, GAP, 3), 255, np.uint8)
    return np.concatenate([gap, before, gap, each.after, gap], axis=1)


def _write(pixels: Bytes, path: Path, job: Job, like: Picture) -> None:
    """(h, w, 3) as PNG, with what `like` says of its colours as far as it says that of RGB."""
    if job.source is not None and path.absolute() == job.source.absolute():
        raise WriteError(f"{path}: is the input itself; choose another output")
    job.beside.append(path)
    icc, _ = profile_for(like.icc, 3)
    chunks = {key: value for key, value in like.meta.items() if key.startswith("png:")}
    write_picture(Picture(pixels=pixels, icc=icc, meta=chunks), path)
