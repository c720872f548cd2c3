"""The games of faces and of pictures from noise, played in bfloat16: what is wanted is nearly what float32 wants."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from two_processes import GAMES

from restorer.losses.components import PARTS
from restorer.networks.stylegan2 import StyleGAN2, StyleGAN2Config
from restorer.training.generation import path_lengths
from restorer.training.objective import Clock, Rules, Terms, Turns, gan_step

HALF = partial(torch.autocast, "cpu", torch.bfloat16)
FACES = {f"{player}/{part}" for player in "gd" for part in PARTS} | {f"g/{part}_style" for part in PARTS}
WANTED = {
    "faces": FACES | {"g/pixel", "g/pyramid", "g/adversarial", "d/adversarial", "d/r1"},
    "generation": {"g/adversarial", "g/path_length", "d/adversarial", "d/r1"},
}


def first_step(name: str, autocast: partial[object]) -> tuple[Terms, dict[str, torch.Tensor]]:
    """-> what the players wanted, and the gradients that they learned from."""
    torch.manual_seed(0)
    make, shapes, _ = GAMES[name]
    objective, rng = make(name), torch.Generator().manual_seed(1)
    shared = [{kind: torch.rand(4, *shape, generator=rng) for kind, shape in shapes.items()}]
    players = {"g": objective.g, "d": objective.d}
    rules = Rules(
        optimisers={player: torch.optim.SGD(network.parameters(), 0.0) for player, network in players.items()},
        autocast=autocast,
    )
    terms = gan_step(objective, Turns(d=[shared], g=shared), rules=rules, clock=Clock(seed=0, step=0))
    return terms, {key: each.grad for key, each in objective.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("name", list(WANTED))
def test_a_step_in_bfloat16_is_nearly_that_in_float32(name):
    (half, gradients), (whole, exact) = (first_step(name, each) for each in (HALF, partial(nullcontext)))
    assert half.keys() == whole.keys() == WANTED[name] | {"g/gradient", "d/gradient"}
    for term, value in whole.items():  # the path lengths are of two pictures by eight channels
        near = 0.12 if name == "generation" and term[0] == "g" else 0.05
        assert half[term].item() == pytest.approx(value.item(), rel=near), term
    assert gradients.keys() == exact.keys() and all(each.isfinite().all() for each in gradients.values())


def test_path_lengths_in_bfloat16_are_within_a_few_per_cent():
    torch.manual_seed(0)
    network, rng = StyleGAN2(StyleGAN2Config(widths=(64, 64, 64), style=64, mapping=2)), torch.Generator()
    found = []
    for each in (HALF, nullcontext):
        rng.manual_seed(1)
        with each():
            styles = network.styles(torch.randn(8, 64, generator=rng))
            made = network.painted(styles, network.synthesis.fresh_noise(8, rng))
            found.append(path_lengths(made, styles, rng).detach())
    half, exact = found
    assert ((half / exact - 1).abs() < 0.04).all() and (half.mean() / exact.mean() - 1).abs() < 0.015
