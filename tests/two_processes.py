"""One of two processes that share a batch: python two_processes.py RANK PORT LOSS OUT."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn

from restorer.training.adversary import Adversary, AdversaryConfig
from restorer.training.objective import Clock, Rules, Turns, gan_step
from restorer.training.super_resolution import RestorationWeights, SuperResolution


def played(loss: str, *, rank: int = 0, processes: int = 1) -> torch.Tensor:
    """All weights after three steps on this process's share of four pictures, in float64, without batch norm."""
    torch.manual_seed(0)
    g = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 1))
    d = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    adversary = AdversaryConfig(loss=loss, relativistic=True, r1=1.0, every=2)
    weights = RestorationWeights(adversarial=0.5)
    objective = SuperResolution(g.double(), d.double(), weights=weights, adversary=Adversary(adversary))
    optimisers = {"g": torch.optim.Adam(g.parameters(), 0.01), "d": torch.optim.Adam(d.parameters(), 0.01)}
    share = 4 // processes
    for step in range(3):
        rng = torch.Generator().manual_seed(step)
        whole = {
            "low": torch.rand(4, 1, 4, 4, generator=rng, dtype=torch.float64),
            "high": torch.rand(4, 1, 8, 8, generator=rng, dtype=torch.float64),
        }
        shared = [{name: tensor[rank * share : (rank + 1) * share] for name, tensor in whole.items()}]
        clock = Clock(seed=0, step=step, rank=rank)
        gan_step(objective, Turns(d=[shared], g=shared), rules=Rules(optimisers=optimisers), clock=clock)
    return nn.utils.parameters_to_vector(objective.parameters()).detach()


if __name__ == "__main__":
    number, port, name, out = sys.argv[1:]
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(number), world_size=2)
    torch.set_num_threads(1)
    torch.save(played(name, rank=int(number), processes=2), Path(out))
    distributed.destroy_process_group()
