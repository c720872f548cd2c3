"""Real-ESRGAN: pictures that were put through what real ones go through (arXiv:2107.10833); each with a small twin."""

from dataclasses import replace

from restorer.networks.compact import CompactConfig
from restorer.networks.discriminators import UNetDiscriminatorConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.training.data import DataConfig
from restorer.training.degrade import DegradationConfig
from restorer.training.feature_losses import FeatureConfig
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.recipes.super_resolution import LITE0, esrgan_psnr_x4_tiny
from restorer.training.schedule import Schedule
from restorer.training.super_resolution import RestorationWeights

_FEATURES = FeatureConfig(
    layers=(("conv1_2", 0.1), ("conv2_2", 0.1), ("conv3_4", 1.0), ("conv4_4", 1.0), ("conv5_4", 1.0))
)


def realesrnet_x4() -> Recipe:
    """Real-ESRNet, 4x: L1 to the sharpened truth, 10^6 steps, from a PSNR network (set `start`)."""
    return Recipe(
        name="realesrnet_x4",
        network="esrgan",
        config=ESRGANConfig(),
        data=DataConfig(crop=256, turn=False),
        degradation=DegradationConfig(),
        train=TrainConfig(steps=1_000_000, batch=48, g_rate=2e-4),
    )


def realesrgan_x4() -> Recipe:
    """Real-ESRGAN, 4x: from Real-ESRNet (set `start`); five layers of features, a U-Net that judges every pixel."""
    return replace(
        realesrnet_x4(),
        name="realesrgan_x4",
        weights=RestorationWeights(pixel=1.0, perceptual=1.0, adversarial=0.1),
        features=_FEATURES,
        discriminator=UNetDiscriminatorConfig(),
        train=TrainConfig(steps=400_000, batch=48),
    )


def realesrgan_x2() -> Recipe:
    """Real-ESRGAN, 2x: the same game on pictures folded to half their sides first."""
    return replace(realesrgan_x4(), name="realesrgan_x2", config=ESRGANConfig(scale=2))


def realesr_general_x4v3() -> Recipe:
    """The compact network of 32 convolutions. How its published weights were trained is not: the game is x4's."""
    return replace(realesrgan_x4(), name="realesr_general_x4v3", network="compact", config=CompactConfig(convs=32))


def realesrnet_x4_tiny() -> Recipe:
    """A small RRDBNet on degraded pictures, L1: minutes on two cores."""
    return replace(
        esrgan_psnr_x4_tiny(), name="realesrnet_x4_tiny", degradation=replace(DegradationConfig(), margin=16)
    )


def realesrgan_x4_tiny() -> Recipe:
    """Real-ESRGAN's game with small numbers, through EfficientNet-Lite0."""
    return replace(
        realesrnet_x4_tiny(),
        name="realesrgan_x4_tiny",
        weights=RestorationWeights(pixel=1.0, perceptual=0.05, adversarial=5e-3),
        features=LITE0,
        discriminator=UNetDiscriminatorConfig(features=8),
        schedule=Schedule(),
        train=replace(realesrnet_x4_tiny().train, steps=1000, g_rate=2e-4, d_rate=2e-4),
    )


def realesrgan_x2_tiny() -> Recipe:
    """The same, 2x."""
    tiny = realesrgan_x4_tiny()
    return replace(tiny, name="realesrgan_x2_tiny", config=replace(tiny.config, scale=2))


def realesr_general_x4v3_tiny() -> Recipe:
    """The same with a compact network."""
    return replace(
        realesrgan_x4_tiny(),
        name="realesr_general_x4v3_tiny",
        network="compact",
        config=CompactConfig(features=24, convs=8),
    )
