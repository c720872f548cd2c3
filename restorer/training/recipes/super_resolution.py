"""SRResNet, SRGAN and ESRGAN from pairs of pictures, with their papers' numbers; each with a twin of small numbers."""

from dataclasses import replace

from restorer.networks.discriminators import VGGDiscriminatorConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.srgan import SRGANConfig
from restorer.training.adversary import AdversaryConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.data import DataConfig
from restorer.training.feature_losses import FeatureConfig
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.schedule import Schedule
from restorer.training.super_resolution import RestorationWeights

LITE0 = FeatureConfig(
    network="efficientnet_lite0",
    weights="efficientnet-lite0-imagenet",
    layers=(("block1", 1.0), ("block3", 1.0), ("block5", 1.0)),
)
"""What the twins look through: weights that a package brings, in place of VGG19."""


def srresnet_x4() -> Recipe:
    """SRResNet, 4x (arXiv:1609.04802): mean squared error, 10^6 steps. Set5 32.05 dB on Y in the paper (ImageNet)."""
    return Recipe(
        name="srresnet_x4",
        network="srgan",
        config=SRGANConfig(),
        weights=RestorationWeights(pixel_kind="l2"),
        data=DataConfig(crop=96),
        train=TrainConfig(steps=1_000_000, batch=16, g_rate=1e-4, betas=(0.9, 0.999)),
    )


def srgan_x4() -> Recipe:
    """SRGAN, 4x: from SRResNet (set `start`), features of VGG19 and a discriminator; 10^5 steps at 1e-4, 10^5 at 1e-5.

    The paper divides features by 12.75, which is the factor 0.006. Set5 29.40 dB on Y in the paper.
    """
    return replace(
        srresnet_x4(),
        name="srgan_x4",
        weights=RestorationWeights(pixel=0.0, perceptual=0.006, adversarial=1e-3),
        features=FeatureConfig(layers=(("relu5_4", 1.0),), distance="l2"),
        discriminator=VGGDiscriminatorConfig(side=96, hidden=1024, halvings=4, kernel=3),
        schedule=Schedule(kind="steps", milestones=(100_000,), factor=0.1),
        train=replace(srresnet_x4().train, steps=200_000),
    )


def esrgan_psnr_x4() -> Recipe:
    """RRDBNet for PSNR, 4x (arXiv:1809.00219; numbers of BasicSR): L1, 10^6 steps, four cosines. Set5 32.73 dB on Y."""
    return Recipe(
        name="esrgan_psnr_x4",
        network="esrgan",
        config=ESRGANConfig(),
        schedule=Schedule(kind="cosine", periods=(250_000,) * 4),
        data=DataConfig(crop=128),
        train=TrainConfig(steps=1_000_000, batch=16, g_rate=2e-4),
    )


def esrgan_x4() -> Recipe:
    """ESRGAN, 4x: from the PSNR network (set `start`); features before ReLU, a discriminator that compares."""
    return replace(
        esrgan_psnr_x4(),
        name="esrgan_x4",
        weights=RestorationWeights(pixel=1e-2, perceptual=1.0, adversarial=5e-3),
        discriminator=VGGDiscriminatorConfig(),
        adversary=AdversaryConfig(relativistic=True),
        schedule=Schedule(kind="steps", milestones=(50_000, 100_000, 200_000, 300_000)),
        train=TrainConfig(steps=400_000, batch=16),
    )


def srresnet_x4_tiny() -> Recipe:
    """A small SRResNet without batch norm, L1: minutes on two cores, and above bicubic."""
    return replace(
        srresnet_x4(),
        name="srresnet_x4_tiny",
        config=SRGANConfig(features=24, blocks=4, form="plain"),
        weights=RestorationWeights(),
        averaging=AveragingConfig(decay=0.99),
        schedule=Schedule(kind="cosine", periods=(2000,)),
        data=DataConfig(crop=64),
        train=TrainConfig(steps=2000, batch=8, g_rate=1e-3, log_every=50, picture_every=500, save_every=500),
    )


def srgan_x4_tiny() -> Recipe:
    """SRGAN's game with small numbers, through EfficientNet-Lite0."""
    return replace(
        srresnet_x4_tiny(),
        name="srgan_x4_tiny",
        weights=RestorationWeights(pixel=1.0, perceptual=0.05, adversarial=5e-3),
        features=LITE0,
        discriminator=VGGDiscriminatorConfig(side=64, features=16, halvings=4),
        schedule=Schedule(),
        train=replace(srresnet_x4_tiny().train, steps=1000, g_rate=2e-4, d_rate=2e-4),
    )


def esrgan_psnr_x4_tiny() -> Recipe:
    """A small RRDBNet, L1."""
    return replace(
        srresnet_x4_tiny(),
        name="esrgan_psnr_x4_tiny",
        network="esrgan",
        config=ESRGANConfig(features=24, grow=12, blocks=2),
        train=replace(srresnet_x4_tiny().train, g_rate=5e-4),
    )


def esrgan_x4_tiny() -> Recipe:
    """ESRGAN's game with small numbers, through EfficientNet-Lite0."""
    return replace(
        esrgan_psnr_x4_tiny(),
        name="esrgan_x4_tiny",
        weights=RestorationWeights(pixel=1.0, perceptual=0.05, adversarial=5e-3),
        features=LITE0,
        discriminator=VGGDiscriminatorConfig(side=64, features=16, halvings=4),
        adversary=AdversaryConfig(relativistic=True),
        schedule=Schedule(),
        train=replace(esrgan_psnr_x4_tiny().train, steps=1000, g_rate=2e-4, d_rate=2e-4),
    )
