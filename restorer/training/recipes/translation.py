"""pix2pix and CycleGAN (arXiv:1611.07004, 1703.10593), numbers of pytorch-CycleGAN-and-pix2pix; each with a small twin.

There both play 200 epochs by one picture, and so they do here on the sets that are named; for others set train.steps to
200 times the pictures of the larger domain. The rate is flat in the first half of the run and then falls to nothing:
there from epoch to epoch, here from step to step. There is no average there, so here it is a copy.
"""

from dataclasses import replace

from restorer.networks.cyclegan import CycleGANConfig
from restorer.networks.patch_discriminators import PatchDiscriminatorConfig
from restorer.networks.pix2pix import Pix2PixConfig
from restorer.training.adversary import AdversaryConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.objective import Order
from restorer.training.paired import PairedWeights
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.schedule import Schedule
from restorer.training.translation_data import TranslationDataConfig
from restorer.training.unpaired import UnpairedWeights

EPOCHS = 200


def pix2pix_256() -> Recipe:
    """pix2pix on pairs of 256 pixels: a U-Net of 8 levels, 100 times L1. 400 facades: 80,000 steps.

    The discriminator learns first, and the generator meets it as it is then.
    """
    return Recipe(
        name="pix2pix_256",
        network="pix2pix",
        config=Pix2PixConfig(),
        weights=PairedWeights(),
        discriminator=PatchDiscriminatorConfig(channels=6),
        averaging=AveragingConfig(decay=0),
        schedule=Schedule(kind="linear", flat=0.5),
        data=TranslationDataConfig(),
        train=_train(pictures=400, order="dg"),
    )


def cyclegan_256() -> Recipe:
    """CycleGAN at 256 pixels: 9 residual blocks, least squares, pools of 50. 1,334 zebras: 266,800 steps.

    The generators learn first. The pools take 39 MB each, and 79 MB are copied in every step, in case it is undone.
    """
    return Recipe(
        name="cyclegan_256",
        network="cyclegan",
        config=CycleGANConfig(),
        weights=UnpairedWeights(),
        discriminator=PatchDiscriminatorConfig(norm="instance"),
        adversary=AdversaryConfig(loss="least_squares"),
        averaging=AveragingConfig(decay=0),
        schedule=Schedule(kind="linear", flat=0.5),
        data=TranslationDataConfig(),
        train=_train(pictures=1334, order="gd"),
    )


def cyclegan_resnet6_128() -> Recipe:
    """The same game at 128 pixels with 6 residual blocks, as in the paper."""
    return replace(
        cyclegan_256(),
        name="cyclegan_resnet6_128",
        config=CycleGANConfig(blocks=6),
        data=TranslationDataConfig(load_size=143, crop=128),
    )


def _train(*, pictures: int, order: Order) -> TrainConfig:
    """By one picture; a discriminator that is always right ends no run, since there is more to learn from than it."""
    return TrainConfig(
        steps=EPOCHS * pictures, batch=1, order=order, g_rate=2e-4, d_rate=2e-4, betas=(0.5, 0.999), on_trouble="warn"
    )


def pix2pix_256_tiny() -> Recipe:
    """The game of `pix2pix_256` at 64 pixels with few channels: a quarter of an hour on one core."""
    return replace(
        pix2pix_256(),
        name="pix2pix_256_tiny",
        config=Pix2PixConfig(features=32, levels=6),
        discriminator=PatchDiscriminatorConfig(channels=6, features=32, layers=2),
        data=TranslationDataConfig(load_size=72, crop=64),
        train=_train_tiny(pix2pix_256().train),
    )


def cyclegan_256_tiny() -> Recipe:
    """The game of `cyclegan_256` at 64 pixels with few channels and 4 blocks: 20 minutes on one core."""
    return replace(
        cyclegan_256(),
        name="cyclegan_256_tiny",
        config=CycleGANConfig(features=16, blocks=4),
        discriminator=PatchDiscriminatorConfig(features=16, layers=2, norm="instance"),
        data=TranslationDataConfig(load_size=72, crop=64),
        train=_train_tiny(cyclegan_256().train),
    )


def cyclegan_resnet6_128_tiny() -> Recipe:
    """The same with 3 blocks."""
    tiny = cyclegan_256_tiny()
    return replace(tiny, name="cyclegan_resnet6_128_tiny", config=replace(tiny.config, blocks=3))


def _train_tiny(train: TrainConfig) -> TrainConfig:
    return replace(train, steps=10_000, log_every=100, picture_every=1000, save_every=1000)
