"""The networks equal independent implementations: spandrel, BasicSR, and the published layouts written out below."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from beside import basicsr
from cases import random_batch
from dialects import mid, oldest
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import UnknownWeightsError
from restorer.networks.compact import CompactConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.spec import get_spec, load_weights
from restorer.networks.srgan import SRGANConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights"


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network in evaluation mode whose weights, slopes and statistics are random and repeatable."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build().eval()
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.1, 1.1)
            elif tensor.ndim == 1:
                tensor.uniform_(-0.2, 0.2)
            elif tensor.ndim == 4:
                tensor.mul_(1.5)  # so that the deepest layers show in the output
    return network


def assert_same_output(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


# spandrel

ESRGANS = [
    ESRGANConfig(features=16, blocks=2),
    ESRGANConfig(features=16, blocks=2, scale=2),
    ESRGANConfig(features=16, blocks=2, scale=1),
    ESRGANConfig(features=16, blocks=1, scale=1, upsamples=0),
    ESRGANConfig(features=16, blocks=1, scale=2, upsamples=1),
    ESRGANConfig(features=16, blocks=1, scale=8, upsamples=3),
]


def in_spandrel(weights: dict[str, Tensor]) -> nn.Module:
    spandrel = pytest.importorskip("spandrel", reason="spandrel is not installed")
    return spandrel.ModelLoader().load_from_state_dict(dict(weights)).model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", ESRGANS, ids=lambda c: f"x{c.scale}-{c.upsamples}")
@pytest.mark.parametrize("dialect", [dict, mid, oldest])
def test_esrgan_equals_spandrel_in_every_dialect(config: ESRGANConfig, dialect: Callable) -> None:
    weights = dialect(seeded(lambda: get_spec("esrgan").build(config)).state_dict())
    model = load_weights(weights)
    assert model.config == config
    assert_same_output(model.network, in_spandrel(weights), random_batch((2, 3, 12, 16)))


@pytest.mark.filterwarnings("ignore")
def test_esrgan_with_extra_paths_equals_spandrel() -> None:
    config = ESRGANConfig(features=16, blocks=2, conv1x1=True)
    weights = oldest(seeded(lambda: get_spec("esrgan").build(config)).state_dict())
    model = load_weights(weights)
    assert model.config == config
    assert_same_output(model.network, in_spandrel(weights), random_batch((1, 3, 9, 8)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_compact_equals_spandrel(scale: int) -> None:
    weights = seeded(lambda: get_spec("compact").build(CompactConfig(features=16, convs=5, scale=scale))).state_dict()
    assert_same_output(load_weights(weights).network, in_spandrel(weights), random_batch((2, 3, 9, 8)))


# BasicSR


@pytest.fixture
def basicsr_archs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return basicsr(monkeypatch, "archs")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_esrgan_equals_basicsr(scale: int, basicsr_archs: ModuleType) -> None:
    build = basicsr_archs.rrdbnet_arch.RRDBNet
    theirs = seeded(lambda: build(3, 3, scale=scale, num_feat=16, num_block=2, num_grow_ch=8))
    assert_same_output(load_weights(theirs.state_dict()).network, theirs, random_batch((1, 3, 12, 8)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["prelu", "relu", "leakyrelu"])
def test_compact_equals_basicsr(scale: int, kind: str, basicsr_archs: ModuleType) -> None:
    build = basicsr_archs.srvgg_arch.SRVGGNetCompact
    theirs = seeded(lambda: build(num_feat=16, num_conv=4, upscale=scale, act_type=kind))
    model = load_weights(theirs.state_dict(), facts={} if kind == "prelu" else {"activation": kind})
    assert_same_output(model.network, theirs, random_batch((1, 3, 7, 8)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_plain_srgan_equals_basicsr(scale: int, basicsr_archs: ModuleType) -> None:
    build = basicsr_archs.srresnet_arch.MSRResNet
    theirs = seeded(lambda: build(num_feat=16, num_block=3, upscale=scale))
    model = load_weights(theirs.state_dict())
    assert model.config == SRGANConfig(features=16, blocks=3, scale=scale, form="plain")
    assert_same_output(model.network, theirs, random_batch((1, 3, 7, 8)))


# Layouts written out


class Residual(nn.Module):
    """What is inside, added to what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return x + y


class SilentCompact(nn.Module):
    """SRVGGNetCompact whose activation has no weights."""

    def __init__(self, scale: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        channels = [3, 8, 8, 8]
        pairs = [[nn.Conv2d(a, b, 3, 1, 1), make()] for a, b in pairwise(channels)]
        self.body = nn.Sequential(*(layer for pair in pairs for layer in pair), nn.Conv2d(8, 3 * scale**2, 3, 1, 1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return nn.PixelShuffle(self.scale)(self.body(x)) + nn.UpsamplingNearest2d(scale_factor=self.scale)(x)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("kind", "make"), [("relu", nn.ReLU), ("leakyrelu", lambda: nn.LeakyReLU(0.1))])
def test_silent_compact_equals_its_layout(scale: int, kind: str, make: Callable[[], nn.Module]) -> None:
    theirs = seeded(lambda: SilentCompact(scale, make))
    model = load_weights(theirs.state_dict(), facts={"activation": kind})
    assert model.config == CompactConfig(features=8, convs=2, scale=scale, activation=kind)
    assert_same_output(model.network, theirs, random_batch((1, 3, 7, 8)))


class Lornatang(nn.Module):
    """SRGAN-PyTorch's SRResNet; `first`, `second`, `third` are what its convolutions are called."""

    def __init__(self, upsamples: int, names: tuple[str, str, str]) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Sequential(nn.Conv2d(3, 8, 9, 1, 4), nn.PReLU()))
        self.trunk = nn.Sequential()
        for _ in range(3):
            block = Residual()
            block.rcb = nn.Sequential(*self.conv(), nn.PReLU(), *self.conv())
            self.trunk.append(block)
        self.add_module(names[1], nn.Sequential(*self.conv()))
        self.upsampling = nn.Sequential()
        for _ in range(upsamples):
            up = nn.Sequential(nn.Conv2d(8, 32, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU())
            self.upsampling.append(nn.Sequential(OrderedDict(upsample_block=up)))
        self.add_module(names[2], nn.Conv2d(8, 3, 9, 1, 4))

    def conv(self) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (self.get_submodule(name) for name in self.names)
        low = first(x)
        return torch.clamp(third(self.upsampling(low + second(self.trunk(low)))), 0, 1)


@pytest.mark.parametrize("upsamples", [1, 2, 3])
@pytest.mark.parametrize("prefix", ["conv", "conv_block"])
def test_paper_srgan_equals_its_layout(upsamples: int, prefix: str) -> None:
    theirs = seeded(lambda: Lornatang(upsamples, (f"{prefix}1", f"{prefix}2", f"{prefix}3")))
    theirs.get_submodule(f"{prefix}3").bias.data += 0.5
    model = load_weights(theirs.state_dict())
    assert model.config == SRGANConfig(features=8, blocks=3, scale=2**upsamples, form="paper")
    assert_same_output(model.network, theirs, random_batch((1, 3, 7, 8)))


class Leftthomas(nn.Module):
    """leftthomas/SRGAN's Generator: blocks counted from 1, the end of the body followed by `act` or by batch norm."""

    def __init__(self, upsamples: int, body_end: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(3, 8, 9, 1, 4), nn.PReLU())
        for number in (2, 3, 4, 5, 6):
            block = Residual()
            block.conv1, block.bn1, block.prelu = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.PReLU()
            block.conv2, block.bn2 = nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8)
            self.add_module(f"block{number}", block)
        self.block7 = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), body_end())
        self.block8 = nn.Sequential()
        for _ in range(upsamples):
            layers = OrderedDict(conv=nn.Conv2d(8, 32, 3, 1, 1), pixel_shuffle=nn.PixelShuffle(2), prelu=nn.PReLU())
            self.block8.append(nn.Sequential(layers))
        self.block8.append(nn.Conv2d(8, 3, 9, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        low = self.block1(x)
        body = self.block6(self.block5(self.block4(self.block3(self.block2(low)))))
        return (torch.tanh(self.block8(low + self.block7(body))) + 1) / 2


@pytest.mark.parametrize("upsamples", [1, 2, 3])
@pytest.mark.parametrize(("form", "body_end"), [("tanh", nn.PReLU), ("tanh_norm", lambda: nn.BatchNorm2d(8))])
def test_tanh_srgan_equals_its_layout(upsamples: int, form: str, body_end: Callable[[], nn.Module]) -> None:
    theirs = seeded(lambda: Leftthomas(upsamples, body_end))
    model = load_weights(theirs.state_dict())
    assert model.config == SRGANConfig(features=8, blocks=5, scale=2**upsamples, form=form)
    assert_same_output(model.network, theirs, random_batch((1, 3, 7, 8)))


class MSRResNet(nn.Module):
    """BasicSR's MSRResNet, or mmagic's, which has other names and no activation after the pixel shuffles."""

    def __init__(self, scale: int, *, mmagic: bool) -> None:
        super().__init__()
        self.scale, self.mmagic = scale, mmagic
        factors = [scale] if scale < 4 else [2, 2]
        self.conv_first = nn.Conv2d(3, 8, 3, 1, 1)
        self.trunk = "trunk_net" if mmagic else "body"
        blocks = nn.Sequential(*(Residual() for _ in range(3)))
        for block in blocks:
            block.conv1, block.relu, block.conv2 = nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)
        self.add_module(self.trunk, blocks)
        self.ups = []
        for index, factor in enumerate(factors, start=1):
            name = f"upsample{index}.upsample_conv" if mmagic else f"upconv{index}"
            conv = nn.Conv2d(8, 8 * factor**2, 3, 1, 1)
            self.add_module(name.partition(".")[0], nn.Sequential(OrderedDict(upsample_conv=conv)) if mmagic else conv)
            self.ups.append((name, factor))
        self.conv_hr, self.conv_last = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        leaky = nn.LeakyReLU(0.1)
        y = self.get_submodule(self.trunk)(leaky(self.conv_first(x)))
        for name, factor in self.ups:
            y = nn.PixelShuffle(factor)(self.get_submodule(name)(y))
            y = y if self.mmagic else leaky(y)
        base = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return base + self.conv_last(leaky(self.conv_hr(y)))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("mmagic", [False, True])
def test_plain_srgan_equals_its_layout(scale: int, mmagic: bool) -> None:
    theirs = seeded(lambda: MSRResNet(scale, mmagic=mmagic))
    model = load_weights(theirs.state_dict())
    form = "plain_linear" if mmagic else "plain"
    assert model.config == SRGANConfig(features=8, blocks=3, scale=scale, form=form)
    assert_same_output(model.network, theirs, random_batch((1, 3, 7, 8)))


# Real weights


def real_weights(path: str) -> dict[str, Tensor]:
    if not (WEIGHTS / path).is_file():
        pytest.skip(f"{path} is not among the shared weights here")
    return pytest.importorskip("safetensors.torch", reason="safetensors is not installed").load_file(WEIGHTS / path)


@pytest.mark.parametrize(
    ("path", "config"),
    [
        ("realesrgan/RealESRGAN_x4plus.safetensors", ESRGANConfig()),
        ("realesrgan/RealESRGAN_x4plus_anime_6B.safetensors", ESRGANConfig(blocks=6)),
        ("realesrgan/realesr-animevideov3.safetensors", CompactConfig()),
        ("realesrgan/realesr-general-x4v3.safetensors", CompactConfig(convs=32)),
        ("realesrgan/realesr-general-wdn-x4v3.safetensors", CompactConfig(convs=32)),
        ("realesrgan/4xLSDIRCompactC3.safetensors", CompactConfig()),
        ("srgan/srgan_leftthomas_x2.safetensors", SRGANConfig(scale=2, blocks=5, form="tanh")),
        ("srgan/srgan_leftthomas_x4.safetensors", SRGANConfig(scale=4, blocks=5, form="tanh")),
        ("srgan/srgan_leftthomas_x8.safetensors", SRGANConfig(scale=8, blocks=5, form="tanh")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_real_weights_load_and_enlarge(path: str, config: object) -> None:
    model = load_weights(real_weights(path))
    assert model.config == config
    x = F.interpolate(random_batch((1, 3, 2, 2)), size=(16, 16), mode="bilinear", align_corners=True)
    y = model.network(x)
    assert y.shape == (1, 3, 16 * model.traits.scale, 16 * model.traits.scale)
    shrunk = F.interpolate(y, size=(16, 16), mode="area")
    assert (shrunk - x).abs().mean() < 0.05  # a smooth picture stays the picture it was


def test_fast_srgan_is_unknown() -> None:
    with pytest.raises(UnknownWeightsError, match=r"bottleneck\.0\.weight"):
        load_weights(dict(sorted(real_weights("srgan/fast_srgan_x4.safetensors").items())))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ["RealESRGAN_x4plus_anime_6B", "realesr-animevideov3"])
def test_real_weights_equal_spandrel(path: str) -> None:
    weights = real_weights(f"realesrgan/{path}.safetensors")
    theirs = in_spandrel({key: tensor.float() for key, tensor in weights.items()})
    assert_same_output(load_weights(weights).network, theirs, random_batch((1, 3, 24, 32)))


@pytest.mark.slow
def test_published_srgan_reaches_its_psnr_on_set5() -> None:
    """30.66 dB: measured with the author's own network code when the weights were repacked (SOURCES.md)."""
    network = load_weights(real_weights("srgan/srgan_leftthomas_x4.safetensors")).network
    folder = SHARED / "data" / "Set5"
    pairs = [
        (path, folder / "LR_bicubic" / "X4" / f"{path.stem}x4.png") for path in sorted((folder / "HR").glob("*.png"))
    ]
    if len(pairs) != 5:
        pytest.skip("Set5 is not among the shared data here")
    scores = []
    for high, low in pairs:
        x = torch.from_numpy(pixels(low)).permute(2, 0, 1)[None] / 255
        y = network(x.float())[0].permute(1, 2, 0).mul(255).round().clamp(0, 255).numpy()
        scores.append(psnr_y(y, pixels(high)))
    assert np.mean(scores) == pytest.approx(30.66, abs=0.05)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float64)


def psnr_y(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of MATLAB's rgb2ycbcr luma, without a border of 4."""
    h, w = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
    luma = np.array([65.481, 128.553, 24.966]) / 255
    difference = ((a[:h, :w] - b[:h, :w]) @ luma)[4:-4, 4:-4]
    return float(10 * np.log10(255**2 / np.mean(difference**2)))
