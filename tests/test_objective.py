"""The step of the game: who learns when, from what, and that adding parts up changes nothing."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.objective import Batch, Clock, Now, Objective, Penalty, Rules, Turns, frozen, gan_step
from restorer.training.super_resolution import RestorationWeights, SuperResolution

CLOCK = Clock(seed=3, step=0)


def players(**adversary: object) -> SuperResolution:
    """A pair without batch norm, in float64."""
    torch.manual_seed(0)
    g = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, padding=1)).double()
    d = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)).double()
    weights = RestorationWeights(adversarial=0.1)
    return SuperResolution(g, d, weights=weights, adversary=Adversary(AdversaryConfig(**adversary)))


def batch(count: int = 4, *, seed: int = 1) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return {
        "low": torch.rand(count, 1, 4, 4, generator=rng, dtype=torch.float64),
        "high": torch.rand(count, 1, 8, 8, generator=rng, dtype=torch.float64),
    }


def rules(objective: Objective, *, rate: float = 0.1, **changed: object) -> Rules:
    optimisers = {
        player: torch.optim.SGD(network.parameters(), lr=rate)
        for player, network in (("g", objective.g), ("d", objective.d))
    }
    return replace(Rules(optimisers=optimisers), **changed)


def weights_of(network: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


@pytest.mark.parametrize("order", ["gd", "dg"])
def test_each_player_learns_and_the_other_does_not(order):
    objective, shared = players(), [batch()]
    before = weights_of(objective.g), weights_of(objective.d)
    gan_step(objective, Turns(d=[shared], g=None), rules=rules(objective, order=order), clock=CLOCK)
    assert torch.equal(weights_of(objective.g), before[0])
    assert not torch.equal(weights_of(objective.d), before[1])
    between = weights_of(objective.d)
    gan_step(objective, Turns(d=[], g=shared), rules=rules(objective, order=order), clock=CLOCK)
    assert not torch.equal(weights_of(objective.g), before[0])
    assert torch.equal(weights_of(objective.d), between)


def test_the_discriminator_sees_the_picture_from_before_the_generator_learned():
    objective, shared = players(), [batch()]
    fake = objective.g(shared[0]["low"]).detach()
    expected = objective.adversary.d_term(objective.d, shared[0]["high"], fake, Now(step=0, rng=torch.Generator()))
    terms = gan_step(objective, Turns(d=[shared], g=shared), rules=rules(objective), clock=CLOCK)
    assert torch.allclose(terms["d/adversarial"], expected)


def test_the_order_decides_which_discriminator_the_generator_meets():
    first, shared = players(), [batch()]
    second = copy.deepcopy(first)
    turns = Turns(d=[shared], g=shared)
    one = gan_step(first, turns, rules=rules(first, order="gd"), clock=CLOCK)
    two = gan_step(second, turns, rules=rules(second, order="dg"), clock=CLOCK)
    assert torch.allclose(one["d/adversarial"], two["d/adversarial"])  # the same fakes in both
    assert not torch.allclose(one["g/adversarial"], two["g/adversarial"])


def test_the_generator_imagines_once_for_a_shared_turn():
    objective, shared = players(), [batch()]
    calls = []
    objective.g.register_forward_hook(lambda *_: calls.append(1))
    for order in ("gd", "dg"):
        calls.clear()
        gan_step(objective, Turns(d=[shared], g=shared), rules=rules(objective, order=order), clock=CLOCK)
        assert len(calls) == 1
    calls.clear()
    gan_step(objective, Turns(d=[shared, [batch(seed=2)]], g=shared), rules=rules(objective), clock=CLOCK)
    assert len(calls) == 2


@pytest.mark.parametrize("order", ["gd", "dg"])
@pytest.mark.parametrize("loss", ["non_saturating", "wasserstein"])
def test_parts_added_up_equal_the_whole(order, loss):
    whole = players(loss=loss, r1=1.0, every=1)
    parts = copy.deepcopy(whole)
    full = batch(4)
    halves = [{name: tensor[half] for name, tensor in full.items()} for half in (slice(0, 2), slice(2, 4))]
    one, two = [full], halves
    for _ in range(2):
        gan_step(whole, Turns(d=[one], g=one), rules=rules(whole, order=order), clock=CLOCK)
        gan_step(parts, Turns(d=[two], g=two), rules=rules(parts, order=order), clock=CLOCK)
    assert torch.allclose(weights_of(whole), weights_of(parts), atol=1e-12)


def test_penalties_are_paid_when_due_and_then_for_all_the_time():
    shared = [batch()]
    paid = []
    for step in range(5):
        objective = players(r1=2.0, every=4)
        terms = gan_step(
            objective, Turns(d=[shared], g=shared), rules=rules(objective), clock=replace(CLOCK, step=step)
        )
        paid.append("d/r1" in terms)
        if step == 0:
            now_and_then = terms["d/r1"]
    assert paid == [True, False, False, False, True]
    objective = players(r1=2.0, every=1)
    always = gan_step(objective, Turns(d=[shared], g=shared), rules=rules(objective), clock=CLOCK)["d/r1"]
    assert torch.allclose(now_and_then, 4 * always)


def test_every_turn_of_a_due_step_pays():
    """As WGAN-GP does: five turns of the critic, five penalties."""
    calls = []
    objective = players(r1=1.0, every=1)
    penalties = objective.penalties()
    fn = penalties["d/r1"].fn
    objective.penalties = lambda: {"d/r1": replace(penalties["d/r1"], fn=lambda *a: (calls.append(1), fn(*a))[1])}
    shared = [batch()]
    gan_step(objective, Turns(d=[shared, shared, shared], g=shared), rules=rules(objective), clock=CLOCK)
    assert len(calls) == 3


def test_what_was_not_finite_leaves_no_trace_in_buffers():
    objective, shared = players(augment="ada", ada_pictures=8), [batch()]
    objective.g.append(nn.BatchNorm2d(1).double())
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    shared[0]["low"][0, 0, 0, 0] = float("nan")
    gan_step(objective, Turns(d=[shared], g=shared), rules=rules(objective), clock=CLOCK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())


def test_a_gradient_that_is_not_finite_is_left_out_and_told():
    objective, shared = players(), [batch()]
    shared[0]["high"][0, 0, 0, 0] = float("nan")
    before = weights_of(objective)
    terms = gan_step(objective, Turns(d=[shared], g=shared), rules=rules(objective), clock=CLOCK)
    assert torch.equal(weights_of(objective), before)
    assert {"g/skipped", "d/skipped"} <= set(terms)


def test_chance_follows_from_the_clock_and_disturbs_nothing():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with CLOCK.turn("g", 0, 0) as now:
        first = torch.rand(2), torch.rand(2, generator=now.rng)
    assert torch.equal(torch.get_rng_state(), state)
    with CLOCK.turn("g", 0, 0) as now:
        assert torch.equal(torch.rand(2), first[0])
        assert torch.equal(torch.rand(2, generator=now.rng), first[1])
    with replace(CLOCK, step=1).turn("g", 0, 0):
        assert not torch.equal(torch.rand(2), first[0])


def test_freezing_gives_back_what_was_learning_and_no_more():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with frozen(layer):
        assert not layer.weight.requires_grad
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_gradients_are_cut_to_length():
    objective, shared = players(), [batch()]
    before = weights_of(objective.g)
    terms = gan_step(objective, Turns(d=[], g=shared), rules=rules(objective, rate=1.0, clip=1e-3), clock=CLOCK)
    assert (weights_of(objective.g) - before).norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert terms["g/gradient"] > 1e-3  # told as it was


class EverythingLater(Objective):
    """The contract carries what comes later: path length, orthogonality, clamping, class heads, a memory, a pair of
    generators and discriminators as one player each."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)})
        self.d = nn.ModuleDict({"judge": nn.Linear(3, 1), "classes": nn.Linear(3, 2)})
        self.register_buffer("path_mean", torch.zeros(()))

    def imagine(self, batch: Batch, now: Now) -> Batch:
        w = torch.randn(4, 2, generator=now.rng)
        return {"w": w, "a": torch.tanh(self.g["a"](w)), "b": self.g["b"](w)}

    def g_terms(self, batch: Batch, now: Now):
        return {"g/a": -self.d["judge"](batch["a"]).mean(), "g/b": -self.d["judge"](batch["b"]).mean()}

    def d_terms(self, batch: Batch, now: Now):
        classes = self.d["classes"](batch["real"])
        spread = torch.cat([batch["a"], batch["b"]]).std(dim=0).mean()  # a feature of the whole batch
        judged = self.d["judge"](batch["a"]).mean() - self.d["judge"](batch["real"]).mean()
        return {"d/judge": judged + 0 * spread, "d/class": nn.functional.cross_entropy(classes, batch["label"])}

    def penalties(self):
        return {
            "g/path_length": Penalty(player="g", every=4, fn=self.path_length),
            "d/orthogonal": Penalty(player="d", every=1, fn=self.orthogonal),
        }

    def path_length(self, batch: Batch, now: Now) -> torch.Tensor:
        w = torch.randn(4, 2, generator=now.rng, requires_grad=True)
        made = torch.tanh(self.g["a"](w))
        (slope,) = torch.autograd.grad((made * torch.randn_like(made)).sum(), w, create_graph=True)
        length = slope.norm(dim=1)
        self.path_mean.lerp_(length.mean().detach(), 0.01)
        return (length - self.path_mean).square().mean()

    def orthogonal(self, batch: Batch, now: Now) -> torch.Tensor:
        w = self.d["classes"].weight
        gram = w @ w.T
        return 1e-4 * (gram * (1 - torch.eye(2))).square().sum()

    @torch.no_grad()
    def after(self, player, now: Now) -> None:
        if player == "d":  # the largest singular value stays at most 1/2
            u, s, v = torch.linalg.svd(self.d["judge"].weight, full_matrices=False)
            self.d["judge"].weight.copy_(u @ s.clamp(max=0.5).diag() @ v)


def test_the_contract_carries_what_comes_later():
    torch.manual_seed(0)
    objective = EverythingLater()
    shared = [{"real": torch.rand(4, 3), "label": torch.tensor([0, 1, 1, 0])}]
    before = weights_of(objective.g["b"])
    terms = gan_step(objective, Turns(d=[shared, shared], g=shared), rules=rules(objective, order="dg"), clock=CLOCK)
    assert set(terms) == {
        "d/judge", "d/class", "d/orthogonal", "d/gradient", "g/a", "g/b", "g/path_length", "g/gradient",
    }  # fmt: skip
    assert torch.linalg.matrix_norm(objective.d["judge"].weight, 2) <= 0.5 + 1e-6
    assert objective.path_mean > 0
    assert "path_mean" in objective.state_dict()
    assert not torch.equal(weights_of(objective.g["b"]), before)
