"""GFPGAN: damaged faces, painted anew (arXiv:2101.04061); with a twin of small numbers."""

from dataclasses import replace

from restorer.networks.gfpgan import GFPGANConfig
from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.training.adversary import AdversaryConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.blur import BlurConfig
from restorer.training.data import DataConfig
from restorer.training.degrade_faces import FaceDegradationConfig
from restorer.training.face_restoration import FaceWeights
from restorer.training.feature_losses import FeatureConfig
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.recipes.super_resolution import LITE0
from restorer.training.schedule import Schedule

WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32)
"""Of version 1: channel multiplier 1."""


def gfpgan_512() -> Recipe:
    """GFPGAN version 1 from aligned faces of 512 pixels; set `weights.painter` to a StyleGAN2 of the same widths.

    Numbers of the published options, with R1 10 as 2.5, since pictures are in [0, 1]. Unlike there, all discriminators
    learn at the same rate with betas (0, 0.99): there the components' are (0.9, 0.99), and the rate of the whole face's
    is multiplied with 16/17 and its second beta 0.99^(16/17), for lazy R1. Components have the places of the template.
    """
    return Recipe(
        name="gfpgan_512",
        network="gfpgan",
        config=GFPGANConfig(widths=WIDTHS, resampling="fir"),
        weights=FaceWeights(),
        features=FeatureConfig(
            layers=(("conv1_2", 0.1), ("conv2_2", 0.1), ("conv3_4", 1.0), ("conv4_4", 1.0), ("conv5_4", 1.0))
        ),
        discriminator=StyleDiscriminatorConfig(widths=WIDTHS),
        adversary=AdversaryConfig(r1=2.5),
        averaging=AveragingConfig(decay=0.5 ** (32 / 10_000)),
        schedule=Schedule(kind="steps", milestones=(600_000, 700_000)),
        data=DataConfig(crop=512, turn=False),
        degradation=FaceDegradationConfig(),
        train=TrainConfig(steps=800_000, batch=12, g_rate=2e-3, d_rate=2e-3, betas=(0.0, 0.99)),
    )


def gfpgan_512_tiny() -> Recipe:
    """The same game at 64 pixels, painter and all from nothing, through EfficientNet-Lite0: 40 minutes on one core.

    Blur and shrinking are an eighth and half of the published, as the faces are small; colours stay. Identity and the
    terms of style are left out.
    """
    widths = (64, 64, 64, 48, 32)
    blur = BlurConfig(kinds=(0.5, 0.5, 0, 0, 0, 0), sides=(9,), sigma=(0.1, 1.5), sinc=0.0)
    return replace(
        gfpgan_512(),
        name="gfpgan_512_tiny",
        config=GFPGANConfig(widths=widths, style=64, resampling="fir"),
        weights=FaceWeights(
            pixel=1.0, pyramid_steps=700, perceptual=0.005, style=0.0, adversarial=0.01, component=0.01,
            component_style=0.0, component_features=16, identity=0.0, train_painter=True,
        ),
        features=LITE0,
        discriminator=StyleDiscriminatorConfig(widths=widths),
        adversary=AdversaryConfig(r1=0.25),
        averaging=AveragingConfig(decay=0.998),
        schedule=Schedule(kind="cosine", periods=(1500, 2000)),
        data=DataConfig(crop=64, turn=False),
        degradation=FaceDegradationConfig(blur=blur, shrink=(1.0, 4.0), shift_chance=0.0, jitter_chance=0.0, grey=0.0),
        train=replace(
            gfpgan_512().train, steps=3500, batch=8, g_rate=6e-3, log_every=50, picture_every=250,
            save_every=500, on_trouble="warn",
        ),
    )  # fmt: skip
