"""GFPGAN's game: every wish worked out another way, at best by gfpgan's own step, and the recipes that fit it."""

import copy
import importlib
from dataclasses import replace
from itertools import chain
from unittest.mock import Mock

import pytest
import torch
from face_players import TINY, batch, game, gfpgans, judges, now, recipe
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.errors import UsageError
from restorer.losses.components import PARTS, crop, places
from restorer.losses.identity import Identity
from restorer.networks import face_discriminators as small
from restorer.networks.esrgan import ESRGANConfig
from restorer.networks.gfpgan import GFPGAN, SPEC
from restorer.training.build import build_objective, checked_traits
from restorer.training.data import DataConfig
from restorer.training.face_restoration import FACE_RESTORATION, WHOLE, FaceRestoration, FaceWeights
from restorer.training.objective import Batch, Clock, Rules, Terms, Turns, gan_step

NO_D = FaceWeights(adversarial=0)
EMBEDDING = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Tanh())
"""Stands for the network that tells people apart."""
APART = nn.MSELoss()
"""Stands for a loss with a network of its own."""


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


def test_a_painter_that_neither_knows_faces_nor_learns_is_refused_before_the_first_step():
    held = replace(recipe().weights, train_painter=False)
    checked_traits(recipe(weights=held))  # the plan may be looked at
    with pytest.raises(UsageError, match=r"set weights\.painter to a StyleGAN2, start, or weights\.train_painter=true"):
        build_objective(recipe(weights=held))
