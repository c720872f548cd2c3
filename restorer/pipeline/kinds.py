"""Pictures of other kinds, arrays and PIL images: in as a Picture, out as what they were."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from restorer.errors import PictureError
from restorer.pipeline.codecs.intake import naming
from restorer.pipeline.codecs.modes import to_arrays
from restorer.pipeline.picture import Picture, read_picture
from restorer.pipeline.restore import Progress
from restorer.pipeline.source import ArrayTaker, RowTaker
from restorer.pipeline.work import Work

log = logging.getLogger(__name__)
ARRAY_DTYPES = ("uint8", "uint16", "float32")
"""What the pipeline computes in; other floats are made float32 on the way in and what they were on the way out."""
BRIGHTEST = 64.0
"""Floats above this are thought to be a mistake of scale."""
KEPT_BY_PIL = ("dpi", "exif", "xmp")
Run = Callable[[Picture], Picture]


def worked(work: Work, progress: Progress | None = None) -> Picture:
    """Do the work on a picture in memory: the result has its depth, alpha, profile and metadata."""
    info = work.info
    takers: list[ArrayTaker] = []

    def open_rows() -> RowTaker:
        takers[:] = [ArrayTaker(info.size, info.samples, info.dtype)]
        return takers[0]

    work.run(open_rows, progress=progress)
    array = takers[0].array
    colour, alpha = array[:, :, : info.channels], array[:, :, -1].copy() if info.alpha else None
    return Picture(pixels=colour, alpha=alpha, icc=info.icc, dpi=info.dpi, meta=info.meta, source=info.source)


def through(x: Any, run: Run, *, limit_pixels: int) -> Any:
    """A PIL image or an array -> the same kind, through `run`; a path, bytes or a Picture -> a Picture."""
    if isinstance(x, Picture):
        return run(x)
    if isinstance(x, np.ndarray):
        return through_array(x, run)
    if isinstance(x, str | Path | bytes):
        return run(read_picture(x, limit_pixels=limit_pixels))
    if isinstance(x, Image.Image):
        return through_pil(x, run)
    raise PictureError(f"cannot make a picture of {type(x).__name__}; give PIL, an array, a tensor, bytes or a path")


def through_tensor(x: Tensor, run: Run) -> Tensor:
    """(N, C, H, W) of uint8, or of floats in [0, 1] -> the same dtype and device, through `run`, one by one."""
    if x.ndim != 4:
        raise PictureError(f"expected a tensor (N, C, H, W), got shape {tuple(x.shape)}; a single picture is x[None]")
    there = x.detach().cpu()
    array = (there.float() if there.is_floating_point() else there).permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(through_array(array, run)).permute(0, 3, 1, 2).to(x.device, x.dtype)


def through_array(x: NDArray[Any], run: Run) -> NDArray[Any]:
    """(H, W[, 1 to 4]) or (N, H, W, C) -> the same kind, through `run`, which may make colour of grey.

    RGB, uint8, uint16 or float in [0, 1].
    """
    if x.ndim == 4 and len(x):
        return np.stack([through_array(item, run) for item in x]).astype(x.dtype, copy=False)
    if x.ndim == 2:
        made = through_array(x[:, :, None], run)
        return made[:, :, 0] if made.shape[2] == 1 else made
    if x.ndim != 3 or x.shape[2] not in (1, 2, 3, 4):
        raise PictureError(f"expected an array (H, W[, 1 to 4]) or (N, H, W, C), got shape {x.shape}")
    if x.dtype.name not in ARRAY_DTYPES and x.dtype.kind != "f":
        raise PictureError(f"expected uint8, uint16 or float in [0, 1], got {x.dtype}; convert it first")
    if x.dtype.kind == "f" and x.size:
        warn_of_bytes(float(x.max()))
    pixels = x.astype(x.dtype.name if x.dtype.name in ARRAY_DTYPES else np.float32, copy=False)
    alpha = pixels[:, :, -1] if x.shape[2] in (2, 4) else None
    colour = pixels[:, :, : 3 if x.shape[2] >= 3 else 1]
    out = _joined(run(Picture(pixels=np.ascontiguousarray(colour), alpha=alpha)))
    in_range = x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1
    return (out.clip(0, 1) if in_range else out).astype(x.dtype)


def through_pil(image: Image.Image, run: Run) -> Image.Image:
    """An image -> an image, through `run`; modes that are no pixels (P, 1, CMYK, ...) become what they stand for."""
    if image.mode in ("I", "F"):
        raise PictureError(f"a PIL image of mode {image.mode} does not say what is white; convert it to I;16 or L")
    with naming("PIL image"):
        arrays = to_arrays(image, bits=1 if image.mode == "1" else 8)
    for notice in arrays.notices:
        log.warning("PIL image: %s", notice)
    deep = arrays.pixels.dtype == np.uint16  # PIL has no 16-bit grey with alpha
    done = run(Picture(pixels=arrays.pixels, alpha=None if deep else arrays.alpha, icc=arrays.icc))
    array = _joined(done)
    out = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    out.info = {key: image.info[key] for key in KEPT_BY_PIL if key in image.info}
    if done.icc is not None:
        out.info["icc_profile"] = done.icc
    return out


def warn_of_bytes(largest: float) -> None:
    """Scene values of a few times white are common; 255 is most often a forgotten division."""
    if largest > BRIGHTEST:
        log.warning("floats are taken to be in [0, 1], but go up to %g; divide by 255 if that is white", largest)


def _joined(picture: Picture) -> NDArray[Any]:
    """(H, W, C[+1]): alpha last."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[:, :, None]], axis=2)
