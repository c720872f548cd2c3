"""Open what faces are restored with: the face network, a detector, what outlines a face, what compares two."""

from collections.abc import Callable

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from restorer.engines import Engine, open_engine
from restorer.engines.precision import device_names
from restorer.errors import UsageError
from restorer.networks import bisenet, parsenet
from restorer.networks.arcface import as_grey, likeness
from restorer.networks.spec import Model
from restorer.pipeline.codecs.deep import opencv
from restorer.pipeline.detectors import open_detector
from restorer.pipeline.faces.align import SIDE, TEMPLATE
from restorer.pipeline.faces.at_hand import with_parser
from restorer.pipeline.faces.mask import Floats, hull_mask, mask_of_classes
from restorer.pipeline.faces.work import Likeness, Masks, Tools
from restorer.pipeline.settings import NO_MODEL, FaceSettings

OpenModel = Callable[..., Model]
"""As `restorer.api.open_model`."""
PLAIN_DEVICES = ("auto", "cpu", "cuda", "mps")
CLASSES = {"parsenet": parsenet.CLASSES, "bisenet": bisenet.CLASSES}


def open_tools(settings: FaceSettings, open_model: OpenModel) -> Tools:
    """Find, recognise and open all of it; a model that is of no use here is refused with what it is for."""
    engine = _opened(_of_task(open_model, settings.model, ("face", "upscale", "restore"), settings.facts), settings)
    scale, side = engine.traits.scale, engine.traits.fixed_size
    if side is None and SIDE % scale:
        raise UsageError(
            f"{settings.model} enlarges {scale} times, which does not fill {SIDE} pixels; use another model"
        )
    if engine.traits.in_channels != 3:
        raise UsageError(f"{settings.model} takes {engine.traits.in_channels} channels, and faces have 3; use another")
    small = SIDE // scale
    if side is None and (small % engine.traits.multiple_of or small < engine.traits.min_side):
        raise UsageError(f"{settings.model} does not take faces of {small} pixels; use another model")
    device = _device(settings)
    return Tools(
        engine=engine,
        detector=None if settings.aligned else open_detector(settings.detector, device=device, facts=settings.facts),
        masks=_masks(settings, open_model),
        likeness=_likeness(settings, open_model) if settings.identity else None,
    )


def _of_task(open_model: OpenModel, name: str, tasks: tuple[str, ...], facts: object = None) -> Model:
    model = open_model(name, facts=facts)
    if model.spec.task not in tasks:
        raise UsageError(f"{name} is a '{model.spec.task}' network; here one of '{tasks[0]}' is needed")
    return model


def _opened(model: Model, settings: FaceSettings) -> Engine:
    run = settings.background
    return open_engine(model, kind=run.engine, device=device_names(run.device)[0], precision=run.precision)


def _masks(settings: FaceSettings, open_model: OpenModel) -> Masks:
    name = with_parser(settings).parser
    if name == NO_MODEL:
        return _rounded
    model = _of_task(open_model, name, ("parse",))
    engine, classes = _eager(model, settings), CLASSES[model.spec.name]

    def outlined(faces: Tensor) -> Floats:
        whole = F.interpolate(faces, (SIDE, SIDE), mode="bilinear", align_corners=False)
        masks = mask_of_classes(engine.run({"image": whole.to(engine.device)})["image"], classes)
        return _fitted(masks, faces)

    return outlined


def _eager(model: Model, settings: FaceSettings) -> Engine:
    return open_engine(model, kind="eager", device=_device(settings), precision="fp32")


def _device(settings: FaceSettings) -> str:
    """Where detectors and parsers run: PyTorch alone computes them, and TensorRT and the like are none of its own."""
    asked = device_names(settings.background.device)[0]
    return asked if asked.split(":")[0] in PLAIN_DEVICES else "auto"


def _rounded(faces: Tensor) -> Floats:
    """(N, 3, S, S) -> (N, S, S): the same mask for all, since they all lie as the template does."""
    return _fitted(hull_mask(np.array(TEMPLATE), SIDE)[None].repeat(len(faces), axis=0), faces)


def _fitted(masks: Floats, faces: Tensor) -> Floats:
    side = faces.shape[-1]
    if masks.shape[-1] == side:
        return masks
    return np.stack([opencv().resize(mask, (side, side), interpolation=opencv().INTER_AREA) for mask in masks])


def _likeness(settings: FaceSettings, open_model: OpenModel) -> Likeness:
    model = _of_task(open_model, settings.identity, ("identity",))
    engine = _eager(model, settings)
    side, _ = engine.traits.fixed_size or (SIDE, SIDE)

    def compared(before: Tensor, after: Tensor) -> Tensor:
        greys = (as_grey(each, side).to(engine.device) for each in (before, after))
        one, other = (engine.run({"image": grey})["image"] for grey in greys)
        return likeness(one, other)

    return compared
