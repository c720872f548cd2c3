"""GFPGAN's game: components cut out and judged, and every wish worked out another way, at best by gfpgan's own step."""

import copy
import importlib
import importlib.util
import math
import warnings
from dataclasses import replace
from itertools import chain, pairwise
from unittest.mock import Mock

import pytest
import torch
from beside import basicsr
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import UsageError
from restorer.losses.components import PARTS, Box, component_style, crop, places
from restorer.losses.identity import Identity
from restorer.networks import face_discriminators as small
from restorer.networks.arcface import ArcFace, ArcFaceConfig
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.gfpgan import GFPGAN, SPEC, GFPGANConfig
from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.networks.stylegan2 import StyleGAN2, StyleGAN2Config
from restorer.pipeline.faces.align import TEMPLATE
from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.data import DataConfig
from restorer.training.degrade_faces import FaceDegradationConfig
from restorer.training.face_restoration import FACE_RESTORATION, WHOLE, FaceRestoration, FaceWeights
from restorer.training.objective import Batch, Clock, Now, Rules, Terms, Turns, gan_step
from restorer.training.recipe import Recipe
from restorer.weights.read import write_safetensors

TINY = GFPGANConfig(widths=(16, 16, 16, 8, 8), style=16)
NO_D = FaceWeights(adversarial=0)
HALVING = (2, 4)
"""Layers of the small discriminators that halve."""
EMBEDDING = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Tanh())
"""Stands for the network that tells people apart."""
APART = nn.MSELoss()
"""Stands for a loss with a network of its own."""


def judges(weights: FaceWeights) -> dict[str, nn.Module]:
    config = small.ComponentDiscriminatorConfig(features=4)
    return {part: small.ComponentDiscriminator(config) for part in weights.parts}


def game(*, r1: float = 0.0, compared: dict[str, nn.Module] | None = None, **weights: object) -> FaceRestoration:
    torch.manual_seed(0)
    chosen, adversary = FaceWeights(**weights), Adversary(AdversaryConfig(r1=r1))
    whole = nn.Sequential(nn.Conv2d(3, 1, 8, stride=8), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1))
    d = nn.ModuleDict({WHOLE: whole, **judges(chosen)})
    return FaceRestoration(GFPGAN(TINY), d, weights=chosen, adversary=adversary, compared=compared)


def batch(count: int = 2) -> Batch:
    rng = torch.Generator().manual_seed(7)
    return {name: torch.rand(count, 3, 64, 64, generator=rng) for name in ("low", "high")}


def now(step: int = 0, seed: int = 5) -> Now:
    return Now(step=step, rng=torch.Generator().manual_seed(seed))


def published_weights(features: int) -> dict[str, Tensor]:
    """A small discriminator as gfpgan's files hold it, with random biases."""
    rng, found = torch.Generator().manual_seed(3), {}
    channels = (3, *(features * times for times in (1, 2, 2, 4, 4)), 1)
    for number, (into, out) in enumerate(pairwise(channels), start=1):
        layer, first = f"conv{number}" if number < 6 else "final_conv", int(number in HALVING)
        found[f"{layer}.{first}.weight"] = torch.randn(out, into, 3, 3, generator=rng)
        found[f"{layer}.{first + (number < 6)}.bias"] = torch.randn(out, generator=rng)
    return found


def as_published(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(N, 3, h, w) in [-1, 1]: equalised weights, gains after activations, and the filter by shifted sums."""
    seen = []
    for number in range(1, 6):
        halves = number in HALVING
        weight, bias = weights[f"conv{number}.{int(halves)}.weight"], weights[f"conv{number}.{int(halves) + 1}.bias"]
        if halves:
            x, (height, width) = F.pad(x, (2, 2, 2, 2)), x.shape[-2:]
            x = sum(t / 8 * x[:, :, at : at + height + 1] for at, t in enumerate((1, 3, 3, 1)))
            x = sum(t / 8 * x[:, :, :, at : at + width + 1] for at, t in enumerate((1, 3, 3, 1)))
        x = F.conv2d(x, weight / math.sqrt(weight[0].numel()), stride=1 + halves, padding=int(not halves))
        x = F.leaky_relu(x + bias[:, None, None], 0.2) * math.sqrt(2)
        seen.append(x)
    last = weights["final_conv.0.weight"]
    logits = F.conv2d(x, last / math.sqrt(last[0].numel()), weights["final_conv.0.bias"], padding=1)
    return logits, [seen[2], seen[4]]


def gfpgans(monkeypatch: pytest.MonkeyPatch, name: str):
    """One of its modules; basicsr's fused activation exists on CUDA only, so its definition stands in for it."""
    fused = basicsr(monkeypatch, "ops.fused_act.fused_act")
    monkeypatch.setattr(fused, "fused_leaky_relu", lambda x, b, *_: F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5)
    if importlib.util.find_spec("gfpgan") is None:
        pytest.skip("gfpgan is not installed; see the second environment in .ci/run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"gfpgan.{name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [20, 45])
@pytest.mark.parametrize("by", ["hand", "gfpgan"])
def test_component_discriminator_is_the_published_one_with_its_factors_in_the_weights(monkeypatch, by, side):
    weights = published_weights(64)
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    if by == "gfpgan":
        theirs = gfpgans(monkeypatch, "archs.gfpganv1_arch").FacialComponentDiscriminator()
        theirs.load_state_dict(weights)
        expected, levels = theirs(2 * x - 1, return_feats=True)
    else:
        expected, levels = as_published(weights, 2 * x - 1)
    network = small.ComponentDiscriminator(small.ComponentDiscriminatorConfig())
    network.load_state_dict(small.rename_component(weights))
    logits, features = network.judged(x)
    assert logits.shape == (1, 1, side // 4, side // 4) and network(x).equal(logits)
    for ours, other in zip((logits, *features), (expected, *levels), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-5)


def test_rates_are_what_the_published_network_multiplies_with():
    network = small.ComponentDiscriminator(small.ComponentDiscriminatorConfig(features=4))
    ones = {name: torch.ones_like(tensor) for name, tensor in published_weights(4).items()}
    factors = {name: float(tensor.flatten()[0]) for name, tensor in small.rename_component(ones).items()}
    assert network.rates() == pytest.approx(factors)
    assert network.rates()["conv1.weight"] == pytest.approx(math.sqrt(2 / 27))
    assert network.rates()["last.weight"] == pytest.approx(1 / 12)  # 9 places, 16 channels
    assert (network.rates()["conv5.bias"], network.rates()["last.bias"]) == (pytest.approx(math.sqrt(2)), 1)
    assert network.rates().keys() == dict(network.named_parameters()).keys()
    foreign = {"final_conv.0.weight": torch.ones(1, 1, 3, 3), "conv_body.0.0.weight": torch.ones(1, 3, 1, 1)}
    assert small.rename_component(foreign) == foreign


def test_places_are_those_of_the_template_made_symmetric():
    """By hand: eyes are 125.92139 apart around 255.5, at the mean of their heights; so are the mouth's corners."""
    large, half = places(512), places(256)
    middle = 255.5 - 125.92139 / 2
    assert large["left_eye"].box == pytest.approx((middle - 40, 200.07034, middle + 40, 280.07034))
    assert large["mouth"].box == pytest.approx((195.5, 311.280805, 315.5, 431.280805))
    assert [large[part].side for part in PARTS] == [80, 80, 120]
    assert half["left_eye"].box.left == pytest.approx((middle + 0.5) / 2 - 0.5 - 20)  # centres at whole numbers
    assert [places(64)[part].side for part in PARTS] == [10, 10, 15]
    assert abs(middle - TEMPLATE[0][0]) < 0.5 and abs(255.5 - (TEMPLATE[3][0] + TEMPLATE[4][0]) / 2) < 2


@pytest.mark.parametrize("side", [32, 64, 512])
def test_components_are_interpolated_at_the_middle_of_each_pixel(side):
    faces = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    for place in places(side).values():
        (left, top, right, bottom), count = place
        middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        x, y = left + middles * (right - left), top + middles * (bottom - top)
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) * 2 / (side - 1) - 1
        expected = F.grid_sample(faces.double(), grid.expand(2, -1, -1, -1), align_corners=True)
        torch.testing.assert_close(crop(faces, *place), expected.float(), atol=1e-4, rtol=0)


def test_a_smaller_crop_is_the_mean_of_as_many_samples_as_pixels():
    """Squares, between which the line is at 0.5, 2.5, 6.5, 12.5, ... ; two of them make a pixel."""
    squares = (torch.arange(9.0) ** 2).expand(1, 1, 9, 9)
    assert crop(squares, Box(0, 0, 8, 8), 4)[0, 0].tolist() == [[1.5, 9.5, 25.5, 49.5]] * 4


def test_a_mirrored_face_has_its_components_mirrored():
    faces = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    where = places(64)
    for part, other in (("left_eye", "right_eye"), ("right_eye", "left_eye"), ("mouth", "mouth")):
        torch.testing.assert_close(crop(faces.flip(-1), *where[part]), crop(faces, *where[other]).flip(-1))


def test_style_is_the_distance_of_gram_matrices():
    """By hand: (1 + 4) / 2 and (9 + 16) / 2 are 10 apart, 4 and 1 are 3 apart; half of the first, all of the second."""
    fake = [torch.tensor([[[[1.0, 2.0]]]], requires_grad=True), torch.tensor([[[[2.0]]]])]
    real = [torch.tensor([[[[3.0, 4.0]]]], requires_grad=True), torch.tensor([[[[1.0]]]])]
    loss = component_style(fake, real)
    loss.backward()
    assert loss.item() == 8
    assert fake[0].grad is not None and real[0].grad is None


def expected_terms(objective: FaceRestoration, seen: Batch) -> dict[str, Tensor]:
    """GFPGAN's sums, over pictures in [-1, 1]."""
    fake, real = 2 * seen["fake"] - 1, 2 * seen["high"] - 1
    whole = objective.d[WHOLE]
    zeros = torch.zeros_like(whole(fake))
    bce = F.binary_cross_entropy_with_logits
    terms = {
        "g/pixel": 0.1 * (fake - real).abs().mean(),
        "g/pyramid": sum(
            (2 * seen[f"pyramid_{side}"] - 1 - F.avg_pool2d(real, 64 // side)).abs().mean() for side in (8, 16, 32, 64)
        ),
        "g/adversarial": 0.1 * bce(whole(seen["fake"]), zeros + 1),
        "d/adversarial": bce(whole(seen["high"]), zeros + 1) + bce(whole(seen["fake"]), zeros),
    }
    for part, place in places(64).items():
        (made, x), (true, y) = (objective.d[part].judged(crop(seen[name], *place)) for name in ("fake", "high"))
        grams = [[torch.einsum("nchw,ndhw->ncd", z, z) / z[0].numel() for z in each] for each in (x, y)]
        fine, coarse = ((one - other).abs().mean() for one, other in zip(*grams, strict=True))
        one, none = torch.ones_like(made), torch.zeros_like(made)
        terms |= {f"g/{part}": bce(made, one), f"g/{part}_style": 200 * (fine / 2 + coarse)}
        terms[f"d/{part}"] = bce(true, one) + bce(made, none)
    return terms


def test_every_term_is_the_published_sum():
    objective, shown = game(compared={"apart": APART}), batch()
    seen = shown | objective.imagine(shown, now())
    terms = objective.g_terms(seen, now()) | objective.d_terms(seen, now())
    expected = expected_terms(objective, seen) | {"g/apart": APART(seen["fake"], seen["high"])}
    assert terms.keys() == expected.keys() and min(expected.values()) > 1e-4
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, atol=1e-6, rtol=1e-4, msg=name)


LOGGED = {
    "l_g_pix": ["g/pixel"],
    "l_g_percep": ["g/apart"],
    "l_g_gan": ["g/adversarial"],
    "l_identity": ["g/identity"],
    "l_d": ["d/adversarial"],
    "l_d_r1": ["d/r1"],
    "l_g_comp_style_loss": [f"g/{part}_style" for part in PARTS],
    **{f"l_g_gan_{part}": [f"g/{part}"] for part in PARTS},
    **{f"l_d_{part}": [f"d/{part}"] for part in PARTS},
}
"""What gfpgan's step logs -> our terms, whose sum it is."""


def gfpgans_step(module, objective: FaceRestoration, shown: Batch, step: int) -> dict[str, float]:
    """Its training model's step around our networks, which it shows pictures in [-1, 1]; nothing learns."""
    loss = importlib.import_module("basicsr.losses").build_loss
    model = module.GFPGANModel.__new__(module.GFPGANModel)
    weights = {"pyramid_loss_weight": 1, "remove_pyramid_loss": 50_000, "comp_style_weight": 200, "identity_weight": 10}
    model.opt = {"train": weights, "network_g": {"out_size": 512}, "dist": False}
    model.log_size, model.device = 6, torch.device("cpu")
    model.lq, model.gt = 2 * shown["low"] - 1, 2 * shown["high"] - 1
    model.net_g, model.net_d, model.network_identity = Shown(objective.g), Shown(objective.d[WHOLE]), EMBEDDING
    model.model_ema = model.optimizer_g = model.optimizer_d = Mock()
    model.use_facial_disc = model.use_identity = True
    model.cri_pix, model.cri_l1 = loss({"type": "L1Loss", "loss_weight": 0.1}), loss({"type": "L1Loss"})
    model.cri_perceptual = lambda x, y: (APART((x + 1) / 2, (y + 1) / 2), None)
    model.cri_gan = loss({"type": "GANLoss", "gan_type": "wgan_softplus", "loss_weight": 0.1})
    model.cri_component = loss({"type": "GANLoss", "gan_type": "vanilla"})
    model.r1_reg_weight, model.net_d_iters, model.net_d_init_iters, model.net_d_reg_every = 10, 1, 0, 16
    for part in PARTS:
        setattr(model, f"net_d_{part}", Shown(objective.d[part]))
        setattr(model, f"optimizer_d_{part}", Mock())
        box = torch.tensor(places(64)[part].box) - torch.tensor([0, 0, 1e-4, 1e-4])  # or it takes four samples a pixel
        setattr(model, f"loc_{part}s", box.expand(len(shown["low"]), 4))
    regions = model.get_roi_regions
    model.get_roi_regions = lambda **sizes: regions(**{name: size // 8 for name, size in sizes.items()})
    model.optimize_parameters(step)
    return dict(model.log_dict)


class Shown(nn.Module):
    """One of our networks, called as gfpgan calls its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, return_rgb: bool = True, return_feats: bool = False) -> object:
        if isinstance(self.network, GFPGAN):
            face, features = self.network.painted(x)
            return face, self.network.pyramid(features)
        small_one = isinstance(self.network, small.ComponentDiscriminator)
        return self.network.judged((x + 1) / 2) if small_one else self.network((x + 1) / 2)


def played(objective: FaceRestoration, shown: Batch, *, rate: float, step: int = 0, g: bool = True) -> Terms:
    """One step of ours, by plain descent."""
    learning = {"g": objective.g.parameters(), "d": objective.d.parameters()}
    rules = Rules(optimisers={player: torch.optim.SGD(each, lr=rate) for player, each in learning.items()})
    turn = [shown]
    return gan_step(objective, Turns(d=[turn], g=turn if g else None), rules=rules, clock=Clock(seed=1, step=step))


@pytest.mark.filterwarnings("ignore")
def test_terms_and_gradients_equal_gfpgans(monkeypatch):
    module, shown = gfpgans(monkeypatch, "models.gfpgan_model"), batch()
    ours = game(r1=2.5, compared={"apart": APART, "identity": Identity(EMBEDDING, weight=10)})
    theirs = copy.deepcopy(ours)
    terms, logged = played(ours, shown, rate=0, step=16), gfpgans_step(module, theirs, shown, 16)
    for name, known in LOGGED.items():
        assert sum(terms[term] for term in known).item() == pytest.approx(logged[name], rel=1e-3), name
    pyramid = sum(logged[f"l_p_{side}"] for side in (8, 16, 32, 64))
    assert terms["g/pyramid"].item() == pytest.approx(pyramid, rel=1e-4)
    assert terms.keys() == {*chain(*LOGGED.values()), "g/pyramid", "g/gradient", "d/gradient"}
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == name.startswith("g.painter."), name
        if one.grad is not None:
            assert (one.grad - other.grad).norm() < 1e-3 * other.grad.norm(), name  # boxes differ by 1e-4 of a pixel


def test_the_pyramid_is_gone_after_its_steps():
    objective, shown = game(pyramid_steps=3), batch(1)
    for step, counts in ((2, True), (3, False)):
        seen = shown | objective.imagine(shown, now(step))
        assert [name for name in seen if "pyramid" in name] == [f"pyramid_{s}" for s in (8, 16, 32, 64) if counts]
        assert ("g/pyramid" in objective.g_terms(seen, now(step))) == counts


def test_zero_leaves_a_term_out():
    names = ("pixel", "pyramid", "perceptual", "style", "adversarial", "component", "component_style", "identity")
    nothing = dict.fromkeys(names, 0.0)
    assert FaceWeights(**nothing).is_idle and not FaceWeights().is_idle
    for name, terms in {"pixel": ["pixel"], "pyramid": ["pyramid"], "component": PARTS}.items():
        weights = FaceWeights(**nothing | {name: 1.0})
        objective, shown = FaceRestoration(GFPGAN(TINY), nn.ModuleDict(judges(weights)), weights=weights), batch(1)
        seen = shown | objective.imagine(shown, now())
        assert objective.g_terms(seen, now()).keys() == {f"g/{term}" for term in terms} and not weights.is_idle
        assert objective.d_terms(seen, now()).keys() == {f"d/{part}" for part in weights.parts}
        assert not objective.penalties() and objective.logits(seen, now()) is None


def test_noise_is_drawn_anew_and_follows_from_chance():
    objective, shown = game(), batch(1)
    for layer in objective.g.painter.layers:
        nn.init.ones_(layer.noise_strength)
    one, again, other = (objective.imagine(shown, now(seed=seed))["fake"] for seed in (1, 1, 2))
    assert one.equal(again) and not one.allclose(other, atol=1e-3)


@pytest.mark.parametrize("learns", [False, True])
def test_a_step_teaches_all_but_the_painter_of_old(learns):
    objective, shown = game(r1=2.5, train_painter=learns), batch(1)
    before = {name: parameter.detach().clone() for name, parameter in objective.named_parameters()}
    played(objective, shown, rate=0.1, g=False)
    changed = {name for name, parameter in objective.named_parameters() if not parameter.equal(before[name])}
    assert {name.split(".")[1] for name in changed} == {WHOLE, *PARTS}  # the generator did not move
    assert all(parameter.grad is None for parameter in objective.g.parameters())
    terms = played(objective, shown, rate=0.1)
    changed = {name for name, parameter in objective.named_parameters() if not parameter.equal(before[name])}
    parts = {"conv_first", "down", "conv_middle", "up", "to_rgb", "scale", "shift", "to_styles"}
    assert {name.split(".")[1] for name in changed if name[0] == "g"} == parts | ({"painter"} if learns else set())
    assert all(parameter.requires_grad == learns for parameter in objective.g.painter.parameters())
    assert {name for name in terms if "style" in name} == {f"g/{part}_style" for part in PARTS}
    assert {"d/r1", "g/gradient", "d/gradient"} < terms.keys() and "g/skipped" not in terms


def recipe(**changed: object) -> Recipe:
    weights = FaceWeights(perceptual=0, style=0, identity=0, component_features=4)
    usual = Recipe(
        name="faces", network="gfpgan", config=TINY, weights=weights,
        discriminator=StyleDiscriminatorConfig(widths=(4, 4, 4, 4, 4)), data=DataConfig(crop=64, turn=False),
        degradation=FaceDegradationConfig(),
    )  # fmt: skip
    return replace(usual, **changed)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"network": "esrgan", "config": ESRGANConfig()}, "choose network=gfpgan"),
        ({"data": DataConfig(crop=64)}, "set data.turn=false"),
        (
            {"config": replace(TINY, widths=(8, 8)), "discriminator": None, "weights": NO_D},
            "of side 8, data.crop is 64",
        ),
        ({"degradation": None}, "set degradation.kind=face"),
        ({"weights": NO_D, "discriminator": None}, "set weights.component=0"),
        ({"weights": FaceWeights(painter="one"), "start": "other"}, "not both"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changed, reason):
    told = FACE_RESTORATION.refusal(recipe(**changed), SPEC.traits(TINY))
    assert told is None if reason is None else reason in told


def test_a_recipe_brings_painter_and_identity(tmp_path):
    files = {
        "painter": StyleGAN2(StyleGAN2Config(widths=TINY.widths, style=16, mapping=1, resampling="bilinear")),
        "faces": ArcFace(ArcFaceConfig(side=32, features=4, blocks=(1, 1, 1, 1), embedding=6)),
    }
    for name, network in files.items():
        write_safetensors(tmp_path / f"{name}.safetensors", dict(network.state_dict()), {})
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in files}
    weights = replace(recipe().weights, identity=7.0, identity_network=paths["faces"], painter=paths["painter"])
    one = recipe(weights=weights)
    objective = FACE_RESTORATION.objective(one, GFPGAN(TINY), FACE_RESTORATION.discriminator(one), False)
    assert list(objective.d) == [WHOLE, *PARTS] and objective.d["mouth"].conv1.weight.shape[0] == 4
    painters = objective.g.painter.state_dict(), files["painter"].synthesis.state_dict()
    assert all(tensor.equal(painters[1][name]) for name, tensor in painters[0].items())
    assert objective.compared["identity"].weight == 7 and objective.compared["identity"].side == 32
    columns = FACE_RESTORATION.columns(objective.g, batch(1))
    assert [column.shape for column in columns] == [(1, 3, 64, 64)] * 3 and columns[1].min() >= 0
    for wrong in ({"painter": paths["faces"]}, {"identity_network": paths["painter"]}):
        with pytest.raises(UsageError, match=r"weights\.(painter|identity_network): .* is (arcface|stylegan2)"):
            FACE_RESTORATION.objective(recipe(weights=replace(weights, **wrong)), GFPGAN(TINY), None, False)
    with pytest.raises(UsageError, match=r"resampling bilinear, this recipe wants .* resampling fir"):
        FACE_RESTORATION.objective(one, GFPGAN(replace(TINY, resampling="fir")), None, False)
