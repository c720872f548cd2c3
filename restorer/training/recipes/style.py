"""StyleGAN2: pictures from noise (arXiv:1912.04958, arXiv:2006.06676); each with a twin of small numbers."""

from dataclasses import replace

from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.networks.style_layers import WIDTHS_512
from restorer.networks.stylegan2 import StyleGAN2Config
from restorer.training.adversary import AdversaryConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.data import DataConfig
from restorer.training.generation import GenerationWeights
from restorer.training.recipe import Recipe, TrainConfig

PICTURES = 25_000_000
"""That the discriminator is shown, in the paper."""
BATCH = 32


def stylegan2_256() -> Recipe:
    """Configuration F at 256 pixels: R1 10 (here 2.5, as pictures are in [0, 1]), average of 10,000 pictures."""
    return _stylegan2(256)


def stylegan2_512() -> Recipe:
    """The same at 512 pixels."""
    return _stylegan2(512)


def stylegan2_256_tiny() -> Recipe:
    """The game of `stylegan2_256` at 64 pixels with few channels and ADA, for few pictures: an hour on one core."""
    widths = (64, 64, 64, 32, 16)
    return replace(
        stylegan2_256(),
        name="stylegan2_256_tiny",
        config=StyleGAN2Config(widths=widths, style=64, mapping=2),
        discriminator=StyleDiscriminatorConfig(widths=widths),
        adversary=AdversaryConfig(r1=0.5, augment="ada", ada_pictures=25_000),
        averaging=AveragingConfig(decay=0, half_life=2000, ramp_up=0.05),
        data=DataConfig(crop=64, turn=False),
        train=replace(
            stylegan2_256().train, steps=10_000, batch=8, g_rate=4e-3, d_rate=4e-3, log_every=100, picture_every=500,
            save_every=1000, keep=20, on_trouble="warn",
        ),
    )  # fmt: skip


def stylegan2_512_tiny() -> Recipe:
    """The same with one size more, 128 pixels."""
    tiny = stylegan2_256_tiny()
    widths = (*tiny.config.widths, 12)
    return replace(
        tiny,
        name="stylegan2_512_tiny",
        config=replace(tiny.config, widths=widths),
        discriminator=StyleDiscriminatorConfig(widths=widths),
        data=replace(tiny.data, crop=128),
    )


def _stylegan2(side: int) -> Recipe:
    widths = WIDTHS_512[: side.bit_length() - 2]
    return Recipe(
        name=f"stylegan2_{side}",
        network="stylegan2",
        config=StyleGAN2Config(widths=widths),
        weights=GenerationWeights(),
        discriminator=StyleDiscriminatorConfig(widths=widths),
        adversary=AdversaryConfig(r1=2.5),
        averaging=AveragingConfig(decay=0, half_life=10_000),
        data=DataConfig(crop=side, turn=False),
        train=TrainConfig(steps=PICTURES // BATCH, batch=BATCH, g_rate=2e-3, d_rate=2e-3, betas=(0.0, 0.99)),
    )
