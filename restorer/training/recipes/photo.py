"""The models that come with restorer, trained on pictures that anyone may use."""

from dataclasses import replace

from restorer.networks.discriminators import UNetDiscriminatorConfig
from restorer.networks.patch_discriminators import PixelDiscriminatorConfig
from restorer.networks.pix2pix import Pix2PixConfig
from restorer.networks.srgan import SRGANConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.data import DataConfig
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.recipes.super_resolution import LITE0
from restorer.training.recipes.translation import pix2pix_256
from restorer.training.schedule import Schedule
from restorer.training.super_resolution import RestorationWeights
from restorer.training.translation_data import TranslationDataConfig


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


def pix2pix_unfade() -> Recipe:
    """A U-Net of 870,387 parameters that gives faded colour prints their colours back: 20 minutes on one core.

    Four levels without dropout, and enough channels at the first that no detail is lost there. The discriminator judges
    pixels by themselves, so that it asks for true colours and draws no patterns. Steps are of one pair, so that norms
    learn what they do at rest; the average of the weights is steadier than the last ones.
    """
    return replace(
        pix2pix_256(),
        name="pix2pix_unfade",
        config=Pix2PixConfig(features=24, levels=4, dropout=False),
        discriminator=PixelDiscriminatorConfig(channels=6, features=32),
        averaging=AveragingConfig(decay=0.999),
        data=TranslationDataConfig(preprocess="crop"),
        train=replace(pix2pix_256().train, steps=8000, g_rate=1e-3, picture_every=1000, save_every=1000),
    )
