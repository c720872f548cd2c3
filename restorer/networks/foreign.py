"""Networks that only the package spandrel knows (SwinIR, DAT, SPAN, ...): its modules, behind the same spec.

Not in the table: these weights are asked about last, and what is known of the network is what spandrel says of it.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from restorer.errors import UnsupportedError, WeightsError, first_line
from restorer.networks.spec import Facts, Model, NetworkSpec, StateDict, Traits

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

OVERLAP = 32
VALUES_PER_PIXEL = 4096
"""What memory planning goes by: as much as the largest network whose needs are known."""


@dataclass(frozen=True, kw_only=True)
class ForeignConfig:
    """What spandrel calls the network, and what it says it is made of."""

    architecture: str
    tags: tuple[str, ...] = ()


class Foreign(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, Cout, scale*H, scale*W): as spandrel calls its module; of several, the first."""

    def __init__(self, inner: nn.Module, call: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.inner, self._call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        y = self._call(self.inner, x)
        return y if isinstance(y, Tensor) else y[0]


def load_foreign(weights: StateDict, *, facts: Facts) -> Model | None:
    """Ask spandrel, where it is installed, what the weights are; None where it is not, or does not know them either."""
    try:
        import spandrel
    except ImportError:
        return None
    from spandrel import ImageModelDescriptor, UnsupportedModelError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how its networks are built
            found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(weights))
    except UnsupportedModelError:
        return None
    except (RuntimeError, KeyError, IndexError, ValueError, TypeError, AssertionError) as e:
        raise WeightsError(f"spandrel cannot build these weights ({first_line(e)}); use a whole checkpoint") from e
    name = found.architecture.name
    if not isinstance(found, ImageModelDescriptor):
        raise UnsupportedError(f"{name} needs a mask beside the picture; use one that takes the picture alone")
    if found.size_requirements.square:
        raise UnsupportedError(f"{name} takes square pictures only; use one that takes any")
    network = Foreign(found.model, found._call_fn).float().eval().requires_grad_(False)
    _settle(network)
    config = ForeignConfig(architecture=name, tags=tuple(found.tags))
    spec = _spec(found)
    remark = f"{name} is not a network of restorer; it runs as the package spandrel {spandrel.__version__} builds it"
    if found.tiling != spandrel.ModelTiling.SUPPORTED:
        remark += ", which advises against tiles for it: --tile 0 avoids them"
    return Model(
        spec=spec, config=config, network=network, traits=spec.traits(config), facts=dict(facts), remarks=(remark,)
    )


def _settle(network: nn.Module) -> None:
    """Merge the branches of SPAN's convolutions once: they do it in every forward, on which graph tracers crash."""
    for module in network.modules():
        if type(module).__name__ == "Conv3XC":
            skip = cast(nn.Conv2d, module.get_submodule("sk"))
            module(torch.zeros(1, skip.in_channels, 3, 3))
            vars(module)["update_params"] = _already


def _already() -> None:
    """What was to be done is done."""


def _spec(found: "ImageModelDescriptor[nn.Module]") -> NetworkSpec:
    sizes = found.size_requirements

    def traits(config: ForeignConfig) -> Traits:
        return Traits(
            scale=found.scale,
            in_channels=found.input_channels,
            out_channels=found.output_channels,
            multiple_of=max(1, sizes.multiple_of),
            min_side=max(1, sizes.minimum),
            radius=None,
            overlap=OVERLAP,
            values_per_pixel=VALUES_PER_PIXEL,
            batch_of_one=True,  # spandrel promises no more
            precisions=frozenset({"fp32"}),
        )

    def no_config(weights: StateDict, facts: Facts) -> ForeignConfig:
        return ForeignConfig(architecture=found.architecture.name)

    def build(config: ForeignConfig) -> nn.Module:
        return Foreign(found.model, found._call_fn)

    return NetworkSpec(
        name=f"spandrel:{found.architecture.name}",
        task="upscale" if found.purpose == "SR" else "face" if found.purpose == "FaceSR" else "restore",
        config=ForeignConfig,
        build=build,
        traits=traits,
        detect=lambda weights, facts: False,
        read_config=no_config,
    )
