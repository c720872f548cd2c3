"""What users and apps call: open a model once, then hand it pictures of any kind and get the same kind back."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restorer import machine
from restorer.engines import Engine, open_engine
from restorer.errors import (
    OutOfMemoryError,
    PictureError,
    UnknownWeightsError,
    UnsupportedError,
    UsageError,
    WeightsError,
    wrong_task,
)
from restorer.networks.foreign import load_foreign
from restorer.networks.spec import Model, StateDict, load_weights
from restorer.pipeline.faces.choose import Face
from restorer.pipeline.faces.tools import open_tools
from restorer.pipeline.faces.work import AlignedWork, FaceWork, Tools
from restorer.pipeline.kinds import through, through_array, through_pil, through_tensor, warn_of_bytes, worked
from restorer.pipeline.labels import read_palette
from restorer.pipeline.picture import Picture, read_picture
from restorer.pipeline.plain import Plain
from restorer.pipeline.restore import Progress, Upscale
from restorer.pipeline.settings import NO_MODEL, SMALLEST_TILE, FaceSettings, TranslateSettings, UpscaleSettings
from restorer.pipeline.tensors import restore_tensor
from restorer.pipeline.translate import Translation
from restorer.weights.directions import model_for
from restorer.weights.find import find_weights
from restorer.weights.read import is_onnx, read_checkpoint
from restorer.weights.records import check_command, partners

log = logging.getLogger(__name__)
DEFAULTS, FACE_DEFAULTS = UpscaleSettings(), FaceSettings()
MOST_AT_ONCE = 16


def open_model(name: str | Path, *, facts: Mapping[str, object] | None = None, denoise: float | None = None) -> Model:
    """Find, read and recognise weights; with `denoise`, mix them with their partner's.

    `facts` say what weights cannot say about themselves, and win over the file's own.
    """
    weights, known = _weights(name)
    if denoise is not None:
        one, other = partners(str(name))
        strong, weak = (_weights(record.name)[0] for record in (one, other))
        weights = _mixed(strong, weak, denoise)
    try:
        return load_weights(weights, facts={**known, **(facts or {})})
    except UnknownWeightsError as e:
        if foreign := _foreign(name, weights, {**known, **(facts or {})}):
            return foreign
        cure = "" if machine.installed("spandrel") else '; many more with: pip install "restorer[spandrel]"'
        raise UnknownWeightsError(f"{name}: {e}{cure}") from e
    except WeightsError as e:
        raise type(e)(f"{name}: {e}") from e


class Restorer:
    """A model, ready to run: call it with pictures.

    PIL images, arrays (H, W[, C]) or (N, H, W, C) and tensors (N, C, H, W) come back as what they were, lists as lists;
    a path, bytes or a Picture give a Picture. Arrays are RGB, uint8, uint16 or float in [0, 1].
    """

    def __init__(self, engine: Engine, settings: UpscaleSettings) -> None:
        channels = engine.traits.in_channels, engine.traits.out_channels
        if channels not in ((3, 3), (1, 1)):
            raise UsageError(
                f"this network makes {channels[1]} channels of {channels[0]}; use one of 3 and 3, or 1 and 1"
            )
        self.engine, self.settings = engine, settings

    @classmethod
    def open(cls, model: str | Path | None = None, *, settings: UpscaleSettings = DEFAULTS) -> "Restorer":
        """Find the weights, recognise their network, choose device and precision; `model` wins over the settings'."""
        if model is not None:
            settings = replace(settings, model=str(model))
        check_command(settings.model, "upscale")
        if is_onnx(path := find_weights(settings.model).path):
            return cls(_of_file(path, settings), settings)
        loaded = open_model(settings.model, facts=settings.facts, denoise=settings.denoise)
        if loaded.spec.task not in ("upscale", "restore"):
            raise wrong_task(settings.model, loaded.spec.task)
        engine = open_engine(loaded, kind=settings.engine, device=settings.device, precision=settings.precision)
        return cls(engine, settings)

    def plan(self, picture: Picture) -> Upscale:
        """What would be done to a picture, or is about to be."""
        _look_at(picture, self.engine)
        return Upscale(picture, self.engine, self.settings)

    def restore(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Picture -> Picture of the size the settings ask for; depth, alpha, profile and metadata are kept."""
        return worked(self.plan(picture), progress)

    def __call__(self, x: Any) -> Any:
        """A picture of any kind -> the same kind, larger."""
        if isinstance(x, list | tuple):
            return [self(item) for item in x]
        if isinstance(x, Tensor):
            return self._tensor(x)
        return through(x, self.restore, limit_pixels=int(self.settings.max_megapixels_in * 1e6))

    def _tensor(self, x: Tensor) -> Tensor:
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise PictureError("the tensor holds NaN or infinity; replace them first, such as with torch.nan_to_num")
        if x.is_floating_point() and x.numel():
            warn_of_bytes(float(x.max()))
        tile, most = self.settings.tile, MOST_AT_ONCE
        while True:
            try:
                return restore_tensor(x, self.engine, replace(self.settings, tile=tile), most=most)
            except OutOfMemoryError:
                smallest = tile is not None and 0 < tile <= SMALLEST_TILE
                if most == 1 and (smallest or self.engine.traits.fixed_size is not None):
                    raise
                if most == 1:
                    tile = max(SMALLEST_TILE, (tile or max(x.shape[-2:])) // 2)
                most = 1  # first one tile at a time, then smaller ones


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceResult:
    """A picture with its faces restored, and what became of each."""

    picture: Any
    """Of the kind that was given; a path or bytes give a Picture."""
    faces: tuple[Face, ...]
    """Boxes, landmarks, scores, strengths, and why a face was left as it was; the largest first."""


class Faces:
    """A face model, a detector and a model for the rest, ready to run: call it with pictures, as a Restorer."""

    def __init__(self, tools: Tools, background: Restorer | None, settings: FaceSettings) -> None:
        """`background` None resamples plainly."""
        self.tools, self.background, self.settings = tools, background, settings
        self.engine = tools.engine

    @classmethod
    def open(cls, model: str | Path | None = None, *, settings: FaceSettings = FACE_DEFAULTS) -> "Faces":
        """Find all weights, recognise their networks, choose device and precision; `model` wins over the settings'."""
        if model is not None:
            settings = replace(settings, model=str(model))
        check_command(settings.model, "faces")
        rest = settings.background
        background = None
        if rest.model != NO_MODEL and not settings.aligned:
            background = Restorer.open(settings=rest)
        return cls(open_tools(settings, open_model), background, settings)

    def plan(self, picture: Picture) -> FaceWork | AlignedWork:
        """What would be done to a picture, or is about to be: its faces are found now."""
        _check_finite(picture)
        if self.settings.aligned:
            return AlignedWork(picture, self.tools, self.settings)
        rest = self.settings.background
        around = Plain(picture, rest) if self.background is None else self.background.plan(picture)
        return FaceWork(picture, around, self.tools, self.settings)

    def restore(self, picture: Picture, *, progress: Progress | None = None) -> FaceResult:
        """Picture -> the picture with its faces restored; depth, alpha, profile and metadata are kept."""
        work = self.plan(picture)
        done = worked(work, progress)
        return FaceResult(picture=done, faces=tuple(work.faces))

    def __call__(self, x: Any) -> FaceResult:
        """A PIL image, an array (H, W[, C]), a Picture, bytes or a path -> the result, with the same kind in it."""
        if isinstance(x, Picture):
            return self.restore(x)
        if isinstance(x, str | Path | bytes):
            return self.restore(read_picture(x, limit_pixels=int(self.settings.max_megapixels_in * 1e6)))
        seen: list[FaceResult] = []

        def run(picture: Picture) -> Picture:
            seen.append(self.restore(picture))
            return cast(Picture, seen[-1].picture)

        if isinstance(x, np.ndarray) and x.ndim != 4:
            return FaceResult(picture=through_array(x, run), faces=seen[0].faces)
        if isinstance(x, Image.Image):
            return FaceResult(picture=through_pil(x, run), faces=seen[0].faces)
        raise PictureError(
            f"cannot find faces in {type(x).__name__}; give a PIL image, an array (H, W, C), bytes or a path"
        )


class Translator:
    """A network that translates, ready to run: call it with pictures, as a Restorer. Sizes stay."""

    def __init__(self, engine: Engine, settings: TranslateSettings) -> None:
        if not {engine.traits.in_channels, engine.traits.out_channels} <= {1, 3} or engine.traits.scale != 1:
            raise UsageError(
                f"this network makes {engine.traits.out_channels} channels of {engine.traits.in_channels}, at "
                f"{engine.traits.scale} times the size; translate takes pictures of 1 or 3, and keeps their size"
            )
        self.engine, self.settings = engine, settings
        self._palette = read_palette(settings.palette) if settings.palette else None

    @classmethod
    def open(cls, model: str | Path | None = None, *, settings: TranslateSettings) -> "Translator":
        """Find the weights, of the direction asked for, recognise their network, choose device and precision."""
        if model is not None:
            settings = replace(settings, model=str(model))
        check_command(settings.model, "translate")
        name = model_for(settings.model, settings.direction, pair=settings.pair)
        how = settings.finishing
        if is_onnx(path := find_weights(name).path):
            if settings.noise is not None:
                raise UsageError(f"{path.name}: an ONNX file is finished and takes no noise; use the weights")
            return cls(_of_file(path, how, ("translate",)), settings)
        noise = {} if settings.noise is None else {"noise": settings.noise}
        loaded = open_model(name, facts={**settings.facts, **noise})
        if loaded.spec.task != "translate":
            raise wrong_task(name, loaded.spec.task)
        kind = "eager" if settings.engine == "auto" and loaded.spec.walk is not None else settings.engine
        return cls(open_engine(loaded, kind=kind, device=settings.device, precision=settings.precision), settings)

    def plan(self, picture: Picture) -> Translation:
        """What would be done to a picture, or is about to be."""
        _look_at(picture, self.engine)
        return Translation(picture, self.engine, self.settings, palette=self._palette)

    def restore(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Picture -> Picture of its size; depth, alpha and metadata are kept, and the profile where it still fits."""
        return worked(self.plan(picture), progress)

    def __call__(self, x: Any) -> Any:
        """A picture of any kind -> the same kind, translated; a tensor comes back on its own device."""
        if isinstance(x, list | tuple):
            return [self(item) for item in x]
        if isinstance(x, Tensor):
            return through_tensor(x, self.restore)
        return through(x, self.restore, limit_pixels=int(self.settings.max_megapixels_in * 1e6))


def translate(x: Any, *, model: str | Path, settings: TranslateSettings | None = None) -> Any:
    """A picture of any kind -> the same kind, translated: `Translator.open(model, settings=settings)(x)`."""
    return Translator.open(model, settings=settings or TranslateSettings(model=str(model)))(x)


def restore_faces(x: Any, *, model: str | Path | None = None, settings: FaceSettings = FACE_DEFAULTS) -> FaceResult:
    """A picture of any kind -> the same with its faces restored: `Faces.open(model, settings=settings)(x)`."""
    return Faces.open(model, settings=settings)(x)


def enhance(x: Any, *, model: str | Path | None = None, settings: UpscaleSettings = DEFAULTS) -> Any:
    """A picture of any kind -> the same kind, larger: `Restorer.open(model, settings=settings)(x)`."""
    return Restorer.open(model, settings=settings)(x)


def _foreign(name: str | Path, weights: StateDict, facts: Mapping[str, object]) -> Model | None:
    try:
        return load_foreign(weights, facts=facts)
    except (WeightsError, UnsupportedError) as e:
        raise type(e)(f"{name}: {e}") from e


def _of_file(path: Path, settings: UpscaleSettings, tasks: tuple[str, ...] = ("upscale", "restore")) -> Engine:
    if settings.denoise is not None:
        raise UsageError(f"{path.name}: --denoise mixes weights, and an ONNX file is finished; use a model's name")
    from restorer.engines.onnx_file import open_onnx_file

    return open_onnx_file(
        path,
        facts=settings.facts,
        tasks=tasks,
        kind=settings.engine,
        device=settings.device,
        precision=settings.precision,
    )


def _look_at(picture: Picture, engine: Engine) -> None:
    """Refuse what no network can take; say what this engine loses."""
    _check_finite(picture)
    if engine.eight_bit and picture.pixels.dtype != np.uint8:
        log.warning("this graph takes and gives 8 bits, so deeper pictures lose detail; export without --with-io")


def _check_finite(picture: Picture) -> None:
    if picture.pixels.dtype != np.float32:
        return
    if not all(np.isfinite(plane).all() for plane in (picture.pixels, picture.alpha) if plane is not None):
        raise PictureError("the picture holds NaN or infinity; replace them first, such as with numpy.nan_to_num")


def _weights(name: str | Path) -> tuple[StateDict, dict[str, object]]:
    found = find_weights(name)
    checkpoint = read_checkpoint(found.path)
    if {key.partition(".")[0] for key in checkpoint.weights} == {"a2b", "b2a"}:
        raise WeightsError(f"{name}: holds two generators; give generator-a2b.safetensors or -b2a, which lie beside it")
    record = found.record.facts if found.record is not None else {}
    return checkpoint.weights, {**record, **checkpoint.facts}


def _mixed(strong: StateDict, weak: StateDict, denoise: float) -> StateDict:
    """denoise * strong + (1 - denoise) * weak, in float32 (deep network interpolation)."""
    if strong.keys() != weak.keys():
        raise WeightsError("the two partners do not have the same tensors; fetch both again")
    return {key: torch.lerp(weak[key].float(), value.float(), denoise) for key, value in strong.items()}
