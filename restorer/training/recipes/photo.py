"""The model that comes with restorer: a small network for photos, trained on pictures that anyone may use."""

from restorer.networks.compact import CompactConfig
from restorer.training.averaging import AveragingConfig
from restorer.training.data import DataConfig
from restorer.training.recipe import Recipe, TrainConfig
from restorer.training.schedule import Schedule


def compact_x4_photo() -> Recipe:
    """A compact network of 355,488 parameters, L1, on bicubic pairs: an hour on one processor core."""
    steps = 24_000
    return Recipe(
        name="compact_x4_photo",
        network="compact",
        config=CompactConfig(features=48, convs=16),
        averaging=AveragingConfig(decay=0.999),
        schedule=Schedule(kind="cosine", periods=(steps,)),
        data=DataConfig(crop=96),
        train=TrainConfig(steps=steps, batch=8, g_rate=1e-3, log_every=200, picture_every=4000, save_every=1000),
    )
