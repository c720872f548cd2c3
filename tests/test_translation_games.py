"""pix2pix's and CycleGAN's games: every wish by the original's formula, whole steps beside plain ones, the pool."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from translation_players import SIDE, adams, batch, game, now, paired, played, unpaired

from restorer.networks.patch_discriminators import PatchDiscriminator, PatchDiscriminatorConfig
from restorer.networks.translation_layers import InstanceNorm
from restorer.training.adversary import AdversaryConfig
from restorer.training.averaging import update_average
from restorer.training.objective import Batch, Clock, Objective, derived_seed
from restorer.training.paired import PairedTranslation, PairedWeights
from restorer.training.recipe import Recipe
from restorer.training.translation import PicturePool
from restorer.training.unpaired import UnpairedTranslation, UnpairedWeights

Loss = Callable[[Tensor, bool], Tensor]


def vanilla(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def lsgan(logits: Tensor, real: bool) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


def wgangp(logits: Tensor, real: bool) -> Tensor:
    return -logits.mean() if real else logits.mean()


PUBLISHED: dict[str, Loss] = {"non_saturating": vanilla, "least_squares": lsgan, "wasserstein": wgangp}
"""Our names -> the original's losses; there a discriminator's is 0.5 * (loss of fake + loss of real)."""


def with_loss(recipe: Recipe, loss: str) -> Recipe:
    return replace(recipe, adversary=AdversaryConfig(loss=loss))


def judged(d: nn.Module, x: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> logits of a discriminator that takes [0, 1]."""
    return d((x + 1) / 2)


@pytest.mark.parametrize("loss", PUBLISHED)
def test_every_term_of_pairs_is_the_published_one(loss):
    recipe = with_loss(paired(), loss)
    objective, gan = game(recipe), PUBLISHED[loss]
    shown = batch(recipe, count=2)
    a, b = 2 * shown["low"] - 1, 2 * shown["high"] - 1
    fake = objective.g(a)
    real_ab, fake_ab = torch.cat([a, b], 1), torch.cat([a, fake], 1)
    expected = {
        "g/pixel": 100 * (fake - b).abs().mean(),
        "g/adversarial": gan(judged(objective.d, fake_ab), True),
        "d/adversarial": 0.5 * (gan(judged(objective.d, fake_ab), False) + gan(judged(objective.d, real_ab), True)),
    }
    seen = shown | objective.imagine(shown, now())
    terms = objective.g_terms(seen, now()) | objective.d_terms(seen, now())
    assert terms.keys() == expected.keys()
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, msg=name)


@pytest.mark.parametrize("loss", PUBLISHED)
def test_every_term_of_unpaired_pictures_is_the_published_one(loss):
    """lambda_A 10, lambda_B 7, lambda_identity 0.4: what is weighed by which."""
    recipe = with_loss(unpaired(pool=0), loss)
    recipe = replace(recipe, weights=replace(recipe.weights, cycle=10.0, cycle_b=7.0, identity=0.4))
    objective, gan, shown = game(recipe), PUBLISHED[loss], batch(recipe)
    a, b, g, d = 2 * shown["a"] - 1, 2 * shown["b"] - 1, objective.g, objective.d
    fake_b, fake_a = g["a2b"](a), g["b2a"](b)
    expected = {
        "g/adversarial_b": gan(judged(d["b"], fake_b), True),
        "g/adversarial_a": gan(judged(d["a"], fake_a), True),
        "g/cycle_a": 10 * (g["b2a"](fake_b) - a).abs().mean(),
        "g/cycle_b": 7 * (g["a2b"](fake_a) - b).abs().mean(),
        "g/identity_b": 7 * 0.4 * (g["a2b"](b) - b).abs().mean(),
        "g/identity_a": 10 * 0.4 * (g["b2a"](a) - a).abs().mean(),
        "d/adversarial_b": 0.5 * (gan(judged(d["b"], b), True) + gan(judged(d["b"], fake_b), False)),
        "d/adversarial_a": 0.5 * (gan(judged(d["a"], a), True) + gan(judged(d["a"], fake_a), False)),
    }
    seen = shown | objective.imagine(shown, now())
    terms = objective.g_terms(seen, now()) | objective.d_terms(seen, now())
    assert terms.keys() == expected.keys()
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, msg=name)


def test_the_gradient_penalty_is_the_published_one_over_pictures_in_0_1():
    recipe = replace(paired(), adversary=AdversaryConfig(loss="wasserstein", gradient_penalty=10))
    objective, shown = game(recipe), batch(recipe, count=2)
    seen = shown | objective.imagine(shown, now())
    place = torch.rand(2, 1, 1, 1, generator=now().rng).double()
    real, fake = (torch.cat([shown["low"], seen[name]], 1) for name in ("high", "fake"))
    at = ((1 - place) * real + place * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(objective.d(at).sum(), at)
    expected = 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    paid = objective.penalties()["d/gradient_penalty"].fn(seen, now())
    torch.testing.assert_close(paid.float(), expected.float())


def test_zero_leaves_a_term_and_its_passes_out():
    for weights, terms, passes in (
        (UnpairedWeights(identity=0), {"adversarial_a", "adversarial_b", "cycle_a", "cycle_b"}, 4),
        (UnpairedWeights(cycle=0), {"adversarial_a", "adversarial_b", "cycle_b", "identity_b"}, 4),
        (UnpairedWeights(adversarial=0, cycle_b=0, identity=0), {"cycle_a"}, 3),
    ):
        recipe = replace(unpaired(), weights=replace(weights, pool=0))
        objective, shown, calls = game(recipe), batch(recipe), []
        for network in objective.g.values():
            network.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        terms_found = objective.g_terms(shown | objective.imagine(shown, now()), now())
        assert (terms_found.keys(), len(calls)) == ({f"g/{term}" for term in terms}, passes)
    assert UnpairedWeights(adversarial=0, cycle=0, cycle_b=0).is_idle
    assert PairedWeights(adversarial=0, pixel=0).is_idle and not PairedWeights(adversarial=0).is_idle
    alone = replace(paired(), discriminator=None, weights=PairedWeights(adversarial=0))
    objective, shown = game(alone), batch(alone)
    seen = shown | objective.imagine(shown, now())
    assert objective.g_terms(seen, now()).keys() == {"g/pixel"}
    assert (objective.d_terms(seen, now()), objective.logits(seen, now()), objective.penalties()) == ({}, None, {})


def learn(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def pix2pix_step(g: nn.Module, d: nn.Module, both: dict[str, torch.optim.Optimizer], a: Tensor, b: Tensor) -> None:
    """Forward, D, then G against the new D; pictures in [-1, 1]."""
    fake = g(a)
    on_fake, on_real = judged(d, torch.cat([a, fake.detach()], 1)), judged(d, torch.cat([a, b], 1))
    learn(both["d"], (vanilla(on_fake, False) + vanilla(on_real, True)) * 0.5)
    learn(both["g"], vanilla(judged(d, torch.cat([a, fake], 1)), True) + 100 * F.l1_loss(fake, b))


Query = Callable[[str, Tensor], Tensor]


def cyclegan_step(
    players: Objective, both: dict[str, torch.optim.Optimizer], a: Tensor, b: Tensor, query: Query
) -> None:
    """Both Gs, then both Ds on what the pools give; pictures in [-1, 1]."""
    g, d = players.g, players.d
    fake_b, fake_a = g["a2b"](a), g["b2a"](b)
    back_a, back_b = g["b2a"](fake_b), g["a2b"](fake_a)
    same = F.l1_loss(g["a2b"](b), b) * 10 * 0.5 + F.l1_loss(g["b2a"](a), a) * 10 * 0.5
    wish = lsgan(judged(d["b"], fake_b), True) + lsgan(judged(d["a"], fake_a), True)
    learn(both["g"], wish + 10 * F.l1_loss(back_a, a) + 10 * F.l1_loss(back_b, b) + same)
    losses = []
    for domain, real, fake in (("b", b, fake_b), ("a", a, fake_a)):
        shown = query(domain, fake.detach())
        losses.append((lsgan(judged(d[domain], real), True) + lsgan(judged(d[domain], shown), False)) * 0.5)
    learn(both["d"], losses[0] + losses[1])


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize("count", [1, 2])
def test_three_steps_of_pairs_equal_plain_ones(count):
    recipe = paired()
    ours = game(recipe)
    plain = copy.deepcopy(ours).to(memory_format=torch.contiguous_format)
    optimisers, others, before = adams(ours), adams(plain), copy.deepcopy(ours)
    for step in range(3):
        shown = batch(recipe, count=count, seed=step)
        played(ours, recipe, shown, step=step, optimisers=optimisers)
        pix2pix_step(plain.g, plain.d, others, 2 * shown["low"] - 1, 2 * shown["high"] - 1)
    assert largest_difference(ours, plain) < 1e-7
    assert largest_difference(ours, before) > 4e-4  # a step of Adam is about its rate


class ListPool:
    """The original's pool, with numbers that are drawn elsewhere."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, []

    def query(self, new: Tensor, chance: float, place: int) -> Tensor:
        if len(self.kept) < self.size:
            self.kept.append(new.clone())
            return new
        if chance > 0.5:
            old = self.kept[place]
            self.kept[place] = new.clone()
            return old
        return new


def draws(rng: torch.Generator, size: int) -> tuple[float, int]:
    return float(torch.rand(1, generator=rng)), int(torch.randint(size, (1,), generator=rng))


def test_six_steps_of_unpaired_pictures_equal_plain_ones_with_their_pools():
    recipe = unpaired(pool=2)
    ours = game(recipe)
    plain = copy.deepcopy(ours).to(memory_format=torch.contiguous_format)
    optimisers, others = adams(ours), adams(plain)
    pools = {domain: ListPool(2) for domain in "ab"}
    for step in range(6):
        shown = batch(recipe, seed=step)
        rng = torch.Generator().manual_seed(derived_seed(0, step, 0, "d", 0, 0))
        drawn = {domain: draws(rng, 2) for domain in "ab"}
        played(ours, recipe, shown, step=step, optimisers=optimisers)

        def query(domain: str, fake: Tensor, drawn: dict[str, tuple[float, int]] = drawn) -> Tensor:
            return pools[domain].query(fake, *drawn[domain])

        cyclegan_step(plain, others, 2 * shown["a"] - 1, 2 * shown["b"] - 1, query)
    assert largest_difference(ours, plain) < 1e-7
    for domain, pool in pools.items():
        torch.testing.assert_close(2 * ours.pools[domain].pictures - 1, torch.cat(pool.kept), atol=1e-7, rtol=0)


def test_the_pool_fills_and_then_swaps_every_second_time():
    pool, list_pool, rng = PicturePool(5, 1, 2), ListPool(5), torch.Generator().manual_seed(7)
    old = 0
    for number in range(400):
        new = torch.full((1, 1, 2, 2), float(number))
        expected = list_pool.query(new, *draws(rng, 5))
        replayed = now(seed=7)
        for _ in range(number):
            draws(replayed.rng, 5)
        given = pool.asked(new, replayed)
        assert given.equal(expected) and (number >= 5 or given.equal(new))
        assert int(pool.count) == min(number + 1, 5)
        old += int(not given.equal(new))
    assert pool.pictures.equal(torch.cat(list_pool.kept))
    assert 160 < old < 235  # of 395, half: four deviations are 40


def test_a_pool_takes_a_batch_one_by_one():
    pool, many = PicturePool(3, 1, 2), torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    given = pool.asked(many, now())
    assert given[:3].equal(many[:3]) and int(pool.count) == 3
    assert given[3].flatten()[0] in (0, 1, 2, 3)


def test_pairs_are_kept_whole():
    recipe = replace(paired(), weights=PairedWeights(pool=2))
    objective, shown = game(recipe), batch(recipe, count=2)
    seen = shown | objective.imagine(shown, now())
    objective.d_terms(seen, now())
    assert objective.pool.pictures.equal(torch.cat([shown["low"], seen["fake"]], 1))
    assert "pool" not in dict(game(paired()).named_children())


def test_a_pool_forgets_a_step_that_was_not_finite():
    recipe = unpaired(pool=2)
    objective = game(recipe)
    played(objective, recipe, batch(recipe))
    kept = {name: value.clone() for name, value in objective.pools.state_dict().items()}
    shown = batch(recipe, seed=1)
    bad = shown | {"a": shown["a"] * float("nan")}
    assert "g/skipped" in played(objective, recipe, bad, step=1)
    assert all(value.equal(kept[name]) for name, value in objective.pools.state_dict().items())


MAKE = {"paired": paired, "unpaired": unpaired}


@pytest.mark.parametrize("loss", ["non_saturating", "least_squares", "hinge", "wasserstein"])
@pytest.mark.parametrize("kind", MAKE)
def test_every_loss_plays_and_teaches_both(kind, loss):
    penalised = 10.0 if loss == "wasserstein" else 0.0
    recipe = replace(MAKE[kind](), adversary=AdversaryConfig(loss=loss, gradient_penalty=penalised))
    objective = game(recipe)
    before = copy.deepcopy(objective)
    terms = played(objective, recipe, batch(recipe))
    assert all(term.isfinite() for term in terms.values()) and not any("skipped" in name for name in terms)
    assert any("gradient_penalty" in name for name in terms) == bool(penalised)
    for network in ("g", "d"):
        assert largest_difference(getattr(objective, network), getattr(before, network)) > 1e-4


@pytest.mark.parametrize("kind", MAKE)
def test_a_step_in_bfloat16_is_nearly_that_in_float32(kind):
    recipe = MAKE[kind]()
    shown = batch(recipe, dtype=torch.float32)
    whole, half = (
        played(game(recipe, double=False), recipe, shown, **changed)
        for changed in ({}, {"autocast": partial(torch.autocast, "cpu", torch.bfloat16)})
    )
    assert whole.keys() == half.keys()
    for name, value in whole.items():
        assert float(half[name]) == pytest.approx(float(value), rel=0.1), name


def test_a_discriminator_sees_pairs_or_both_domains():
    recipe = replace(unpaired(), discriminator=PatchDiscriminatorConfig(features=4, layers=1, norm="instance"))
    grey = replace(recipe, config=replace(recipe.config, in_channels=1), weights=UnpairedWeights(identity=0, pool=2))
    objective, shown = game(grey), batch(grey)
    assert objective.d["b"].model[0].in_channels == 3 and objective.d["a"].model[0].in_channels == 1
    assert objective.pools["a"].pictures.shape[1] == 1 and shown["a"].shape[1] == 1
    real, fake = objective.logits(shown | objective.imagine(shown, now()), now())
    assert real.shape == fake.shape == (2 * (SIDE // 2 - 2) ** 2,)
    assert not any(term.isnan() for term in played(objective, grey, shown).values())


@pytest.mark.parametrize("norm", [InstanceNorm, lambda: nn.Sequential(InstanceNorm(), nn.LeakyReLU(0.2, inplace=True))])
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_instance_norm_are_right_in_every_layout(norm, count):
    rng = torch.Generator().manual_seed(0)
    x, back = (torch.randn(count, 3, 6, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    exact = x.clone().requires_grad_(True)
    centred = exact - exact.mean((2, 3), keepdim=True)
    y = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    (expected,) = torch.autograd.grad(y if norm is InstanceNorm else F.leaky_relu(y, 0.2), exact, back)
    for one, other in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
        leaf = x.contiguous(memory_format=one).requires_grad_(True)
        (found,) = torch.autograd.grad(norm()(leaf), leaf, back.contiguous(memory_format=other))
        torch.testing.assert_close(found, expected)


def test_gradients_of_a_discriminator_do_not_depend_on_the_layout():
    torch.manual_seed(0)
    one = PatchDiscriminator(PatchDiscriminatorConfig(features=4, layers=2, norm="instance")).double()
    other = copy.deepcopy(one).to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    for network in (one, other):
        network(x).square().mean().backward()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_an_average_of_no_decay_is_the_generator_with_its_statistics():
    recipe = paired()
    objective = game(recipe, double=False)
    average = copy.deepcopy(objective.g)
    played(objective, recipe, batch(recipe, dtype=torch.float32))
    update_average(average, objective.g, 0.0)
    ours, theirs = objective.g.state_dict(), average.state_dict()
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert any("running_mean" in name and value.any() for name, value in theirs.items())


def test_dropout_follows_from_the_clock():
    recipe = paired(dropout=True)
    objective, shown = game(recipe), batch(recipe)
    config = replace(recipe.config, levels=6, features=2)
    deep = game(replace(recipe, config=config, data=replace(recipe.data, crop=64, load_size=64)))
    wide = {name: F.interpolate(each, scale_factor=4) for name, each in shown.items()}
    made = []
    for step in (0, 0, 1):
        with Clock(seed=0, step=step).turn("g", 0, 0) as moment:
            made.append(deep.imagine(wide, moment)["fake"])
    assert made[0].equal(made[1]) and not made[0].equal(made[2])
    assert isinstance(objective, PairedTranslation) and isinstance(game(unpaired()), UnpairedTranslation)


def seen_by(objective: Objective, shown: Batch) -> list[Tensor]:
    """What the discriminator of pairs was shown in a step."""
    found: list[Tensor] = []
    handle = objective.d.register_forward_pre_hook(lambda module, given: found.append(given[0].detach().clone()))
    played(objective, paired(), shown)
    handle.remove()
    return found


def test_the_generator_makes_one_picture_a_step_and_the_discriminator_looks_three_times():
    recipe = paired()
    objective, shown = game(recipe), batch(recipe)
    before, calls = copy.deepcopy(objective), []
    objective.g.register_forward_hook(lambda *_: calls.append(1))
    real, fake, again = seen_by(objective, shown)
    assert len(calls) == 1
    made = (before.g(2 * shown["low"] - 1) + 1) / 2
    torch.testing.assert_close(real, torch.cat([shown["low"], shown["high"]], 1))
    torch.testing.assert_close(fake, torch.cat([shown["low"], made], 1))
    assert fake.equal(again)
