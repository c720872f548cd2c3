"""A model as an ONNX file: made, run in ONNX Runtime beside PyTorch, and kept only where they agree.

Letters: N batch, C channels, h w sides in, H W sides out.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restorer.engines.graph import GraphForm, WithPixels, build_graph
from restorer.engines.onnx import Session, choose_provider, errors, open_session
from restorer.engines.shared import input_shape, relative_psnr
from restorer.errors import NumericalError, UnsupportedError, UsageError, WriteError, first_line
from restorer.networks.spec import Model
from restorer.weights.whole import write_whole

SHAPES = ((1, 11, 16), (3, 24, 9), (2, 5, 31))
"""(N, h, w) at which a graph is held against PyTorch; sides in units of the network's multiple."""
MOST_APART = 1e-4
"""The largest difference in float32, in units of the network's range."""
PIXELS_DB = 50.0
"""PSNR in whole levels: rounding may fall to the other side here and there, not everywhere."""
LEAST_DB = 40.0
"""PSNR in half precision, with the reach of the exact values as the peak."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How near a graph came to PyTorch in float32."""

    shapes: tuple[tuple[int, ...], ...]
    """Of the batches that were compared: three, or the one of a fixed size."""
    worst: float
    """The largest difference: in units of the network's range, or in levels of 255 for a graph with pixels."""
    db: float
    """The least PSNR; 200 is equal."""


def export_model(
    model: Model,
    path: Path,
    *,
    form: GraphForm | None = None,
    beside: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Proof:
    """Write `path`, once the graph has given what PyTorch gives at three shapes, or at its one; else NumericalError.

    Args:
        form: fp32 or fp16, free or fixed sides, with pixels or without; None is fp32, free, without.
        beside: more metadata, such as licence and source.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: graphs are written as .onnx; give such a name")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; give --overwrite, or another name")
    if not path.parent.is_dir():
        raise WriteError(f"{path.parent}: is no folder; make it first")
    form = form or GraphForm()
    data = build_graph(model, form, beside=beside)
    proof = prove(model, data, form)
    write_whole(path, [data])
    return proof


def prove(model: Model, data: bytes, form: GraphForm) -> Proof:
    """Run a graph in ONNX Runtime on a processor and hold it against the model; NumericalError where they differ."""
    compute = open_session(data, choose_provider("cpu")).run
    batches = _batches(model, form)
    network: nn.Module = copy.deepcopy(model.network).cpu()
    network = WithPixels(network, model.traits) if form.with_io else network
    apart, least, widest = 0.0, 200.0, 0.0
    for x in batches:
        with torch.inference_mode():
            exact = network(x).float()
        y = _ran(compute, x)
        if y.shape != exact.shape:
            raise NumericalError(
                f"the graph makes {tuple(y.shape)} of {tuple(x.shape)}, PyTorch {tuple(exact.shape)}, so it was not "
                "written; give --static HxW"
            )
        if not bool((y + exact).isfinite().all()):
            raise NumericalError(
                f"the graph gives values that are not finite on {tuple(x.shape)}, so it was not written; use fp32"
            )
        widest = max(widest, float(exact.max() - exact.min()))
        apart = max(apart, float((y - exact).abs().max()))
        least = min(least, relative_psnr(y, exact))
    low, high = model.traits.value_range
    reach = 1.0 if form.with_io else high - low if model.traits.makes_pictures else max(1.0, widest)
    proof = Proof(
        shapes=tuple(tuple(x.shape) for x in batches),
        worst=apart / reach,
        db=least,
    )
    if not _is_near(proof, form):
        raise NumericalError(
            f"the graph differs from PyTorch by up to {proof.worst:.2g} ({proof.db:.1f} dB), so it was not written; "
            + ("give --static HxW, since some networks trace to one size only" if form.size is None else "use fp32")
        )
    return proof


def _ran(compute: Session, x: Tensor) -> Tensor:
    try:
        return torch.from_numpy(compute(x.numpy())).float()
    except errors() as e:
        raise UnsupportedError(
            f"ONNX Runtime cannot run the graph on {tuple(x.shape)} ({first_line(e)}), so it was not written; "
            "use another engine"
        ) from e


def _is_near(proof: Proof, form: GraphForm) -> bool:
    """In whole numbers a level of rounding is no difference."""
    if form.precision != "fp32":
        return proof.db >= LEAST_DB
    return proof.worst <= 1.0 and proof.db >= PIXELS_DB if form.with_io else proof.worst <= MOST_APART


def _batches(model: Model, form: GraphForm) -> list[Tensor]:
    """Noise, the same on every call, as the graph takes it."""
    traits = model.traits
    random = torch.Generator().manual_seed(0)
    if form.size is None:
        multiple, least = traits.multiple_of, -(-traits.min_side // traits.multiple_of)
        sizes = [(n, (max(h, least) * multiple, max(w, least) * multiple)) for n, h, w in SHAPES]
    else:
        sizes = [(1, form.size)]
    xs = [torch.rand(input_shape(traits, n, size), generator=random) for n, size in sizes]
    if traits.latent:
        return [x * 2 - 1 for x in xs]
    if form.with_io:
        return [(x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous() for x in xs]
    low, high = traits.value_range
    return [x * (high - low) + low for x in xs]
