"""What the papers prove, seen to hold: optimal discriminators, the value of the game, and where gradients vanish."""

import math

import pytest
import torch
from torch import nn

from restorer.losses.adversarial import gan_loss

P, Q = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.tensor([0.1, 0.3, 0.4, 0.2])
"""Two densities on four points."""


def expected(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What a mean over a batch becomes: one logit for each ten-thousandth of the mass."""
    return values.repeat_interleave((weights * 1000).round().long())


def optimal(name: str, *, steps: int = 400) -> torch.Tensor:
    """Logits on the four points after training to optimality."""
    logits = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    loss, optimiser = gan_loss(name), torch.optim.LBFGS([logits], max_iter=steps, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss.d(expected(logits, P), expected(logits, Q))
        value.backward()
        return value

    optimiser.step(closure)
    return logits.detach()


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> float:
    m = (p + q) / 2
    return sum(float((a * (a / m).log()).nansum()) for a in (p, q)) / 2


def test_the_optimal_discriminator_is_p_over_p_plus_q():
    seen = optimal("non_saturating").sigmoid()
    assert torch.allclose(seen[:3], (P / (P + Q))[:3].double(), atol=1e-3)
    assert seen[3] < 1e-3  # only fakes are there


def test_the_value_of_the_game_is_minus_log_4_plus_twice_js():
    logits = optimal("minimax")
    value = -gan_loss("minimax").d(expected(logits, P), expected(logits, Q))
    assert value.item() == pytest.approx(-math.log(4) + 2 * jensen_shannon(P, Q), abs=1e-3)
    same = torch.zeros(4)
    assert -gan_loss("minimax").d(same, same).item() == pytest.approx(-math.log(4), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("f_pearson", lambda p, q: ((p - q) ** 2 / q).nansum()),
        ("f_squared_hellinger", lambda p, q: ((p.sqrt() - q.sqrt()) ** 2).sum()),
        ("f_total_variation", lambda p, q: (p - q).abs().sum() / 2),
    ],
)
def test_an_f_gan_s_value_at_the_optimum_is_its_divergence(name, divergence):
    logits = optimal(name)
    value = -gan_loss(name).d(expected(logits, P), expected(logits, Q))
    assert value.item() == pytest.approx(float(divergence(P, Q)), abs=2e-2)


@pytest.mark.parametrize("distance", [1.0, 4.0, 16.0])
def test_on_disjoint_supports_js_is_flat_and_wasserstein_is_not(distance):
    assert jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(math.log(2))
    place = torch.tensor([distance], requires_grad=True)
    # a discriminator that tells the two points apart for sure, with a step of slope 60 half-way between them
    logits = -60 * (place - distance / 2)
    (saturated,) = torch.autograd.grad(gan_loss("minimax").g(None, logits), place)
    assert saturated.abs() < 1e-6
    # the best critic of Lipschitz constant 1 between 0 and t is -x
    critic = gan_loss("wasserstein")
    estimate = -critic.d(torch.zeros(1), -place)
    (pull,) = torch.autograd.grad(critic.g(None, -place), place)
    assert estimate.item() == pytest.approx(distance)
    assert pull.item() == pytest.approx(1.0)
