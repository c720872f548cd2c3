"""The model that comes with restorer, trained on pictures that anyone may use, and its continuation as a GAN."""

from dataclasses import replace

from restorer.networks.discriminators import UNetDiscriminatorConfig
from restorer.networks.srgan import SRGANConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.data import DataConfig
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.recipes.super_resolution import LITE0
from restorer.training.schedule import Schedule
from restorer.training.super_resolution import RestorationWeights


def srresnet_x4_photo() -> Recipe:
    """An SRResNet of 232,963 parameters without batch norm, L1 on bicubic pairs: an hour on one processor core."""
    steps = 10_000
    return Recipe(
        name="srresnet_x4_photo",
        network="srgan",
        config=SRGANConfig(features=32, blocks=8, form="plain"),
        averaging=AveragingConfig(decay=0.999),
        schedule=Schedule(kind="cosine", periods=(steps,)),
        data=DataConfig(crop=96),
        train=TrainConfig(steps=steps, batch=8, g_rate=1e-3, log_every=100, picture_every=2000, save_every=500),
    )


def srgan_x4_photo() -> Recipe:
    """Its continuation (set `start`) against a U-Net that judges every pixel, through EfficientNet-Lite0.

    Sharper: NIQE and the distance of features fall, for a few tenths of a dB. About an hour on one processor core.
    """
    steps = 3500
    return replace(
        srresnet_x4_photo(),
        name="srgan_x4_photo",
        weights=RestorationWeights(pixel=0.05, perceptual=0.1, adversarial=0.2),
        features=LITE0,
        discriminator=UNetDiscriminatorConfig(features=16),
        schedule=Schedule(),
        train=replace(srresnet_x4_photo().train, steps=steps, g_rate=2e-4, d_rate=2e-4, picture_every=500),
    )
