"""Engines for tests that need no weights: plain arithmetic behind the same seam, with faults on request."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from restorer.errors import OutOfMemoryError
from restorer.networks.spec import Traits


class FakeEngine:
    """Repeats every pixel `scale` times, after a box blur of `radius`: what a tile sees is what the picture holds."""

    name = "fake"
    notes = ()
    where = "cpu"
    on_cpu = True
    eight_bit = False
    twins = ()
    dtype = torch.float32
    memory_total = 2**33
    pixels_per_second = 1e6

    def __init__(self, *, scale: int = 4, radius: int = 0, channels: int = 3, **traits) -> None:
        self.traits = Traits(
            scale=scale, in_channels=channels, out_channels=channels, radius=radius,
            overlap=traits.pop("overlap", radius), precisions=frozenset({"fp32"}), **traits,
        )  # fmt: skip
        self.device = torch.device("cpu")
        self.run_again = None
        self.stream = None
        self.calls: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        x = inputs["image"]
        self.calls.append(tuple(x.shape))
        return {"image": self.compute(x)}

    def compute(self, x: Tensor) -> Tensor:
        assert x.shape[2] % self.traits.multiple_of == 0
        assert x.shape[3] % self.traits.multiple_of == 0
        r = self.traits.radius
        if r:
            weight = torch.full((x.shape[1], 1, 2 * r + 1, 2 * r + 1), 1 / (2 * r + 1) ** 2)
            x = F.conv2d(x, weight, padding=r, groups=x.shape[1])
        return F.interpolate(x, scale_factor=self.traits.scale, mode="nearest")


class FullEngine(FakeEngine):
    """Has no room for batches of more than `most` pixels, from its `after`-th batch on."""

    def __init__(self, *, most: int, after: int = 0, **rest) -> None:
        super().__init__(**rest)
        self.most, self.after = most, after

    def compute(self, x: Tensor) -> Tensor:
        if len(self.calls) > self.after and x.shape[0] * x.shape[2] * x.shape[3] > self.most:
            raise OutOfMemoryError("no room")
        return super().compute(x)


class FaultyEngine(FakeEngine):
    """Gives `wrong` values at its `at`-th batch; in float32 too when `hopeless`."""

    def __init__(self, *, at: int, wrong: str, hopeless: bool = False, **rest) -> None:
        super().__init__(**rest)
        self.at, self.wrong, self.hopeless = at, wrong, hopeless
        self.run_again = self.again

    def compute(self, x: Tensor) -> Tensor:
        return self.spoiled(super().compute(x)) if len(self.calls) == self.at + 1 else super().compute(x)

    def again(self, x: Tensor) -> Tensor:
        y = super().compute(x)
        return self.spoiled(y) if self.hopeless else y

    def spoiled(self, y: Tensor) -> Tensor:
        y = y.clone()
        if self.wrong == "flat":
            return torch.full_like(y, 0.25)
        y[-1, 0, 1, 1] = {"nan": float("nan"), "inf": float("inf")}[self.wrong]
        return y
