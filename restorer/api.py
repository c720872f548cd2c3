"""What users and apps call: open a model once, then hand it pictures of any kind and get the same kind back."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
)
from restorer.networks.foreign import load_foreign
from restorer.networks.spec import Model, StateDict, load_weights
from restorer.pipeline.codecs.intake import naming
from restorer.pipeline.codecs.modes import to_arrays
from restorer.pipeline.picture import Picture, read_picture
from restorer.pipeline.restore import Progress, Upscale
from restorer.pipeline.settings import SMALLEST_TILE, UpscaleSettings
from restorer.pipeline.source import ArrayTaker, RowTaker
from restorer.pipeline.tensors import restore_tensor
from restorer.weights.find import find_weights
from restorer.weights.read import is_onnx, read_checkpoint
from restorer.weights.records import partners

log = logging.getLogger(__name__)
DEFAULTS = UpscaleSettings()
ARRAY_DTYPES = ("uint8", "uint16", "float32")
"""What the pipeline computes in; other floats are made float32 on the way in and what they were on the way out."""
BRIGHTEST = 64.0
"""Floats above this are thought to be a mistake of scale."""
MOST_AT_ONCE = 16
KEPT_BY_PIL = ("dpi", "exif", "xmp")


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
        if is_onnx(path := find_weights(settings.model).path):
            return cls(_of_file(path, settings), settings)
        loaded = open_model(settings.model, facts=settings.facts, denoise=settings.denoise)
        if loaded.spec.task not in ("upscale", "restore"):
            raise UsageError(f"{settings.model} is a '{loaded.spec.task}' network; this command takes 'upscale' ones")
        engine = open_engine(loaded, kind=settings.engine, device=settings.device, precision=settings.precision)
        return cls(engine, settings)

    def plan(self, picture: Picture) -> Upscale:
        """What would be done to a picture, or is about to be."""
        if picture.pixels.dtype == np.float32:
            _check_finite(picture)
        if self.engine.eight_bit and picture.pixels.dtype != np.uint8:
            log.warning("this graph takes and gives 8 bits, so deeper pictures lose detail; export without --with-io")
        return Upscale(picture, self.engine, self.settings)

    def restore(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Picture -> Picture of the size the settings ask for; depth, alpha, profile and metadata are kept."""
        work = self.plan(picture)
        channels = picture.pixels.shape[2] + (picture.alpha is not None)
        takers: list[ArrayTaker] = []

        def open_rows() -> RowTaker:
            takers[:] = [ArrayTaker(work.size_out, channels, picture.pixels.dtype)]
            return takers[0]

        work.run(open_rows, progress=progress)
        array = takers[0].array
        if picture.alpha is None:
            return replace(picture, pixels=array)
        return replace(picture, pixels=np.ascontiguousarray(array[:, :, :-1]), alpha=array[:, :, -1].copy())

    def __call__(self, x: Any) -> Any:
        """A picture of any kind -> the same kind, larger."""
        if isinstance(x, list | tuple):
            return [self(item) for item in x]
        if isinstance(x, Picture):
            return self.restore(x)
        if isinstance(x, Tensor):
            return self._tensor(x)
        if isinstance(x, np.ndarray):
            return self._array(x)
        if isinstance(x, str | Path | bytes):
            return self.restore(read_picture(x, limit_pixels=int(self.settings.max_megapixels_in * 1e6)))
        if isinstance(x, Image.Image):
            return self._pil(x)
        raise PictureError(
            f"cannot make a picture of {type(x).__name__}; give PIL, an array, a tensor, bytes or a path"
        )

    def _tensor(self, x: Tensor) -> Tensor:
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise PictureError("the tensor holds NaN or infinity; replace them first, such as with torch.nan_to_num")
        if x.is_floating_point() and x.numel():
            _warn_of_bytes(float(x.max()))
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

    def _array(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.ndim == 4 and len(x):
            return np.stack([self._array(item) for item in x]).astype(x.dtype, copy=False)
        if x.ndim == 2:
            return self._array(x[:, :, None])[:, :, 0]
        if x.ndim != 3 or x.shape[2] not in (1, 2, 3, 4):
            raise PictureError(f"expected an array (H, W[, 1 to 4]) or (N, H, W, C), got shape {x.shape}")
        if x.dtype.name not in ARRAY_DTYPES and x.dtype.kind != "f":
            raise PictureError(f"expected uint8, uint16 or float in [0, 1], got {x.dtype}; convert it first")
        if x.dtype.kind == "f" and x.size:
            _warn_of_bytes(float(x.max()))
        pixels = x.astype(x.dtype.name if x.dtype.name in ARRAY_DTYPES else np.float32, copy=False)
        alpha = pixels[:, :, -1] if x.shape[2] in (2, 4) else None
        colour = pixels[:, :, : 3 if x.shape[2] >= 3 else 1]
        out = _joined(self.restore(Picture(pixels=np.ascontiguousarray(colour), alpha=alpha)))
        in_range = x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1
        return (out.clip(0, 1) if in_range else out).astype(x.dtype)

    def _pil(self, image: Image.Image) -> Image.Image:
        """Modes that are no pixels of their own (P, 1, CMYK, ...) come back as what they stand for."""
        if image.mode in ("I", "F"):
            raise PictureError(f"a PIL image of mode {image.mode} does not say what is white; convert it to I;16 or L")
        with naming("PIL image"):
            arrays = to_arrays(image, bits=1 if image.mode == "1" else 8)
        for notice in arrays.notices:
            log.warning("PIL image: %s", notice)
        deep = arrays.pixels.dtype == np.uint16  # PIL has no 16-bit grey with alpha
        done = self.restore(Picture(pixels=arrays.pixels, alpha=None if deep else arrays.alpha))
        array = _joined(done)
        out = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        out.info = {key: image.info[key] for key in KEPT_BY_PIL if key in image.info}
        if arrays.icc is not None:
            out.info["icc_profile"] = arrays.icc
        return out


def enhance(x: Any, *, model: str | Path | None = None, settings: UpscaleSettings = DEFAULTS) -> Any:
    """A picture of any kind -> the same kind, larger: `Restorer.open(model, settings=settings)(x)`."""
    return Restorer.open(model, settings=settings)(x)


def _foreign(name: str | Path, weights: StateDict, facts: Mapping[str, object]) -> Model | None:
    try:
        return load_foreign(weights, facts=facts)
    except (WeightsError, UnsupportedError) as e:
        raise type(e)(f"{name}: {e}") from e


def _of_file(path: Path, settings: UpscaleSettings) -> Engine:
    if settings.denoise is not None:
        raise UsageError(f"{path.name}: --denoise mixes weights, and an ONNX file is finished; use a model's name")
    from restorer.engines.onnx_file import open_onnx_file

    return open_onnx_file(
        path, facts=settings.facts, kind=settings.engine, device=settings.device, precision=settings.precision
    )


def _warn_of_bytes(largest: float) -> None:
    """Scene values of a few times white are common; 255 is most often a forgotten division."""
    if largest > BRIGHTEST:
        log.warning("floats are taken to be in [0, 1], but go up to %g; divide by 255 if that is white", largest)


def _check_finite(picture: Picture) -> None:
    if not all(np.isfinite(plane).all() for plane in (picture.pixels, picture.alpha) if plane is not None):
        raise PictureError("the picture holds NaN or infinity; replace them first, such as with numpy.nan_to_num")


def _joined(picture: Picture) -> NDArray[Any]:
    """(H, W, C[+1]): alpha last."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[:, :, None]], axis=2)


def _weights(name: str | Path) -> tuple[StateDict, dict[str, object]]:
    found = find_weights(name)
    checkpoint = read_checkpoint(found.path)
    record = found.record.facts if found.record is not None else {}
    return checkpoint.weights, {**record, **checkpoint.facts}


def _mixed(strong: StateDict, weak: StateDict, denoise: float) -> StateDict:
    """denoise * strong + (1 - denoise) * weak, in float32 (deep network interpolation)."""
    if strong.keys() != weak.keys():
        raise WeightsError("the two partners do not have the same tensors; fetch both again")
    return {key: torch.lerp(weak[key].float(), value.float(), denoise) for key, value in strong.items()}
