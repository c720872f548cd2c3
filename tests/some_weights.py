"""Weights that tests save and read."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from restorer.errors import WeightsError
from restorer.weights.read import read_checkpoint


def some_weights() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=rng),
        "conv.bias": torch.randn(4, generator=rng),
        "half": torch.randn(5, generator=rng).half(),
        "brain": torch.randn(3, 2, generator=rng).bfloat16(),
        "double": torch.randn(2, generator=rng, dtype=torch.float64),
        "count": torch.tensor(7),
        "small": torch.arange(6, dtype=torch.uint8),
        "mask": torch.tensor([True, False, True]),
        "nothing": torch.empty(0, 3),
    }


def saved(path: Path, content: object, *, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    return str(caught.value)
