"""How far two faces are from being one person's, for a network that tells people apart (GFPGAN, arXiv:2101.04061)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorer.networks.arcface import as_grey


class Identity(nn.Module):
    """(N, 3, H, W), same, aligned faces in [0, 1] -> (): `weight` times the L1 of their embeddings.

    The second face, the truth, is held still. The network is frozen, and in no checkpoint.
    """

    def __init__(self, network: nn.Module, *, side: int = 128, weight: float = 1.0) -> None:
        """`network` takes grey faces of `side` in [-1, 1], as ArcFace does."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.side, self.weight = side, weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            truth = self._embedding(y)
        return self.weight * F.l1_loss(self._embedding(x), truth)

    def train(self, mode: bool = True) -> "Identity":
        """Stays in evaluation mode, whatever the network around it does."""
        return super().train(False)

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Nothing: what never changes is not saved with what does."""
        return {}

    def _embedding(self, x: Tensor) -> Tensor:
        return self.network(as_grey(x * 2 - 1, self.side))
