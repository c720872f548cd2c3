"""What every reader of weights shares: limits, reading numbers from a file, and what a good tensor is."""

import io
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from restorer.errors import WeightsError

FILE_LIMIT = 4 * 2**30
"""Largest file that is read, in bytes."""
COUNT_LIMIT = 100_000
"""Most tensors that one file may hold."""
NAME_LIMIT = 1000
"""Longest tensor name, in characters."""
DIMENSION_LIMIT = 8
EMPTY_LIMIT = 2**31
"""An empty tensor may not have sides whose product, zeros left out, is above this."""


def read_flat(file: io.BufferedReader, *, at: int, count: int, dtype: torch.dtype) -> Tensor:
    """-> (count,): read `count` little-endian values that begin at byte `at`; the caller has checked the size."""
    raw = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    file.seek(at)
    if count and file.readinto(raw.numpy().data) != raw.numel():
        raise damaged("the file ends within a tensor")
    if dtype == torch.bool and bool((raw > 1).any()):
        raise damaged("a truth value is neither 0 nor 1")
    return raw.view(dtype)


def check_shape(shape: object, *, most: int) -> tuple[int, ...]:
    """Refuse what is not a shape of at most `most` values, before memory is taken for it."""
    sides = check_naturals(shape)
    if len(sides) > DIMENSION_LIMIT:
        raise WeightsError(f"has a tensor of {len(sides)} dimensions; at most {DIMENSION_LIMIT} are read")
    if math.prod(sides) > most or math.prod(max(side, 1) for side in sides) > max(most, EMPTY_LIMIT):
        raise WeightsError("has a tensor that claims more values than are stored for it; it is damaged or hostile")
    return sides


def check_naturals(values: object) -> tuple[int, ...]:
    """Refuse what is not a row of whole numbers from 0 up."""
    if not isinstance(values, tuple | list) or not all(type(value) is int and value >= 0 for value in values):
        raise damaged("a shape, stride or offset is no row of whole numbers")
    return tuple(values)


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse an empty set, and the first tensor that holds NaN or an infinity."""
    if not weights:
        raise WeightsError("holds no tensors")
    for name, tensor in weights.items():
        if not is_finite(tensor):
            raise WeightsError(
                f"tensor '{shown(name)}' holds values that are not finite; the file is damaged or spoilt"
            )


def is_finite(tensor: Tensor) -> bool:
    """(...) -> whether no value is NaN or infinite; takes no memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    least, largest = torch.aminmax(tensor)
    return math.isfinite(least) and math.isfinite(largest)


def damaged(what: str) -> WeightsError:
    """Say that the file is cut short or damaged, and how it showed."""
    return WeightsError(f"is cut short or damaged ({what}); fetch it again")


def shown(text: str, *, most: int = 80) -> str:
    r"""Make a foreign name fit to be printed in one line: short, and what cannot be seen escaped.

    >>> print(shown("a\nb" * 3, most=5))
    a\nba\n...
    """
    letters = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:most])
    return "".join(letters) + "..." * (len(text) > most)
