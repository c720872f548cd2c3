"""Tiny runs for tests: a recipe that takes milliseconds a step, and pictures for it. `python runs.py` plays one."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from restorer.networks.discriminators import VGGDiscriminatorConfig
from restorer.networks.srgan import SRGANConfig
from restorer.pipeline.picture import Picture, write_picture
from restorer.training.adversary import AdversaryConfig
from restorer.training.data import DataConfig
from restorer.training.degrade import DegradationConfig
from restorer.training.loop import open_fabric, train
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.schedule import Schedule
from restorer.training.super_resolution import RestorationWeights


def recipe(data: Path, **changed: object) -> Recipe:
    """A GAN with batch norm, ADA, R1, noise and degradation: whatever could be forgotten between two steps is there."""
    train_config = TrainConfig(
        steps=6, batch=2, precision="fp32", log_every=2, picture_every=3, save_every=2, keep=9, on_trouble="warn"
    )
    return Recipe(
        name="tiny",
        network="srgan",
        config=SRGANConfig(features=4, blocks=1),
        discriminator=VGGDiscriminatorConfig(side=16, features=2, halvings=2, hidden=4),
        weights=RestorationWeights(adversarial=0.1),
        adversary=AdversaryConfig(
            relativistic=True, augment="ada", ada_pictures=30, ada_target=-1, instance_noise=0.1, r1=1.0, every=2
        ),
        schedule=Schedule(kind="steps", milestones=(3,)),
        data=DataConfig(high=str(data), crop=16),
        degradation=DegradationConfig(margin=4),
        train=replace(train_config, **changed),
    )


def pictures(folder: Path, *, count: int = 3, size: tuple[int, int] = (24, 28)) -> Path:
    """A folder of small pictures of noise."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        write_picture(Picture(pixels=pixels), folder / f"{number}.png")
    return folder


def play(data: Path, out: Path, *, resume: bool = False, **changed: object) -> Path:
    """Train in this process."""
    chosen = recipe(data, **changed)
    return train(chosen, out, fabric=open_fabric(chosen, device="cpu"), resume=resume, say=lambda text: None)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    play(Path(sys.argv[1]), folder, resume=any(folder.glob("step-*.safetensors")), steps=int(sys.argv[3]), save_every=1)
