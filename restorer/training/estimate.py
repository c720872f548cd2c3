"""What a recipe takes, before anything is allocated: parameters of each player, and memory."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from restorer.networks.features import Features
from restorer.training.build import checked_traits
from restorer.training.games import game_of
from restorer.training.recipe import Recipe

ADAM = 4
"""Copies of each parameter: itself, its gradient, two moments."""
FLOAT = 4


def estimate(recipe: Recipe) -> Iterator[str]:
    """Lines that say it. Activations are counted by running the networks on shapes without numbers."""
    traits, train = checked_traits(recipe), recipe.train
    with torch.device("meta"):
        game = game_of(recipe.weights)
        g, d = game.generator(recipe).train(), game.discriminator(recipe)
        side, n = recipe.data.crop, train.batch // train.accumulate
        small = side // traits.scale
        kept = _Kept()
        with kept:
            given = torch.zeros((n, traits.latent) if traits.latent else (n, traits.in_channels, small, small))
            high = game.rehearsed(recipe, g, d, given)
            if getattr(recipe.weights, "perceptual", 0) or getattr(recipe.weights, "style", 0):
                Features(recipe.features.network, [layer for layer, _ in recipe.features.layers])(high)
    learned = _count(g) * (ADAM + 1) + (_count(d) * ADAM if d is not None else 0)
    yield f"generator      {recipe.network}, {_count(g):,} parameters"
    yield f"discriminator  {'none' if d is None else f'{_count(d):,} parameters'}"
    yield f"pictures       {train.steps * train.batch:,} crops of {side}x{side} over {train.steps:,} steps"
    fixed, total = learned * FLOAT / 1e6, (learned * FLOAT + kept.bytes) / 1e6
    yield (
        f"memory         about {total:,.1f} MB in fp32: {fixed:,.1f} for weights and optimisers, {total - fixed:,.1f} "
        "kept for gradients of one part; a step that pays a penalty takes more"
    )


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Adds up what is kept for the way back, each tensor once; frozen weights too, but not those that learn."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: list[Tensor] = []
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        learns = isinstance(tensor, nn.Parameter) and tensor.requires_grad  # which optimisers are counted with
        if not learns and not any(tensor is known for known in self._seen):
            self._seen.append(tensor)
            self.bytes += tensor.numel() * tensor.element_size()
        return tensor
