"""Look at every tile: a non-finite or collapsed result is run once more in float32, and said; never written."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from restorer.errors import NumericalError

log = logging.getLogger(__name__)
FLAT = 1e-6
"""An output none of whose colours varies by as much has collapsed; networks never do so on a picture that varies."""
VARIES = 2.5 / 255
NOT_FINITE, COLLAPSED = "values that are not finite", "one single colour although the input varies"
Reach = tuple[Tensor, Tensor]
"""(N, C), (N, C): the least and the greatest value of each channel; NaN where any value is."""


def reach(x: Tensor) -> Reach:
    """(N, C, h, w) -> (N, C), (N, C)."""
    low, high = torch.aminmax(x.flatten(2), dim=2)
    return low, high


def joined(one: Reach | None, other: Reach) -> Reach:
    """The reaches of two parts of a picture, of which the first may be none, -> that of both."""
    return other if one is None else (torch.minimum(one[0], other[0]), torch.maximum(one[1], other[1]))


def is_finite(found: Reach) -> bool:
    """Whether no value was infinite or NaN."""
    return bool(torch.isfinite(found[0] + found[1]).all())


def span(found: Reach) -> Tensor:
    """(N, C), (N, C) -> (N,): how far the channel that varies most does so."""
    return (found[1] - found[0]).amax(1)


def spans(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, h, w) in, (N, C', H, W) out -> (2, N): how far each varies. What `judged` needs; nothing is waited for."""
    return torch.stack([span(reach(x)), span(reach(y))])


def judged(found: Tensor) -> str | None:
    """What `spans` gave -> what is wrong with the output, or None."""
    given, made = found
    if not bool(made.isfinite().all()):
        return NOT_FINITE
    return COLLAPSED if bool(((made < FLAT) & (given > VARIES)).any()) else None


def fault(x: Tensor, y: Tensor) -> str | None:
    """(N, C, h, w) in, (N, C', H, W) out -> what is wrong with the output, or None.

    >>> fault(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 8, 8), float("nan")))
    'values that are not finite'
    """
    return judged(spans(x, y))


def checked(run: Callable[[Tensor], Tensor], again: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W): run; where the result is faulty, run `again` in float32, else give up."""
    y = run(x)
    wrong = fault(x, y)
    return y if wrong is None else redone(x, wrong, again)


def redone(x: Tensor, wrong: str, again: Callable[[Tensor], Tensor] | None) -> Tensor:
    """(N, C, h, w) whose result was `wrong` -> (N, C, H, W) in float32; NumericalError where that does not help."""
    if again is None:
        raise hopeless(wrong)
    log.warning("a tile came back with %s; it is done again in float32", wrong)
    y = again(x)
    wrong_again = fault(x, y)
    if wrong_again is not None:
        raise hopeless(wrong_again)
    return y


class FaultyError(Exception):
    """What is wrong with a result that came in rows, in words of this file's: begin again in float32, or give up."""


def hopeless(wrong: str) -> NumericalError:
    """What is said where float32 does not help."""
    return NumericalError(f"the network gives {wrong}, in float32 too; the weights do not fit this picture")
