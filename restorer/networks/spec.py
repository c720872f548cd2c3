"""What a network tells the rest of the house, and how weights find the network that they belong to."""

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from restorer.errors import UnknownWeightsError, WeightsError, unknown_name
from restorer.networks import NETWORKS

if TYPE_CHECKING:
    from restorer.networks.bands import Bands, Rows
    from restorer.networks.stages import Stage

StateDict = Mapping[str, Tensor]
Facts = Mapping[str, object]
Task = Literal["upscale", "restore", "face", "translate", "generate", "detect", "parse", "identity"]

NO_FACTS: Facts = MappingProxyType({})
PRECISIONS = frozenset({"fp32", "fp16", "bf16", "int8"})

_COUNTER = ".num_batches_tracked"  # batch norm's training counter: old files lack it and no output depends on it
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the pipeline must know of a network of one config. Sides are in input pixels."""

    scale: int = 1
    """Output side over input side."""
    in_channels: int = 3
    out_channels: int = 3
    multiple_of: int = 1
    """Both input sides must be a multiple of this."""
    min_side: int = 1
    """The smallest input side that works."""
    fixed_size: tuple[int, int] | None = None
    """The only (height, width) that works; None for any. Of a network that starts from noise, the size it makes."""
    latent: int | None = None
    """Numbers of noise that it starts from, (N, latent); None for a network that takes pictures."""
    makes_pictures: bool = True
    """Otherwise it answers with numbers, (N, ...), which engines hand on as they are."""
    radius: int | None
    """No output depends on an input farther away than this; None when every output depends on the whole picture."""
    overlap: int
    """How much is read around a tile's core by default; `radius` makes tiling exact."""
    values_per_pixel: int = 1000
    """Numbers held at once for each input pixel of a batch, at the peak: what memory planning goes by."""
    values_in_blocks: int | None = None
    """The same on a processor, for a network that works in blocks there; None where it does not."""
    values_held: int = 0
    """Numbers kept for each input pixel while a picture is walked in bands, for a network that can be."""
    values_kept: int = 0
    """Numbers kept for each column of a picture that goes rows after rows, for a network that can."""
    operations: float = 0.0
    """Multiplications per input pixel: what time estimates and benchmarks go by."""
    precisions: frozenset[str]
    """The precisions that this network's test row proves."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """The range of the numbers that the network itself takes and gives."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    batch_of_one: bool = False
    """Pictures must not share a batch, because the network mixes them."""
    random: bool = False
    """Two runs on the same input may differ."""
    learns_channels_last: bool = True
    """So a processor's training step is faster; not where most weights meet few pixels, and copies of them count."""

    def __post_init__(self) -> None:
        at_least_one(
            scale=self.scale,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            multiple_of=self.multiple_of,
            min_side=self.min_side,
        )
        if self.overlap < 0:
            raise ValueError(f"overlap must not be negative, got {self.overlap}")
        if unknown := self.precisions - PRECISIONS:
            raise ValueError(f"precisions must be among {sorted(PRECISIONS)}, got {sorted(unknown)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSpec:
    """All that is known of a network before it is built. Each file in this room ends with one."""

    name: str
    task: Task
    config: type
    """The frozen dataclass that `build` takes."""
    build: Callable[[Any], nn.Module]
    """config -> network with random weights."""
    traits: Callable[[Any], Traits]
    """config -> traits."""
    detect: Callable[[StateDict, Facts], bool]
    """(renamed weights, facts) -> whether they are this network's."""
    read_config: Callable[[StateDict, Facts], Any]
    """(renamed weights, facts) -> config."""
    rename: Callable[[StateDict, Facts], StateDict] = lambda weights, facts: weights
    """(weights in any published dialect, facts) -> in this network's own names; foreign ones come back unchanged."""
    told_by_keys: Callable[[StateDict], Facts] = lambda weights: NO_FACTS
    """(weights in any published dialect) -> facts that their keys tell and its own names do not; those given win."""
    float_parts: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """config -> submodules that stay float32 when the network is lowered, as `network.get_submodule` finds them."""
    int8_parts: Callable[[Any], tuple[tuple[str, ...], ...]] = lambda config: ()
    """config -> sets of convolutions, from many to few: the first that costs little computes in 8 bits."""
    walk: "Callable[[Any, Rows, Bands], Rows] | None" = None
    """(network, picture in its own range, how to go) -> what `forward` makes of it, in bands; None where tiles do."""
    stages: "Callable[[Any], Sequence[Stage]] | None" = None
    """network -> what `forward` does of it, rows after rows, for one picture; None where nobody wrote it down."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A network with its weights, in float32, in evaluation mode, with gradients off."""

    spec: NetworkSpec
    config: Any
    network: nn.Module
    traits: Traits
    facts: Facts
    """What was told about the weights because their keys do not say it."""
    remarks: tuple[str, ...] = ()
    """What a user should know of it before it runs."""


def get_spec(name: str) -> NetworkSpec:
    """Import the network of this name and return its spec."""
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    return importlib.import_module(f"restorer.networks.{name}").SPEC


def load_weights(weights: StateDict, *, facts: Facts = NO_FACTS) -> Model:
    """Build the network that `weights` belong to; all floats become float32; those that were are shared.

    The networks are asked in the order of the table. Loading is strict: a key too few or too many, or a shape that does
    not fit, is refused by name. `facts` settle what keys cannot say, such as the kind of an activation without weights.
    """
    for name in NETWORKS:
        spec = get_spec(name)
        renamed = spec.rename(weights, facts)
        if spec.detect(renamed, facts):
            return _load(spec, renamed, {**spec.told_by_keys(weights), **facts})
    if _judges(weights):
        raise WeightsError(
            "these are the weights of a discriminator, which judges pictures and makes none; "
            "give the generator's file, such as latest_net_G.pth"
        )
    raise UnknownWeightsError(
        f"no network recognises these weights (first keys: {listed(weights, total=False) or 'none'}); "
        f"known networks: {', '.join(NETWORKS)}"
    )


def at_least_one(**numbers: int) -> None:
    """Refuse a config whose `numbers` are not all positive."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def listed(keys: Iterable[str], *, total: bool = True) -> str:
    """Name the first few keys on one printable line, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    names = [ascii(key[:80])[1:-1] for key in keys]
    more = f" and {len(names) - _SHOWN} more" if total and len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _judges(weights: StateDict) -> bool:
    """One chain, `model` or `net`, from a convolution of side 4 or 1 to one logit for each patch, and nothing else."""
    chain = re.compile(r"((?:module\.)?(?:model|net)\.)\d+\.(?:weight|bias|running_\w+|num_batches_tracked)")
    names = {found[1] if (found := chain.fullmatch(key)) else "" for key in weights}
    name = names.pop() if len(names) == 1 else ""
    first = weights.get(f"{name}0.weight")
    kernels = [tensor for tensor in weights.values() if tensor.ndim == 4]
    if not name or first is None or not kernels:
        return False
    return tuple(first.shape[2:]) in ((4, 4), (1, 1)) and len(kernels[-1]) == 1


def _load(spec: NetworkSpec, weights: StateDict, facts: Facts) -> Model:
    try:
        config = spec.read_config(weights, facts)
        traits = spec.traits(config)
    except ValueError as error:
        raise WeightsError(f"these {spec.name} weights cannot be used: {error}") from error
    try:
        with torch.device("meta"):  # shapes only: weights about to be replaced are neither allocated nor drawn
            network = spec.build(config)
    except (RuntimeError, OverflowError) as error:
        raise WeightsError(f"these {spec.name} weights claim a network of no possible size") from error
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    _check_keys(spec.name, weights, expected)
    _check_tensors(spec.name, weights, expected)
    floats = {key: tensor.detach().float() if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    network.load_state_dict(floats, assign=True)
    network.eval().requires_grad_(False)
    return Model(spec=spec, config=config, network=network, traits=traits, facts=dict(facts))


def _check_keys(name: str, weights: StateDict, expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [key for key in expected if key not in weights and not key.endswith(_COUNTER)]
    extra = [key for key in weights if key not in expected]
    faults = []
    if missing:
        faults.append(f"lack {len(missing)} of {len(expected)} keys ({listed(missing)})")
    if extra:
        faults.append(f"have {len(extra)} key{'s' * (len(extra) > 1)} too many ({listed(extra)})")
    if faults:
        raise WeightsError(f"these {name} weights {' and '.join(faults)}; use a whole checkpoint of a known variant")


def _check_tensors(name: str, weights: StateDict, expected: Mapping[str, tuple[int, ...]]) -> None:
    for key, shape in expected.items():
        if key not in weights:
            continue
        tensor = weights[key]
        if tuple(tensor.shape) != shape:
            raise WeightsError(
                f"{key} of these {name} weights has shape {tuple(tensor.shape)}, expected {shape}; "
                "the file is damaged or of another variant"
            )
        if not tensor.is_floating_point() and not key.endswith(_COUNTER):
            raise WeightsError(f"{key} of these {name} weights holds {tensor.dtype}; only floating point is supported")
