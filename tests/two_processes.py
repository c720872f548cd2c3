"""One of two processes that share a batch: python two_processes.py RANK PORT GAME OUT."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from face_players import recipe
from torch import distributed, nn

from restorer.networks.gfpgan import GFPGANConfig
from restorer.networks.style_discriminator import StyleDiscriminatorConfig
from restorer.networks.stylegan2 import StyleGAN2Config
from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.build import build_objective
from restorer.training.data import DataConfig
from restorer.training.objective import Batch, Clock, Objective, Rules, Turns, gan_step
from restorer.training.recipes import get_recipe
from restorer.training.super_resolution import RestorationWeights, SuperResolution

SIDE = 32
"""Of faces."""


def restoration(loss: str) -> Objective:
    """A relativistic loss: its means are over the whole batch. No batch norm; float64."""
    g = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 1))
    d = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    adversary = AdversaryConfig(loss=loss, relativistic=True, r1=1.0, every=2)
    weights = RestorationWeights(adversarial=0.5)
    return SuperResolution(g.double(), d.double(), weights=weights, adversary=Adversary(adversary))


def faces(name: str) -> Objective:
    """GFPGAN's, with every discriminator; each process draws its own noise."""
    objective = build_objective(
        recipe(
            config=GFPGANConfig(widths=(8, 8, 8, 8), style=8),
            discriminator=StyleDiscriminatorConfig(widths=(4, 4, 4, 4)),
            data=DataConfig(crop=SIDE, turn=False),
            adversary=AdversaryConfig(r1=2.5, every=2),
        )
    )
    for layer in objective.g.painter.layers:
        nn.init.ones_(layer.noise_strength)
    return objective


def generation(name: str) -> Objective:
    """StyleGAN2's; path length and R1 are paid in the first step and in the third."""
    tiny = get_recipe("stylegan2_256_tiny")
    return build_objective(
        replace(
            tiny,
            config=StyleGAN2Config(widths=(8, 8, 8), style=8, mapping=2),
            discriminator=StyleDiscriminatorConfig(widths=(4, 4, 4)),
            data=replace(tiny.data, crop=16),
            adversary=replace(tiny.adversary, every=2),
            weights=replace(tiny.weights, path_every=2),
        )
    )


GAMES: dict[str, tuple[Callable[[str], Objective], dict[str, tuple[int, ...]], torch.dtype]] = {
    "non_saturating": (restoration, {"low": (1, 4, 4), "high": (1, 8, 8)}, torch.float64),
    "least_squares": (restoration, {"low": (1, 4, 4), "high": (1, 8, 8)}, torch.float64),
    "faces": (faces, {"low": (3, SIDE, SIDE), "high": (3, SIDE, SIDE)}, torch.float32),
    "generation": (generation, {"high": (3, 16, 16)}, torch.float32),
}
"""Name -> what makes the objective, the shape of a picture of each kind, and its numbers."""


def played(name: str, *, rank: int = 0, processes: int = 1, steps: int = 3) -> dict[str, torch.Tensor]:
    """All that the objective holds after some steps on this process's share of four pictures."""
    torch.manual_seed(0)
    make, shapes, dtype = GAMES[name]
    objective = make(name)
    players = {"g": objective.g, "d": objective.d}
    optimisers = {player: torch.optim.Adam(network.parameters(), 0.01) for player, network in players.items()}
    share = 4 // processes
    for step in range(steps):
        rng = torch.Generator().manual_seed(step)
        whole: Batch = {kind: torch.rand(4, *shape, generator=rng, dtype=dtype) for kind, shape in shapes.items()}
        shared = [{kind: tensor[rank * share : (rank + 1) * share] for kind, tensor in whole.items()}]
        clock = Clock(seed=0, step=step, rank=rank)
        gan_step(objective, Turns(d=[shared], g=shared), rules=Rules(optimisers=optimisers), clock=clock)
    return {key: tensor.detach() for key, tensor in objective.state_dict().items()}


if __name__ == "__main__":
    number, port, game, out = sys.argv[1:]
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(number), world_size=2)
    torch.set_num_threads(1)
    torch.save(played(game, rank=int(number), processes=2), Path(out))
    distributed.destroy_process_group()
