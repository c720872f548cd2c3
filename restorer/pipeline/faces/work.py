"""The way of a face: found, chosen, aligned, restored in batches, and pasted into the rows of the finished picture."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.engines import Engine
from restorer.engines.shared import memory_errors
from restorer.errors import OutOfMemoryError, PictureError
from restorer.pipeline.detectors.seam import Bytes, Detection, Detector, scaled, shrunk
from restorer.pipeline.events import Event, engine_told
from restorer.pipeline.faces.align import SIDE, TEMPLATE, Matrix, aligned, resized, size_of, then, within
from restorer.pipeline.faces.choose import NOT_CHOSEN, Face, check_numbers, choose
from restorer.pipeline.faces.paste import Floats, Paster, Patch, Placed, place, where_it_pays
from restorer.pipeline.guard import fault
from restorer.pipeline.picture import PEAKS, Picture, PictureInfo, Pixels
from restorer.pipeline.plain import Plain
from restorer.pipeline.restore import Progress, Upscale
from restorer.pipeline.settings import FaceSettings, UpscaleSettings, wanted_faces
from restorer.pipeline.source import ArrayTaker, RowTaker, bleed

log = logging.getLogger(__name__)
BATCHES = {True: 1, False: 8}
"""Faces that a network gets at once, on a processor and on a device."""
LOOKED_AT = 4096
"""Longest side of what a detector is given of a picture that is not 8-bit RGB."""
COLOUR_CELLS = 16
"""Cells along a face's side, whose mean colour is held."""
CELLS_REACHED = 2
"""How far bicubic interpolation looks beyond a cell."""
LEAST_SHARE = 1e-6
"""Less than one pixel of a cell; keeps an empty one from dividing by zero."""
Masks = Callable[[Tensor], Floats]
"""(N, 3, S, S) faces in [0, 1] -> (N, S, S) in [0, 1], soft: what of them belongs to the face."""
Likeness = Callable[[Tensor, Tensor], Tensor]
"""(N, 3, S, S) in [0, 1], same -> (N,) in [-1, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tools:
    """What faces are restored with, open and ready."""

    engine: Engine
    """For faces: one that takes them at its one size, or one that enlarges them to the template."""
    detector: Detector | None
    """None where pictures are faces already."""
    masks: Masks
    likeness: Likeness | None = None

    @property
    def side(self) -> int:
        """Of the aligned faces that go in."""
        fixed = self.engine.traits.fixed_size
        return SIDE // self.engine.traits.scale if fixed is None else fixed[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Restored:
    """A face before and after, for who looks at it, and what is pasted."""

    face: Face
    before: Bytes
    """(s, s, 3): as it went in."""
    after: Bytes
    """(S, S, 3)"""
    patch: Patch | None
    """None once it is in its place."""


class FaceWork:
    """One picture's plan: its faces are found and chosen when it is made. See Work."""

    def __init__(self, picture: Picture, background: Upscale | Plain, tools: Tools, settings: FaceSettings) -> None:
        assert tools.detector is not None
        self.picture, self.background, self.tools, self.settings = picture, background, tools, settings
        self.size_in, self.size_out = background.size_in, background.size_out
        self._pixels = _seen(picture)
        self.faces = choose(
            found_in(self._pixels, tools.detector, settings.confidence),
            self.size_in,
            only=settings.only,
            least=settings.min_face,
            most=settings.max_face,
        )
        for face in self.faces:
            face.strength = settings.strengths.get(face.number, settings.strength)
        self.restored: list[Restored] = []

    @property
    def pixels(self) -> int:
        """What `progress` counts to."""
        return self.background.pixels + len(self._wanted()) * self.tools.side**2

    @property
    def info(self) -> PictureInfo:
        """What the result is, but for its pixels."""
        return replace(self.picture.info, size=self.size_out)

    def run(self, open_rows: Callable[[], RowTaker], *, progress: Progress | None = None) -> None:
        """Restore the faces, then send the rows of the background to what `open_rows` gives, with faces in them."""
        total = self.pixels
        self.restored, placed = [], list[Placed]()
        for done in restore_faces(self._pixels, self._wanted(), self.tools, self.settings):
            assert done.patch is not None
            there = place(done.patch, self.size_in, self.size_out)
            placed = ([there] if there is not None else []) + placed  # the larger over the smaller
            self.restored.append(replace(done, patch=None))
            if progress is not None:
                progress(len(self.restored) * self.tools.side**2, total)
        before = total - self.background.pixels

        def pasting() -> RowTaker:
            device = where_it_pays(self.tools.engine.device)
            return Paster(placed, open_rows(), channels=self.picture.channels, device=device)

        self.background.run(pasting, progress=progress and (lambda done, _: progress(before + done, total)))

    def told(self) -> Event:
        """What a plan and a result say of it."""
        engine = self.tools.engine
        seconds = len(self._wanted()) * self.tools.side**2 / max(1.0, engine.pixels_per_second)
        told = self.background.told()
        if isinstance(self.background, Plain):
            told |= engine_told(engine)
        return {
            **told,
            "faces": [face.told() for face in self.faces],
            "estimated_seconds": round(float(str(told["estimated_seconds"])) + seconds, 1),
        }

    @property
    def notices(self) -> list[str]:
        """What should be said of the picture beside its result."""
        if not self.faces:
            return ["no face found"]
        passed = [face for face in self.faces if face.skipped == NOT_CHOSEN]
        told = [
            f"face {face.number} {face.skipped}; it is left as it is"
            for face in self.faces
            if face.skipped not in ("", NOT_CHOSEN)
        ]
        told += [f"{len(passed)} of {len(self.faces)} faces were not chosen"] if passed else []
        told += [
            f"face {face.number} is larger than the network takes, and may get softer; --max-face leaves it as it is"
            for face in self._wanted()
            if face.matrix is not None and size_of(face.matrix) * self.tools.side / SIDE < 1
        ]
        return told

    @property
    def lacking(self) -> list[str]:
        """Numbers that were given a strength and that no face has, each in a sentence."""
        return _without_a_face(self.settings, self.faces)

    def _wanted(self) -> list[Face]:
        return [face for face in self.faces if not face.skipped]


class AlignedWork:
    """One picture that is a face already, cut to the template. See Work."""

    def __init__(self, picture: Picture, tools: Tools, settings: FaceSettings) -> None:
        height, width = picture.size
        if height != width:
            raise PictureError(
                f"is {width}x{height}, and an aligned face is a square; leave --aligned out to have faces found"
            )
        only = wanted_faces(settings.only)
        if isinstance(only, tuple):
            check_numbers(only, 1)
        self.picture, self.tools, self.settings = picture, tools, settings
        self.size_in, side = picture.size, tools.side * tools.engine.traits.scale
        self.size_out = (side, side)
        self.pixels = tools.side**2
        strength = settings.strengths.get(1, settings.strength)
        to_side = resized(SIDE / width, SIDE / height)
        box = (0.0, 0.0, float(width), float(height))
        landmarks = np.array(TEMPLATE) * (width / SIDE)
        self.faces = [Face(number=1, box=box, landmarks=landmarks, score=1.0, strength=strength, matrix=to_side)]
        self.restored: list[Restored] = []

    @property
    def info(self) -> PictureInfo:
        """What the result is, but for its pixels."""
        return replace(self.picture.info, size=self.size_out)

    def run(self, open_rows: Callable[[], RowTaker], *, progress: Progress | None = None) -> None:
        """Restore the face and send its rows on; nothing of it is masked."""
        take = open_rows()
        self.restored = list(restore_faces(_seen(self.picture), self.faces, self.tools, self.settings))
        side = self.size_out[0]
        plain = ArrayTaker(
            self.size_out, self.picture.channels + (self.picture.alpha is not None), self.picture.pixels.dtype
        )
        Plain(self.picture, _sized(self.settings, side)).run(lambda: plain)
        ones = np.full((side, side), self.faces[0].strength, np.float32)
        placed = [
            place(replace(each.patch, mask=ones), self.size_in, self.size_out) for each in self.restored if each.patch
        ]
        faces = [there for there in placed if there is not None]
        Paster(faces, take, channels=self.picture.channels)(plain.array)
        if progress is not None:
            progress(self.pixels, self.pixels)

    def told(self) -> Event:
        """What a plan and a result say of it."""
        engine = self.tools.engine
        seconds = self.pixels / max(1.0, engine.pixels_per_second)
        return {
            **Plain(self.picture, _sized(self.settings, self.size_out[0])).told(),
            **engine_told(engine),
            "faces": [self.faces[0].told()],
            "estimated_seconds": round(seconds, 1),
        }

    @property
    def notices(self) -> list[str]:
        """What should be said of the picture beside its result."""
        return [f"the face {self.faces[0].skipped}; it is left as it is"] if self.faces[0].skipped else []

    @property
    def lacking(self) -> list[str]:
        """Numbers that were given a strength and that no face has, each in a sentence."""
        return _without_a_face(self.settings, self.faces)


def _without_a_face(settings: FaceSettings, faces: Sequence[Face]) -> list[str]:
    """Among many pictures a strength for face 2 means those that have two, and says nothing about the others.

    Only where no picture of a run has such a face is it a mistake, and worth a line.
    """
    missing = sorted(set(settings.strengths) - {face.number for face in faces})
    return [f"no face has the number {number}, whose strength was set" for number in missing]


def found_in(pixels: Pixels, detector: Detector, least_score: float | None) -> list[Detection]:
    """(H, W, 1 or 3) of any depth -> its faces, in its own pixels; None is the detector's own least score."""
    small, ratios = _as_bytes(pixels)
    found = detector(small) if least_score is None else detector(small, least_score=least_score)
    return scaled(found, ratios)


def _as_bytes(pixels: Pixels) -> tuple[Bytes, tuple[float, float]]:
    """(H, W, C) -> (h, w, 3), smaller where that must be made, and what to multiply its x and y by."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels, (1.0, 1.0)
    small, ratios = shrunk(pixels, LOOKED_AT)
    small = small.reshape(*small.shape[:2], -1)  # OpenCV drops an axis of one
    levels = np.clip(small.astype(np.float32) * np.float32(255 / PEAKS[pixels.dtype.name]), 0, 255)
    return np.broadcast_to(np.rint(levels), (*small.shape[:2], 3)).astype(np.uint8), ratios


def restore_faces(pixels: Pixels, faces: Sequence[Face], tools: Tools, settings: FaceSettings) -> Iterator[Restored]:
    """(H, W, C), faces in it -> each before and after, as they are done. One that fails in float32 too is skipped."""
    size, start = 1 if tools.engine.traits.batch_of_one else BATCHES[tools.engine.on_cpu], 0
    while start < len(faces):
        batch = faces[start : start + size]
        try:
            with memory_errors(torch.empty(len(batch), 3, tools.side, tools.side), tools.engine.where):
                done = _restored(pixels, batch, tools, settings)
        except OutOfMemoryError:
            if size == 1:
                raise
            size = max(1, size // 2)
            log.warning("not enough memory; goes on with %d faces at a time", size)
            continue
        yield from done
        start += len(batch)


@torch.inference_mode()
def _restored(pixels: Pixels, faces: Sequence[Face], tools: Tools, settings: FaceSettings) -> list[Restored]:
    matrices = [_to_side(_known(face), tools.side) for face in faces]
    crops = [aligned(pixels, matrix, tools.side, is_cut=settings.aligned) for matrix in matrices]
    x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(tools.engine.device)
    y = tools.engine.run({"image": x})["image"]
    good = [
        index for index, face in enumerate(faces) if _is_good(face, x[index : index + 1], y[index : index + 1], tools)
    ]
    if not good:
        return []
    y = y[good].clamp(0, 1)
    if settings.match_colour:
        inside = np.stack([within(matrices[index], pixels.shape[:2], tools.side) for index in good])
        y = with_colour_of(y, x[good], torch.from_numpy(inside)[:, None].to(x))
    masks = tools.masks(y)
    after = y.permute(0, 2, 3, 1).float().cpu().numpy()
    chosen = [faces[index] for index in good]
    if tools.likeness is not None:
        for face, score in zip(chosen, tools.likeness(x[good], y).tolist(), strict=True):
            face.likeness = score
    done = []
    for index, face, pixels_after, mask in zip(good, chosen, after, masks, strict=True):
        if not mask.any():
            face.skipped = "has no outline that the parser sees"
            continue
        patch = Patch(
            pixels=pixels_after,
            mask=mask * np.float32(face.strength),
            matrix=_to_side(_known(face), len(pixels_after)),
        )
        done.append(Restored(face=face, before=_bytes(crops[index]), after=_bytes(pixels_after), patch=patch))
    return done


def _bytes(pixels: Floats) -> Bytes:
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


def _seen(picture: Picture) -> Pixels:
    """The picture's colour; what is hidden by alpha is not looked at."""
    return picture.pixels if picture.alpha is None else bleed(picture.pixels, picture.alpha)


def _is_good(face: Face, x: Tensor, y: Tensor, tools: Tools) -> bool:
    """(1, 3, s, s), (1, 3, S, S): look at one result; a faulty one is made again in float32, in place, or skipped."""
    wrong = fault(x, y)
    if wrong is not None and tools.engine.run_again is not None:
        log.warning("face %d came back with %s; it is done again in float32", face.number, wrong)
        y.copy_(tools.engine.run_again(x))
        wrong = fault(x, y)
    if wrong is not None:
        face.skipped = f"came back with {wrong}"
    return wrong is None


def with_colour_of(y: Tensor, x: Tensor, inside: Tensor) -> Tensor:
    """(N, 3, S, S), (N, 3, s, s), (N, 1, s, s) in [0, 1] -> y with the mean colour of x in COLOUR_CELLS squared cells.

    Only what is `inside` the picture counts; cells beyond take on what is known of those next to them.
    """
    apart = _means(x, inside) - _means(y, F.interpolate(inside, y.shape[-2:]))
    known = (F.adaptive_avg_pool2d(inside, COLOUR_CELLS) > 0).to(y)
    for _ in range(CELLS_REACHED):
        near = F.avg_pool2d(known, 3, 1, 1)
        apart = torch.where(known > 0, apart, F.avg_pool2d(apart * known, 3, 1, 1) / near.clamp(min=LEAST_SHARE))
        known = (near > 0).to(y)
    smooth = F.interpolate(apart, y.shape[-2:], mode="bicubic", align_corners=False)
    return (y + smooth).clamp(0, 1)


def _means(x: Tensor, inside: Tensor) -> Tensor:
    """(N, 3, s, s), (N, 1, s, s) -> (N, 3, COLOUR_CELLS, COLOUR_CELLS)."""
    shares = F.adaptive_avg_pool2d(inside, COLOUR_CELLS)
    return F.adaptive_avg_pool2d(x * inside, COLOUR_CELLS) / shares.clamp(min=LEAST_SHARE)


def _known(face: Face) -> Matrix:
    assert face.matrix is not None, "a face without a matrix is skipped"
    return face.matrix


def _to_side(matrix: Matrix, side: int) -> Matrix:
    """From the picture to an aligned face of `side` pixels instead of SIDE."""
    return then(matrix, resized(side / SIDE, side / SIDE))


def _sized(settings: FaceSettings, side: int) -> UpscaleSettings:
    limits = settings.background
    return UpscaleSettings(width=side, height=side, max_megapixels_in=limits.max_megapixels_in)
