"""Look at every tile: a non-finite or collapsed result is run once more in float32, and said; never written."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from restorer.errors import NumericalError

log = logging.getLogger(__name__)
FLAT = 1e-6
"""An output whose values span less than this has collapsed; networks in [0, 1] never do so on a picture that varies."""
VARIES = 2.5 / 255


def fault(x: Tensor, y: Tensor) -> str | None:
    """(N, C, h, w) in, (N, C, H, W) out -> what is wrong with the output, or None.

    >>> fault(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 8, 8), float("nan")))
    'values that are not finite'
    """
    low, high = torch.aminmax(y.flatten(1), dim=1)
    if not bool(torch.isfinite(low + high).all()):
        return "values that are not finite"
    collapsed = high - low < FLAT
    if bool(collapsed.any()):
        low, high = torch.aminmax(x.flatten(1), dim=1)
        if bool((collapsed & (high - low > VARIES)).any()):
            return "one single value although the input varies"
    return None


def checked(run: Callable[[Tensor], Tensor], again: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, H, W): run; where the result is faulty, run `again` in float32, else give up."""
    y = run(x)
    wrong = fault(x, y)
    if wrong is None:
        return y
    if again is not None:
        log.warning("a tile came back with %s; it is done again in float32", wrong)
        y = again(x)
        wrong = fault(x, y)
    if wrong is not None:
        raise NumericalError(f"the network gives {wrong}, in float32 too; the weights do not fit this picture")
    return y
