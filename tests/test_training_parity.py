"""What training and metrics rest on equals BasicSR: discriminators, losses, kernels, sharpening, NIQE.

Its gradient penalty is left out: it takes the norm over channels alone, which is a known mistake.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from beside import basicsr

from restorer.losses.adversarial import gan_loss
from restorer.losses.penalties import zero_centred
from restorer.losses.perceptual import gram
from restorer.metrics.niqe import niqe, open_pristine
from restorer.networks.discriminators import (
    UNetDiscriminatorConfig,
    VGGDiscriminatorConfig,
    build_discriminator,
    rename_discriminator,
)
from restorer.pipeline.picture import read_picture
from restorer.training.blur import bell, sinc
from restorer.training.degrade import sharpened

HERE = Path(__file__).resolve().parent
SET5 = HERE.parents[1] / "shared" / "data" / "Set5" / "HR"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("config", "name", "arguments", "side"),
    [
        (VGGDiscriminatorConfig(features=4), "VGGStyleDiscriminator", {"num_in_ch": 3, "num_feat": 4}, 128),
        (UNetDiscriminatorConfig(features=4), "UNetDiscriminatorSN", {"num_in_ch": 3, "num_feat": 4}, 24),
    ],
)
def test_discriminators_answer_as_theirs(monkeypatch, config, name, arguments, side):
    torch.manual_seed(0)
    theirs = getattr(basicsr(monkeypatch, "archs.discriminator_arch"), name)(**arguments)
    x = torch.rand(2, 3, side, side)
    theirs.train()(x)  # statistics of batch norm, and the vectors of spectral norm, move once
    ours = build_discriminator(config)
    ours.load_state_dict(dict(rename_discriminator(theirs.state_dict(), config)))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("theirs", "ours", "times"),
    [
        ("vanilla", "non_saturating", 1),
        ("wgan_softplus", "non_saturating", 1),
        ("lsgan", "least_squares", 2),  # ours are halved, as in the paper
        ("wgan", "wasserstein", 1),
        ("hinge", "hinge", 1),
    ],
)
def test_adversarial_losses_are_theirs(monkeypatch, theirs, ours, times):
    judge = basicsr(monkeypatch, "losses.gan_loss").GANLoss(theirs, loss_weight=1.0)
    real, fake = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(1)).unbind()
    loss = gan_loss(ours)
    expected = judge(real, True, is_disc=True) + judge(fake, False, is_disc=True)
    torch.testing.assert_close(times * loss.d(real, fake), expected)
    torch.testing.assert_close(times * loss.g(None, fake), judge(fake, True, is_disc=False))


def test_esrgan_s_relativistic_loss_has_their_value(monkeypatch):
    """Their discriminator learns as if the mean of the other side were a constant; here it is not."""
    judge = basicsr(monkeypatch, "losses.gan_loss").GANLoss("vanilla", loss_weight=1.0)
    real, fake = torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(2)).unbind()
    loss = gan_loss("non_saturating", relativistic=True)
    theirs_d = (judge(real - fake.mean(), True, is_disc=True) + judge(fake - real.mean(), False, is_disc=True)) / 2
    theirs_g = (judge(real - fake.mean(), False) + judge(fake - real.mean(), True)) / 2
    torch.testing.assert_close(loss.d(real, fake), theirs_d)
    torch.testing.assert_close(loss.g(real, fake), theirs_g)


def test_r1_is_twice_ours(monkeypatch):
    """Ours is halved, as its paper has it."""
    theirs = basicsr(monkeypatch, "losses.gan_loss").r1_penalty
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))

    def judge(x):
        return (x.square() * weight).sum((1, 2, 3))

    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    torch.testing.assert_close(2 * zero_centred(judge, x), theirs(judge(x), x))


def test_gram_matrices_are_theirs(monkeypatch):
    theirs = basicsr(monkeypatch, "losses.basic_loss").PerceptualLoss._gram_mat
    x = torch.rand(2, 5, 7, 6)
    torch.testing.assert_close(gram(x), theirs(None, x))


def test_blur_kernels_are_theirs(monkeypatch):
    theirs = basicsr(monkeypatch, "data.degradations")
    for angle in (0.0, 0.4, -2.0):
        expected = theirs.bivariate_Gaussian(21, 1.3, 2.9, angle, isotropic=False)
        np.testing.assert_allclose(bell(21, (1.3, 2.9), angle), expected, atol=1e-12)
        expected = theirs.bivariate_generalized_Gaussian(15, 1.3, 2.9, angle, 0.7, isotropic=False)
        np.testing.assert_allclose(bell(15, (1.3, 2.9), angle, shape=0.7), expected, atol=1e-12)
        expected = theirs.bivariate_plateau(15, 1.3, 2.9, angle, 1.8, isotropic=False)
        np.testing.assert_allclose(bell(15, (1.3, 2.9), angle, shape=1.8, plateau=True), expected, atol=1e-12)
    for cutoff in (math.pi / 5, 2.0, math.pi):
        np.testing.assert_allclose(sinc(21, cutoff), theirs.circular_lowpass_kernel(cutoff, 21), atol=1e-7)


def test_sharpening_is_theirs(monkeypatch):
    theirs = basicsr(monkeypatch, "utils.img_process_util").USMSharp()
    pixels = read_picture(HERE / "pictures" / "coffee.png").pixels[:160, :200]
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(sharpened(x), theirs(x), atol=1e-3, rtol=0)  # at the threshold, rounding decides


def test_niqe_is_theirs(monkeypatch):
    """Flat parts too; where what rounding leaves decides, programs that round elsewhere may differ by more."""
    theirs = basicsr(monkeypatch, "metrics.niqe").calculate_niqe
    pristine = open_pristine()
    for path in [*sorted((HERE / "pictures").glob("*.*g")), *sorted(SET5.glob("*.png"))]:
        pixels = read_picture(path).pixels
        expected = theirs(pixels[:, :, ::-1].astype(np.float32), 4)
        assert niqe(pixels, pristine, border=4) == pytest.approx(expected, abs=0.05), path.name
    pixels = read_picture(HERE / "pictures" / "coffee.png").pixels.copy()
    pixels[:96] = 255
    assert niqe(pixels, pristine) == pytest.approx(theirs(pixels[:, :, ::-1].astype(np.float32), 0), abs=0.05)
