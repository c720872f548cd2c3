"""StyleGAN2 and GFPGAN in every form equal `basicsr` and `gfpgan`, through files as their authors write them."""

import importlib.util
import re
import warnings
from pathlib import Path

import pytest
import torch
from beside import basicsr
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import AmbiguousWeightsError, WeightsError
from restorer.networks.gfpgan import SPEC, GFPGANConfig
from restorer.networks.spec import Model, load_weights
from restorer.weights.read import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = {"out_size": 64, "num_style_feat": 32, "channel_multiplier": 2, "narrow": 1 / 16}
WIDTHS = (32, 32, 32, 32, 32)
TAPS = torch.tensor([1.0, 3, 3, 1])[:, None] * torch.tensor([1.0, 3, 3, 1]) / 64
FACE = {"decoder_load_path": None, "fix_decoder": False, "num_mlp": 2, "input_is_latent": True, "different_w": True}
FACES = {
    "clean": ("gfpganv1_clean_arch", "GFPGANv1Clean", {}),
    "bilinear": ("gfpgan_bilinear_arch", "GFPGANBilinear", {"resampling": "bilinear"}),
    "fir": ("gfpganv1_arch", "GFPGANv1", {"resampling": "fir"}),
}


@pytest.fixture
def archs(monkeypatch):
    """Modules by their name; basicsr's fused activation exists on CUDA only, so its definition stands in for it."""

    def fused_leaky_relu(x: Tensor, bias: Tensor | None, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
        shift = 0 if bias is None else bias.view(1, -1, *[1] * (x.ndim - 2))
        return F.leaky_relu(x + shift, negative_slope) * scale

    fused = basicsr(monkeypatch, "ops.fused_act.fused_act")
    monkeypatch.setattr(fused, "fused_leaky_relu", fused_leaky_relu)

    def find(package: str, name: str):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; see the second environment in .ci/run")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"{package}.archs.{name}")
        if hasattr(module, "fused_leaky_relu"):
            monkeypatch.setattr(module, "fused_leaky_relu", fused_leaky_relu)
        return module

    find("basicsr", "stylegan2_arch")
    if importlib.util.find_spec("gfpgan") is not None:
        find("gfpgan", "stylegan2_bilinear_arch")
    return find


def random(network: nn.Module) -> nn.Module:
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or parameter.numel() == 1:  # biases and noise strengths start at nothing
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return network.eval()


def loaded(weights: dict[str, object], path: Path, facts: dict[str, object]) -> Model:
    """Through a .pth file."""
    torch.save(weights, path)
    checkpoint = read_checkpoint(path)
    return load_weights(checkpoint.weights, facts={**checkpoint.facts, **facts})


@pytest.mark.parametrize("change", [{}, {"sft_half": False}, {"different_w": False}], ids=["usual", "all", "one_style"])
@pytest.mark.parametrize("form", FACES)
@pytest.mark.parametrize("wrapper", ["params_ema", "params"])
def test_every_form_of_gfpgan_is_theirs(archs, tmp_path, form, change, wrapper):
    module, name, facts = FACES[form]
    torch.manual_seed(0)
    theirs = random(getattr(archs("gfpgan", module), name)(**{**TINY, **FACE, "sft_half": True, **change}))
    model = loaded({wrapper: theirs.state_dict()}, tmp_path / "face.pth", facts)
    assert model.config == GFPGANConfig(
        widths=WIDTHS,
        style=32,
        half=change.get("sft_half", True),
        one_style=not change.get("different_w", True),
        resampling="fir" if form == "fir" else "bilinear",
    )
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        face, pyramid = theirs(x, return_rgb=True, randomize_noise=False)
        ours, features = model.network.painted(x)
        torch.testing.assert_close(ours, face, atol=1e-4, rtol=0)
        for level, other in zip(model.network.pyramid(features), pyramid, strict=True):
            torch.testing.assert_close(level, other, atol=1e-4, rtol=0)


def test_published_size_is_theirs(archs):
    """86.4 million parameters, of which the network that makes styles of noise is left out."""
    words = {**FACE, "num_mlp": 8, "channel_multiplier": 2, "sft_half": True}
    with torch.device("meta"):
        theirs = archs("gfpgan", "gfpganv1_clean_arch").GFPGANv1Clean(out_size=512, **words)
        ours = SPEC.build(GFPGANConfig())
    assert SPEC.read_config(SPEC.rename(theirs.state_dict(), {}), {}) == GFPGANConfig()
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (theirs, ours)]
    assert round(counts[0] / 1e6, 1) == 86.4
    assert counts[1] == counts[0] - 8 * (512 * 512 + 512)


@pytest.mark.parametrize(
    ("package", "module", "name", "facts"),
    [
        ("basicsr", "stylegan2_arch", "StyleGAN2Generator", {"resampling": "fir"}),
        ("gfpgan", "stylegan2_bilinear_arch", "StyleGAN2GeneratorBilinear", {"resampling": "bilinear"}),
        ("gfpgan", "stylegan2_clean_arch", "StyleGAN2GeneratorClean", {}),
    ],
)
def test_every_form_of_stylegan2_is_theirs(archs, package, module, name, facts):
    torch.manual_seed(0)
    theirs = random(getattr(archs(package, module), name)(**TINY, num_mlp=3))
    z, average = torch.randn(3, 32), torch.randn(1, 32)
    network = load_weights({**theirs.state_dict(), "latent_avg": average[0]}, facts=facts).network
    with torch.no_grad():
        for truncation in (1, 0.6):
            other, w_plus = theirs(
                [z], randomize_noise=False, truncation=truncation, truncation_latent=average, return_latents=True
            )
            styles = network.styles(z, truncation=truncation)
            torch.testing.assert_close(styles, w_plus, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(network.painted(styles), other, atol=1e-4, rtol=0)
        plus = torch.randn(2, 10, 32)
        other, _ = theirs([plus], input_is_latent=True, noise=[each[:1] * 0 for each in theirs.make_noise()])
        torch.testing.assert_close(network.painted(plus, network.no_noise()), other, atol=1e-4, rtol=0)


TO_ROSINALITY = [
    (r"style_mlp\.(\d+)\.(.*)", r"style.\1.\2"),
    (r"constant_input\.weight", "input.input"),
    (r"style_conv1\.modulated_conv\.(.*)", r"conv1.conv.\1"),
    (r"style_conv1\.weight", "conv1.noise.weight"),
    (r"style_conv1\.(.*)", r"conv1.\1"),
    (r"style_convs\.(\d+)\.modulated_conv\.(.*)", r"convs.\1.conv.\2"),
    (r"style_convs\.(\d+)\.weight", r"convs.\1.noise.weight"),
    (r"style_convs\.(\d+)\.(.*)", r"convs.\1.\2"),
    (r"to_rgb(1|s\.\d+)\.modulated_conv\.(.*)", r"to_rgb\1.conv.\2"),
    (r"noises\.noise(\d+)", r"noises.noise_\1"),
]
"""The table of published names."""


def test_rosinalitys_and_nvidias_files_are_the_same_pictures(archs):
    """The same numbers under the names and shapes that the three projects give them."""
    torch.manual_seed(0)
    theirs = random(archs("basicsr", "stylegan2_arch").StyleGAN2Generator(**TINY, num_mlp=3))
    z, average = torch.randn(2, 32), torch.randn(32)
    weights = theirs.state_dict()
    with torch.no_grad():
        exact, _ = theirs([z], randomize_noise=False, truncation=0.5, truncation_latent=average[None])
    one = {renamed(key, TO_ROSINALITY): tensor for key, tensor in weights.items()}
    one |= {
        "latent_avg": average,
        "convs.0.conv.blur.kernel": TAPS * 4,
        "to_rgbs.0.upsample.kernel": TAPS * 4,
    }
    other = dict(nvidia(key, tensor) for key, tensor in weights.items())
    other |= {"mapping.w_avg": average, "synthesis.b4.conv1.resample_filter": TAPS}
    for foreign, kernel in ((one, "convs.0.conv.blur.kernel"), (other, "synthesis.b4.conv1.resample_filter")):
        with pytest.raises(WeightsError, match=r"another filter than \[1, 3, 3, 1\]"):
            load_weights(foreign | {kernel: torch.ones(4, 4)})
        network = load_weights(foreign).network
        with torch.no_grad():
            torch.testing.assert_close(network.painted(network.styles(z, truncation=0.5)), exact, atol=1e-4, rtol=0)


def renamed(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, name in rules:
        if match := re.fullmatch(pattern, key):
            return match.expand(name)
    return key


def nvidia(key: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A key of basicsr's -> NVIDIA's, with the shape that it has there."""
    if match := re.fullmatch(r"style_mlp\.(\d+)\.(.*)", key):
        return f"mapping.fc{int(match[1]) - 1}.{match[2]}", tensor
    if key == "constant_input.weight":
        return "synthesis.b4.const", tensor[0]
    if match := re.fullmatch(r"noises\.noise(\d+)", key):
        return f"{nvidia_layer(int(match[1]))}.noise_const", tensor[0, 0]
    if match := re.fullmatch(r"to_rgb(1|s\.\d+)\.(.*)", key):
        where = f"synthesis.b{4 if match[1] == '1' else 8 * 2 ** int(match[1][2:])}.torgb"
        part = match[2]
    else:
        match = re.fullmatch(r"style_conv(1|s\.\d+)\.(.*)", key)
        where, part = nvidia_layer(0 if match[1] == "1" else int(match[1][2:]) + 1), match[2]
    if part == "weight":
        return f"{where}.noise_strength", tensor[0]
    part = part.removeprefix("activate.").replace("modulated_conv.modulation", "affine").removeprefix("modulated_conv.")
    return f"{where}.{part}", tensor[0] if part == "weight" else tensor.flatten() if part == "bias" else tensor


def nvidia_layer(index: int) -> str:
    return "synthesis.b4.conv1" if index == 0 else f"synthesis.b{8 * 2 ** ((index - 1) // 2)}.conv{(index - 1) % 2}"


@pytest.mark.parametrize("form", ["bilinear", "fir"])
def test_keys_that_do_not_tell_need_a_fact(archs, form):
    module, name, _ = FACES[form]
    weights = getattr(archs("gfpgan", module), name)(**TINY, **FACE, sft_half=True).state_dict()
    with pytest.raises(AmbiguousWeightsError, match="--fact resampling=fir or --fact resampling=bilinear"):
        load_weights(weights)
    with pytest.raises(WeightsError, match="resampling=cubic does not fit"):
        load_weights(weights, facts={"resampling": "cubic"})
