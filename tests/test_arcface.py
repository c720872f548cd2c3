"""ArcFace's ResNet-18 equals gfpgan's, and the loss of identity is GFPGAN's, worked out another way."""

import importlib.util
import math
import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from beside import basicsr
from cases import random_batch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from restorer.errors import WeightsError
from restorer.losses.identity import Identity
from restorer.networks.arcface import SPEC, ArcFace, ArcFaceConfig, as_grey, likeness

TINY = ArcFaceConfig(side=32, features=4, blocks=(1, 2, 1, 1), embedding=6)


def lively(network: nn.Module) -> nn.Module:
    """Every weight and statistic random and repeatable, and answers of a size that shows differences."""
    rng = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.ndim in (2, 4):
            tensor.normal_(0, math.sqrt(1 / tensor[0].numel()), generator=rng)
        elif "prelu" in name:
            tensor.uniform_(0.1, 0.4, generator=rng)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=rng)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.3, 0.3, generator=rng)
    return network.eval()


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network of GFPGAN's options for training."""
    basicsr(monkeypatch, "utils.registry")
    if importlib.util.find_spec("gfpgan") is None:
        pytest.skip("gfpgan is not installed; see the second environment in .ci/run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = importlib.import_module("gfpgan.archs.arcface_arch")
    return lively(module.ResNetArcFace(block="IRBlock", layers=[2, 2, 2, 2], use_se=False))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", ["", "module."])
def test_network_equals_gfpgan(theirs: nn.Module, prefix: str) -> None:
    weights = SPEC.rename({prefix + key: tensor for key, tensor in theirs.state_dict().items()}, {})
    assert SPEC.detect(weights, {})
    assert SPEC.read_config(weights, {}) == ArcFaceConfig()
    network, x = ArcFace(ArcFaceConfig()).eval(), random_batch((2, 1, 128, 128)) * 2 - 1
    network.load_state_dict(dict(weights))
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_loss_equals_gfpgan(theirs: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = importlib.import_module("gfpgan.models.gfpgan_model").GFPGANModel.gray_resize_for_identity
    fake, truth = (random_batch((2, 3, 200, 200), seed=seed) for seed in (1, 2))
    network = ArcFace(ArcFaceConfig())
    network.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = nn.L1Loss()(theirs(shown(None, fake * 2 - 1)), theirs(shown(None, truth * 2 - 1)))
        torch.testing.assert_close(Identity(network)(fake, truth), expected, rtol=0, atol=1e-4)


# What weights say


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_say_all_themselves(prefix: str) -> None:
    network = lively(ArcFace(TINY))
    weights = SPEC.rename({prefix + key: tensor for key, tensor in network.state_dict().items()}, {})
    assert SPEC.detect(weights, {})
    assert SPEC.read_config(weights, {}) == TINY
    copied, x = ArcFace(TINY).eval(), random_batch((2, 1, 32, 32))
    copied.load_state_dict(dict(weights))
    assert torch.equal(copied(x), network(x))


@pytest.mark.parametrize("key", ["conv1.weight", "fc5.weight"])
def test_missing_weight_is_named(key: str) -> None:
    weights = {name: tensor for name, tensor in ArcFace(TINY).state_dict().items() if name != key}
    assert SPEC.detect(weights, {})
    with pytest.raises(WeightsError, match=f"lack {key}"):
        SPEC.read_config(weights, {})


def test_another_resnet_is_not_taken_for_it() -> None:
    keys = [
        "conv1.weight",
        "bn1.weight",
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer4.0.bn1.bias",
        "fc.bias",
    ]
    assert not SPEC.detect({key: torch.ones(1) for key in keys}, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"side": 120}, "side must be a multiple of 16, got 120"),
        ({"side": 0}, "side must be a multiple of 16, got 0"),
        ({"blocks": (1, 1, 1, 0)}, "blocks must be at least 1, got 0"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
    ],
)
def test_config_that_makes_no_network_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ArcFaceConfig(**change)


@pytest.mark.parametrize("config", [TINY, ArcFaceConfig()], ids=["tiny", "published"])
def test_operations_are_those_of_the_layers(config: ArcFaceConfig) -> None:
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        ArcFace(config).eval()(torch.zeros(1, 1, config.side, config.side))
    assert SPEC.traits(config).operations == counter.get_total_flops() / 2 / config.side**2


# Grey faces, likeness and the loss


def test_grey_is_green_more_than_red_more_than_blue() -> None:
    x = torch.eye(3)[:, :, None, None].expand(3, 3, 5, 7)
    torch.testing.assert_close(as_grey(x, 2)[:, 0, 0, 0], torch.tensor([0.2989, 0.5870, 0.1140]))
    assert as_grey(x).shape == (3, 1, 128, 128)


def test_likeness_is_the_cosine() -> None:
    a = torch.tensor([[1.0, 0], [1, 1], [2, 0]])
    b = torch.tensor([[5.0, 0], [1, 0], [-1, 0]])
    torch.testing.assert_close(likeness(a, b), torch.tensor([1, 0.5**0.5, -1]))


def by_hand(network: nn.Module, fake: np.ndarray, truth: np.ndarray) -> float:
    """(N, 3, 2s, 2s) each: at half the side, bilinear without smoothing is the mean of four pixels."""
    grey = [np.einsum("nchw,c->nhw", 2 * x - 1, [0.2989, 0.5870, 0.1140]) for x in (fake, truth)]
    small = [sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4 for x in grey]
    with torch.no_grad():
        a, b = (network(torch.from_numpy(x[:, None]).float()).numpy() for x in small)
    return float(np.abs(a - b).mean())


def test_loss_is_the_mean_difference_of_embeddings() -> None:
    fake, truth = (random_batch((2, 3, 64, 64), seed=seed) for seed in (1, 2))
    network = lively(ArcFace(TINY))
    value = Identity(network, side=32, weight=10.0)(fake, truth)
    assert value.shape == ()
    assert value.item() == pytest.approx(10 * by_hand(network, fake.double().numpy(), truth.double().numpy()), rel=1e-4)
    assert Identity(network, side=32)(truth, truth).item() == 0


def test_loss_teaches_the_face_and_nothing_else() -> None:
    fake, truth = (random_batch((2, 3, 48, 48), seed=seed).requires_grad_() for seed in (1, 2))
    loss = Identity(ArcFace(TINY), side=32)
    loss(fake, truth).backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    assert truth.grad is None
    assert all(not each.requires_grad and each.grad is None for each in loss.parameters())


def test_loss_stays_out_of_checkpoints_and_at_rest() -> None:
    losses = nn.ModuleDict({"identity": Identity(ArcFace(TINY).train(), side=32)}).train()
    assert losses.state_dict() == {}
    assert not any(module.training for module in losses["identity"].modules())


def test_loss_fits_the_game_of_super_resolution() -> None:
    from restorer.training.objective import Now
    from restorer.training.super_resolution import RestorationWeights, SuperResolution

    class Still(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    loss = Identity(lively(ArcFace(TINY)), side=32)
    game = SuperResolution(Still(), None, weights=RestorationWeights(pixel=0), compared={"identity": loss})
    batch = {"fake": random_batch((2, 3, 32, 32)), "high": random_batch((2, 3, 32, 32), seed=2)}
    terms = game.g_terms(batch, Now(step=0, rng=torch.Generator()))
    torch.testing.assert_close(terms, {"g/identity": loss(batch["fake"], batch["high"])})
