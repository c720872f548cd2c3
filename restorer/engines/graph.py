"""A model as an ONNX graph: batch and sides free or fixed, weights inside, traits in its metadata.

Letters: N batch, C channels, h w sides in, H W sides out.
"""

import contextlib
import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from restorer import machine
from restorer.engines.precision import DTYPES, lowered
from restorer.engines.shared import from_native, input_shape, to_native
from restorer.errors import MissingPackageError, UnsupportedError, WeightsError, WriteError, first_line
from restorer.networks.spec import Model, Traits
from restorer.weights.fetch import cache_home
from restorer.weights.whole import write_whole

log = logging.getLogger(__name__)
OPSET = 18
"""Read by every runtime since 2023: ONNX Runtime 1.14, OpenVINO 2023, TensorRT 8.6, DirectML."""
INPUT, LATENT, OUTPUT = "image", "latent", "output"
METADATA = "restorer"
"""The key under which a graph carries its traits, as JSON."""
OUR_KEYS = ("model", "licence", "source", "scale", "value_range", "channel_order", "made_by")
"""What it says beside that, in words for other readers."""
LONGEST_SIDE, LARGEST_BATCH = 2**15, 2**10
KEPT_GRAPHS = 8
FORMAT = 1
"""Raised when a network's computation changes under the same config: graphs kept until then are made again."""


@dataclass(frozen=True, kw_only=True)
class GraphForm:
    """How a graph is to look."""

    precision: str = "fp32"
    """fp32, or fp16 as the eager engine lowers it."""
    size: tuple[int, int] | None = None
    """Fixed (h, w) and a batch of one; None leaves all three free."""
    with_io: bool = False
    """(N, h, w, C) uint8 in, (N, H, W, C) uint8 out, RGB; else (N, C, h, w) floats in the network's own range."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "fp16"):
            raise UnsupportedError(
                f"graphs hold fp32 or fp16, not {self.precision}, which few runtimes convolve in; use one of them"
            )


class WithPixels(nn.Module):
    """(N, h, w, C) uint8 RGB -> (N, H, W, C) uint8 RGB: the network with all that the pipeline does around it."""

    def __init__(self, network: nn.Module, traits: Traits) -> None:
        super().__init__()
        self.network, self.traits = network, traits

    def forward(self, x: Tensor) -> Tensor:
        x = to_native(x.permute(0, 3, 1, 2).float() / 255, self.traits)
        y = from_native(self.network(x).float(), self.traits)
        return (y.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def build_graph(model: Model, form: GraphForm, *, beside: Mapping[str, str] | None = None) -> bytes:
    """Model -> a serialised ONNX model; `beside` is more metadata, such as the licence.

    Raises UnsupportedError where the network's sizes or traits do not allow the form, or torch cannot trace it.
    """
    _need_packages()
    _check_form(model.traits, form)
    network = copy.deepcopy(model.network) if form.precision == "fp32" else lowered(model, DTYPES[form.precision])
    network = WithPixels(network, model.traits) if form.with_io else network
    x = torch.rand(_example(model.traits, form), generator=torch.Generator().manual_seed(0))
    example = (x * 255).to(torch.uint8).permute(0, 2, 3, 1) if form.with_io else x
    free = None if form.size is not None else (_free(model.traits, axes=(1, 2) if form.with_io else (2, 3)),)
    name = INPUT if model.traits.latent is None else LATENT
    with _quiet(), torch.inference_mode():
        try:
            program = torch.onnx.export(
                network.cpu(), (example,), dynamo=True, dynamic_shapes=free, input_names=[name],
                output_names=[OUTPUT], opset_version=OPSET, external_data=False, verbose=False,
                optimize=form.precision == "fp32",  # else batch norm in float32 is folded into halves, which is no ONNX
            )  # fmt: skip
        except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as e:
            why = _innermost(e)
            cure = "give --static HxW" if form.size is None else "use another engine"
            raise UnsupportedError(f"{model.spec.name} cannot be written as such a graph ({why}); {cure}") from e
    assert program is not None
    proto = program.model_proto
    for key, value in {**metadata(model, form), **(beside or {})}.items():
        proto.metadata_props.add(key=key, value=value)
    try:
        return bytes(proto.SerializeToString())
    except ValueError as e:
        raise UnsupportedError(f"{model.spec.name} is too large for one ONNX file ({first_line(e)}); use fp16") from e


def metadata(model: Model, form: GraphForm) -> dict[str, str]:
    """What a graph says of itself: all of it under one key, and the essentials under plain ones for other readers."""
    traits = model.traits
    told = {
        "network": model.spec.name,
        "task": model.spec.task,
        "config": _plain(model.config),
        "facts": dict(model.facts),
        "traits": {
            **asdict(traits),
            "precisions": sorted(traits.precisions),
            "fixed_size": form.size or traits.fixed_size,
            "batch_of_one": traits.batch_of_one or form.size is not None,
            "values_in_blocks": None,
        },
        "precision": form.precision,
        "with_io": form.with_io,
    }
    return {
        METADATA: json.dumps(told, sort_keys=True),
        "scale": str(traits.scale),
        "value_range": "0,255" if form.with_io else ",".join(f"{end:g}" for end in traits.value_range),
        "channel_order": "rgb" if form.with_io else traits.channel_order,
    }


def read_traits(told: Mapping[str, Any]) -> Traits:
    """The JSON under METADATA -> traits; raises KeyError, TypeError or ValueError where it is not `metadata`'s."""
    if not isinstance(told["traits"], dict):
        raise TypeError("traits are no table")
    kept = {key: value for key, value in told["traits"].items() if key in {field.name for field in fields(Traits)}}
    kept["precisions"] = frozenset(kept["precisions"])
    for name in ("value_range", "fixed_size"):
        kept[name] = None if kept[name] is None else tuple(kept[name])
    size = kept["fixed_size"]
    if size is not None and (len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size)):
        raise ValueError("fixed_size is no size")
    return Traits(**kept)


def cached_graph(model: Model, precision: str = "fp32") -> bytes:
    """The free graph of a model, from the user's cache where it was made before; engines begin with it."""
    try:
        path = cache_home() / "graphs" / f"{_fingerprint(model, precision)}.onnx"
    except WeightsError:  # this user has no home
        return build_graph(model, GraphForm(precision=precision))
    if kept := kept_bytes(path):
        return kept
    log.info("making the ONNX graph of these weights, once")
    data = build_graph(model, GraphForm(precision=precision))
    keep_bytes(path, data)
    return data


def keep_bytes(path: Path, data: bytes) -> None:
    """Keep what took long to make, with its sum; where that cannot be, say so and go on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [hashlib.sha256(data).digest(), data])
        _drop_oldest(path.parent, path.suffix)
    except (OSError, WriteError) as e:
        log.warning("%s could not be kept for the next time: %s", path.name, e)


def kept_bytes(path: Path) -> bytes | None:
    """What `keep_bytes` kept there; None where nothing is, or something that is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a cache that only others may write serves too
        path.touch()
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _fingerprint(model: Model, precision: str) -> str:
    """All that decides what a graph holds."""
    versions = tuple(machine.installed(name) for name in ("restorer", "torch", "onnxscript", "onnx", "spandrel"))
    parts = (model.spec.name, model.config, model.spec.float_parts(model.config), precision, OPSET, FORMAT, versions)
    sha = hashlib.sha256(f"{parts!r} {sorted(model.traits.precisions)} {model.traits.scale}".encode())
    for name, tensor in model.network.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:32]


def _drop_oldest(folder: Path, suffix: str) -> None:
    """Another process may be doing the same, or have one open."""
    with contextlib.suppress(OSError):
        graphs = sorted(folder.glob(f"*{suffix}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in graphs[KEPT_GRAPHS:]:
            path.unlink(missing_ok=True)


def _innermost(error: BaseException) -> str:
    """The first line of what went wrong first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _check_form(traits: Traits, form: GraphForm) -> None:
    if form.precision not in traits.precisions:
        raise UnsupportedError(f"this network is not proven in {form.precision}; use fp32")
    if form.with_io and (traits.latent or not traits.makes_pictures):
        raise UnsupportedError("this network does not make pictures of pictures; leave --with-io out")
    if form.size is None:
        return
    if traits.fixed_size not in (None, form.size):
        raise UnsupportedError("this network has one size, which it takes without --static; leave that out")
    if any(side % traits.multiple_of or side < max(traits.min_side, 1) for side in form.size):
        least = -(-max(traits.min_side, 1) // traits.multiple_of) * traits.multiple_of
        raise UnsupportedError(
            f"this network takes sides that are multiples of {traits.multiple_of} and at least {least}, "
            f"got {form.size[0]}x{form.size[1]}; give such a size"
        )


def _example(traits: Traits, form: GraphForm) -> tuple[int, ...]:
    """Shape of what is traced: nothing is 1 and no two sides are equal, so that neither is taken for a rule."""
    if form.size is not None:
        return input_shape(traits, 1, form.size)
    if traits.fixed_size is not None:
        return input_shape(traits, 2, traits.fixed_size)
    least = 12 if traits.makes_pictures else 72  # networks that answer with numbers shrink more, down to sides of 1
    units = max(least, 1 - -traits.min_side // traits.multiple_of)
    return (2, traits.in_channels, units * traits.multiple_of, (units + 4) * traits.multiple_of)


def _free(traits: Traits, *, axes: tuple[int, int]) -> dict[int, Any]:
    free: dict[int, Any] = {0: Dim("batch", min=1, max=LARGEST_BATCH)}
    if traits.fixed_size is not None:
        return free
    for axis, name in zip(axes, ("height", "width"), strict=True):
        multiple = traits.multiple_of
        least = max(1, -(-traits.min_side // multiple))
        dim = Dim(name, min=least, max=LONGEST_SIDE)
        free[axis] = multiple * dim if multiple > 1 else dim
    return free


def _plain(config: object) -> object:
    values = getattr(config, "__dict__", None)
    return {key: value for key, value in values.items() if _is_plain(value)} if values is not None else None


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _need_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise MissingPackageError('ONNX graphs need extra packages: pip install "restorer[onnx]"') from e


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter remarks on its own insides; nothing of that concerns a user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
