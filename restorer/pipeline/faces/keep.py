"""What may be kept beside a restored picture: its faces before and after, a sheet of them, and what was found."""

import io
import json
import logging
from collections.abc import Sequence

import numpy as np

from restorer.pipeline.beside import Aside
from restorer.pipeline.codecs.colour import profile_for
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.detectors.seam import Bytes
from restorer.pipeline.faces.beside import BOTH, FaceKeeper
from restorer.pipeline.faces.work import AlignedWork, FaceWork, Restored
from restorer.pipeline.files import Job
from restorer.pipeline.picture import Picture, write_picture
from restorer.pipeline.work import Work

log = logging.getLogger(__name__)
MOST_ROWS = 40
"""Faces of a sheet; a picture may have hundreds."""
GAP = 8


def keep_beside(job: Job, work: Work, aside: Aside, wanted: FaceKeeper) -> None:
    """Hand over what was asked for of a picture whose work was run. WriteError: the disk is full."""
    assert isinstance(work, FaceWork | AlignedWork)
    for each in work.restored if wanted.crops else ():
        for when, pixels in zip(BOTH, (each.before, each.after), strict=True):
            aside.add(wanted.crop_of(job, each.face.number, when), _png(pixels, work.picture))
    if job.output is None:
        return
    if wanted.compare and work.restored:
        aside.add(wanted.sheet_of(job), _png(sheet(work.restored), work.picture))
    if wanted.sidecar:
        told = {"input": job.label, "output": str(job.output), **work.told()}
        aside.add(wanted.list_of(job), (json.dumps(told, indent=1) + "\n").encode())


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


def _png(pixels: Bytes, like: Picture) -> bytes:
    """(h, w, 3) as a PNG file, with what `like` says of its colours as far as it says that of RGB."""
    icc, _ = profile_for(like.icc, 3)
    chunks = {key: value for key, value in like.meta.items() if key.startswith("png:")}
    file = io.BytesIO()
    write_picture(Picture(pixels=pixels, icc=icc, meta=chunks), file, format="PNG")
    return file.getvalue()
