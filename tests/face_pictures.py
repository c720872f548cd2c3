"""Smooth pictures with faces in known places, and Faces that find what they are told."""

import cv2
import numpy as np
from engines import FakeEngine

from restorer import UpscaleSettings
from restorer.api import Faces, Restorer
from restorer.pipeline.detectors.seam import Detection
from restorer.pipeline.faces import align
from restorer.pipeline.faces.align import SIDE
from restorer.pipeline.faces.mask import hull_mask
from restorer.pipeline.faces.work import Tools
from restorer.pipeline.settings import FaceSettings

TEMPLATE = np.array(align.TEMPLATE)


def smooth(size, channels=3, seed=0):
    """A picture without anything finer than a dozen pixels."""
    height, width = size
    small = np.random.default_rng(seed).random((height // 12 + 2, width // 12 + 2, channels)).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1).reshape(height, width, channels)


def face_at(centre, side, *, turn=0.0, score=0.9):
    """A detection whose landmarks are the template's, `side` pixels large and turned."""
    cos, sin = np.cos(turn) * side / SIDE, np.sin(turn) * side / SIDE
    points = (TEMPLATE - SIDE / 2) @ np.array([[cos, sin], [-sin, cos]]) + centre
    low, high = points.min(0) - side / 8, points.max(0) + side / 8
    return Detection(box=(*low, *high), landmarks=points, score=score)


class Finder:
    """Finds what it was told."""

    name = "told"

    def __init__(self, *found):
        self.found, self.seen = list(found), []

    def __call__(self, pixels, *, least_score=0.5):
        self.seen.append(pixels)
        return [each for each in self.found if each.score >= least_score]


def faces_of(*found, engine=None, around=None, masks=None, **settings):
    """Faces that find `found`; the network gives back what it is given."""
    rest = settings.pop("background", UpscaleSettings(model="none", scale=2))
    hull = hull_mask(TEMPLATE)
    tools = Tools(
        engine=engine or FakeEngine(scale=1, fixed_size=(SIDE, SIDE)),
        detector=Finder(*found),
        masks=masks or (lambda y: np.stack([cv2.resize(hull, (y.shape[-1],) * 2) for _ in y])),
    )
    background = None if around is None else Restorer(around, rest)
    return Faces(tools, background, FaceSettings(background=rest, **settings))
