"""GFPGAN's small discriminators: each looks at an eye or the mouth of an aligned face (arXiv:2101.04061).

Weights are plain, as in `style_layers`. Letters: N batch, h w sides of what is cut out of the face, F features.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from restorer.networks.layers import Conv, leaky
from restorer.networks.spec import at_least_one
from restorer.networks.style_layers import GAIN, HalvingConv
from restorer.networks.style_rates import layer_rates, rates_of, start_equalised


@dataclass(frozen=True, kw_only=True)
class ComponentDiscriminatorConfig:
    """Numbers of GFPGAN."""

    features: int = 64
    """Channels of the first layer; later ones have twice and four times as many."""

    def __post_init__(self) -> None:
        at_least_one(features=self.features)


class ComponentDiscriminator(nn.Module):
    """(N, 3, h, w) in [0, 1] -> (N, 1, h/4, w/4): a logit for each place; sides from 4, rounded down when halved.

    Its keys are `conv1` to `conv5`, the second and the fourth of which halve, and `last`.
    """

    def __init__(self, config: ComponentDiscriminatorConfig) -> None:
        super().__init__()
        f = config.features
        self.conv1 = Conv(3, f)
        self.conv2 = HalvingConv(f, 2 * f)
        self.conv3 = Conv(2 * f, 2 * f)
        self.conv4 = HalvingConv(2 * f, 4 * f)
        self.conv5 = Conv(4 * f, 4 * f)
        self.last = Conv(4 * f, 1)
        start_equalised(self, self.rates())

    def forward(self, x: Tensor) -> Tensor:
        return self.judged(x)[0]

    def judged(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, 3, h, w) -> logits, and the features (N, 2F, h/2, w/2) and (N, 4F, h/4, w/4) that styles are told by."""
        y = leaky(self.conv1(2 * x - 1))
        fine = leaky(self.conv3(leaky(self.conv2(y))))
        coarse = leaky(self.conv5(leaky(self.conv4(fine))))
        return self.last(coarse), (fine, coarse)

    def rates(self) -> dict[str, float]:
        """Name of each parameter -> factor of its learning rate, as published equalised ones learn."""
        return rates_of(self, [*layer_rates(r"conv\d\.", gain=GAIN), *layer_rates(r"last\.")])
