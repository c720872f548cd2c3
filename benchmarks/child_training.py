"""One process that trains the same networks twice, step by step in turn: by restorer and by BasicSR's own model class.

    python child_training.py GAME PRECISION ROUNDS paper|small

It needs basicsr beside restorer. VGG19 is random, the same for both: no weights are at hand, and the work is the same.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision

from restorer.networks.discriminators import VGGDiscriminatorConfig
from restorer.networks.spec import get_spec
from restorer.networks.srgan import SRGANConfig
from restorer.training.averaging import update_average
from restorer.training.build import build_parts
from restorer.training.data import DataConfig, Source, batches_of
from restorer.training.loop import open_fabric
from restorer.training.objective import Batch, Clock, Rules, Turns, gan_step
from restorer.training.pairing import paired_up
from restorer.training.recipe import Recipe
from restorer.training.recipes import get_recipe
from restorer.training.schedule import Schedule
from restorer.weights.safe import write_safetensors

PICTURES = Path(__file__).resolve().parents[1] / "tests" / "pictures"
KINDS = {"esrgan": "ESRGANModel", "srgan": "SRGANModel"}


def main() -> None:
    """Play and print the seconds of every step, and what the generator's pixel loss was."""
    game, precision, rounds, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        result = played(recipe_of(game, size, precision), KINDS[game], rounds)
    print(json.dumps(result))


def recipe_of(game: str, size: str, precision: str) -> Recipe:
    """The paper's networks and losses; `small` ones for curves of many steps. Rates stay what they are at the start."""
    base = get_recipe("esrgan_x4")
    plain = SRGANConfig(form="plain")
    if game == "srgan":
        base = replace(base, network="srgan", config=plain, adversary=replace(base.adversary, relativistic=False))
    if size == "small":
        base = replace(
            base,
            network="srgan",
            config=replace(plain, features=24, blocks=4),
            discriminator=VGGDiscriminatorConfig(features=16),
        )
    train = replace(base.train, batch=4 if size == "paper" else 2, precision=precision)
    return replace(base, train=train, schedule=Schedule(), data=DataConfig(high=str(PICTURES), crop=128))


def played(recipe: Recipe, kind: str, rounds: int) -> dict[str, Any]:
    """Both play every batch, who goes first changes; the first step of each is not timed."""
    torch.manual_seed(0)
    weights = torchvision.models.vgg19(weights=None).state_dict()
    write_safetensors(Path("vgg19.safetensors"), {k: v for k, v in weights.items() if k.startswith("features.")}, {})
    theirs = Theirs(recipe, kind, weights)
    write_safetensors(Path("g.safetensors"), theirs.model.net_g.state_dict(), {})
    write_safetensors(Path("d.safetensors"), theirs.model.net_d.state_dict(), {})
    ours = Ours(
        replace(
            recipe,
            start="g.safetensors",
            discriminator_start="d.safetensors",
            features=replace(recipe.features, weights="vgg19.safetensors"),
        )
    )
    source = Source(recipe.data, get_spec(recipe.network).traits(recipe.config), seed=0)
    make = batches_of(source, batch=recipe.train.batch, rank=0, processes=1, turns=1)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    for step in range(rounds + 1):
        batch = paired_up(make(step, 0), None, scale=4)
        players = [("ours", ours), ("theirs", theirs)]
        for name, player in players if step % 2 else players[::-1]:
            start = time.perf_counter()
            loss = player.step(batch, step)
            if step:
                seconds[name].append(time.perf_counter() - start)
            losses[name].append(float(loss))
    return {"seconds": seconds, "losses": losses, "basicsr": version("basicsr")}


class Ours:
    """restorer's step, as its loop plays it."""

    def __init__(self, recipe: Recipe) -> None:
        self.fabric = open_fabric(recipe, device="cpu")
        self.parts = build_parts(recipe, self.fabric.device)
        self.recipe = recipe
        self.rules = Rules(optimisers=self.parts.optimisers, autocast=self.fabric.autocast)

    def step(self, batch: Batch, step: int) -> torch.Tensor:
        """-> the pixel loss."""
        turn = [batch]
        terms = gan_step(
            self.parts.objective, Turns(d=[turn], g=turn), rules=self.rules, clock=Clock(seed=0, step=step)
        )
        update_average(self.parts.average, self.parts.objective.g, self.recipe.averaging.decay)
        return terms["g/pixel"]


class Theirs:
    """BasicSR's model, from its own options."""

    def __init__(self, recipe: Recipe, kind: str, vgg: dict[str, torch.Tensor]) -> None:
        lend_what_is_gone(vgg)
        from basicsr.models import build_model

        config, judge = recipe.config, recipe.discriminator
        network = {"type": "MSRResNet", "num_feat": config.features, "num_block": config.blocks, "upscale": 4}
        if recipe.network == "esrgan":
            network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3}
        adam = {"type": "Adam", "lr": recipe.train.g_rate, "betas": list(recipe.train.betas)}
        weights, features = recipe.weights, recipe.features
        self.model = build_model(
            {
                "model_type": kind, "is_train": True, "dist": False, "num_gpu": 0, "path": {}, "network_g": network,
                "network_d": {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": judge.features},
                "train": {
                    "ema_decay": recipe.averaging.decay, "optim_g": dict(adam), "optim_d": dict(adam),
                    "scheduler": {"type": "MultiStepLR", "milestones": [10**9], "gamma": 0.5},
                    "pixel_opt": {"type": "L1Loss", "loss_weight": weights.pixel},
                    "perceptual_opt": {
                        "type": "PerceptualLoss", "layer_weights": dict(features.layers),
                        "perceptual_weight": weights.perceptual, "style_weight": 0, "criterion": "l1",
                    },
                    "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": weights.adversarial},
                },
            }
        )  # fmt: skip

    def step(self, batch: Batch, step: int) -> torch.Tensor:
        """-> the pixel loss."""
        self.model.lq, self.model.gt = batch["low"].contiguous(), batch["high"].contiguous()
        self.model.optimize_parameters(step + 1)
        return self.model.log_dict["l_g_pix"]


def lend_what_is_gone(vgg: dict[str, torch.Tensor]) -> None:
    """A name that basicsr 1.4.2 imports from torchvision, and random weights in place of a download."""
    gone = ModuleType("torchvision.transforms.functional_tensor")
    gone.rgb_to_grayscale = torchvision.transforms.functional.rgb_to_grayscale
    sys.modules[gone.__name__] = gone
    from basicsr.archs import vgg_arch

    def random_vgg19(**_: object) -> torch.nn.Module:
        network = torchvision.models.vgg19(weights=None)
        network.load_state_dict(vgg)
        return network

    vgg_arch.vgg = ModuleType("vgg")
    vgg_arch.vgg.vgg19 = random_vgg19


if __name__ == "__main__":
    main()
